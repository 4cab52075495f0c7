"""Bundles go to a FHIR server by one POST, and only what it says it took counts."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydantic import ValidationError

from dicomnode.delivery.checks import identity_problem
from dicomnode.delivery.fhir import FhirSender
from dicomnode.delivery.folder import FolderSender
from dicomnode.domain.errors import UnreachableError
from dicomnode.domain.profiles import SHIPPED, ResultKind
from dicomnode.domain.results import ResultObject
from dicomnode.domain.statuses import Outcome
from dicomnode.results import build, verify
from tests.peers.waiting import free_port
from tests.results.cases import request_for, small_findings, small_series, volume_of


@dataclass
class Server:
    """A FHIR server as far as delivery speaks to one: validates a transaction, keeps its resources, reads them back."""

    address: str = ""
    posts: int = 0
    kept: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.posts += 1
            content = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                Bundle.model_validate_json(content)
            except ValidationError:
                self._answer(422, {"resourceType": "OperationOutcome"})
                return
            entries = json.loads(content)["entry"]
            state.kept.update({f"/r4/{entry['request']['url']}": entry["resource"] for entry in entries})
            reply = [{"response": {"status": "201 Created"}} for _ in entries]
            self._answer(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": reply})

        def do_GET(self) -> None:
            found = state.kept.get(self.path)
            self._answer(200 if found else 404, found or {})

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{listening.server_address[1]}/r4"
    yield state
    listening.shutdown()
    listening.server_close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ResultObject:
    folder = tmp_path_factory.mktemp("bundle")
    paths = small_series(folder / "ct", slices=8)
    volume = volume_of(paths)
    findings = small_findings(volume)
    request = request_for(paths, kinds=tuple(ResultKind), profiles=(SHIPPED["fhir"],))
    (made,) = build(findings, volume, paths, request, folder / "results")
    verify((made,), findings, volume, paths)
    return made


def test_a_bundle_is_posted_and_proved_by_reading_its_report(server: Server, bundle: ResultObject) -> None:
    sender = FhirSender(server.address, 20.0)
    assert sender.holds([bundle]) == set()
    with sender.connect(bundle) as connection:
        for _ in range(2):  # the same again changes nothing
            assert connection.send(bundle.path, bundle).outcome is Outcome.ACCEPTED
    assert sender.holds([bundle]) == {bundle.sop_instance_uid}
    assert sorted(one.split("/")[2] for one in server.kept) == ["Device", "DiagnosticReport", *["Observation"] * 5]


def test_what_the_server_finds_wrong_is_rejected_and_a_silent_one_is_asked_again(
    server: Server, bundle: ResultObject, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.json"
    content = json.loads(bundle.path.read_bytes())
    del content["entry"][1]["resource"]["status"]
    wrong.write_text(json.dumps(content))
    assert FhirSender(server.address, 20.0).send(wrong, bundle).outcome is Outcome.REJECTED
    nobody = FhirSender(f"http://127.0.0.1:{free_port()}/r4", 5.0)
    assert nobody.send(bundle.path, bundle).outcome is Outcome.TRY_AGAIN
    with pytest.raises(UnreachableError), nobody.connect(bundle):
        pass


def test_a_folder_gets_the_bundle_as_json(bundle: ResultObject, tmp_path: Path) -> None:
    sender = FolderSender(tmp_path)
    assert sender.send(bundle.path, bundle).outcome is Outcome.ACCEPTED
    (written,) = tmp_path.rglob("*.json")
    assert written.read_bytes() == bundle.path.read_bytes()
    assert sender.holds([bundle]) == {bundle.sop_instance_uid}


def test_a_bundle_of_a_patient_who_was_corrected_since_does_not_leave(bundle: ResultObject) -> None:
    study = bundle.study_instance_uid
    assert identity_problem(bundle.path, {"PatientID": "R-1"}, study) == ""
    assert "PatientID" in identity_problem(bundle.path, {"PatientID": "R-2"}, study)
    assert "StudyInstanceUID" in identity_problem(bundle.path, {"PatientID": "R-1"}, "1.2.3")
