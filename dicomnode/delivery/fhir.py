"""A FHIR R4 server as destination: a transaction Bundle is posted to its base address (FHIR 3.1.0.11), a read is the proof.

Its entries are PUT under ids of ours: the same bundle again changes nothing.
"""

import http.client
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from dicomnode.delivery.destination import Answer
from dicomnode.delivery.http_service import LONGEST_ANSWER_BYTES, HttpService
from dicomnode.domain.profiles import ResultKind
from dicomnode.domain.results import ResultObject
from dicomnode.domain.statuses import Outcome

_MEDIA_TYPE = "application/fhir+json"
_PASSING = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504, 507})
# The server understood and does not want it; the same bytes will not do better.
_REFUSED = frozenset({400, 415, 422})


class FhirSender(HttpService):
    """One server, named by its base address such as https://fhir.example/r4."""

    what = "the FHIR server"
    query = "FHIR read"

    def takes(self, result: ResultObject) -> bool:
        """Bundles."""
        return result.kind is ResultKind.FHIR

    def send(self, path: Path, result: ResultObject) -> Answer:
        """One POST of one bundle. Without an answer the outcome is unknown and the same ids go again."""
        if result.kind is not ResultKind.FHIR:
            return Answer(Outcome.REJECTED, message="a FHIR server takes no DICOM objects", class_refused=True)
        headers = {"Content-Type": _MEDIA_TYPE, "Accept": _MEDIA_TYPE}
        try:
            with closing(self._connection()) as connection:
                connection.connect()
                connection.sock.settimeout(self._longest_send_s)
                connection.request("POST", self._at.path or "/", body=path.read_bytes(), headers=headers)
                answer = connection.getresponse()
                return _meaning(answer.status, answer.read(LONGEST_ANSWER_BYTES))
        except (OSError, http.client.HTTPException) as error:
            return Answer(Outcome.TRY_AGAIN, message=f"the FHIR server gave no answer ({type(error).__name__})")

    def holds(self, results: Sequence[ResultObject]) -> set[str]:
        """Those whose report the server gives back. Raises UnreachableError."""
        return {one.sop_instance_uid for one in results if one.path.is_file() and self._shows(one.path)}

    def _shows(self, path: Path) -> bool:
        resources = [entry["resource"] for entry in json.loads(path.read_bytes())["entry"]]
        name = next(one["id"] for one in resources if one["resourceType"] == "DiagnosticReport")
        try:
            with closing(self._connection()) as connection:
                connection.request("GET", f"{self._at.path}/DiagnosticReport/{name}", headers={"Accept": _MEDIA_TYPE})
                return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None


def _meaning(status: int, body: bytes) -> Answer:
    """A transaction is done whole or not at all; still each entry says how it went."""
    message = f"the FHIR server answered HTTP {status}"
    if status in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
        bad = [one for one in _entry_statuses(body) if not one.startswith("2")]
        return (
            Answer(Outcome.DOUBTFUL, message=f"{message}, but {len(bad)} entries failed") if bad else Answer(Outcome.ACCEPTED)
        )
    if status in _PASSING:
        return Answer(Outcome.TRY_AGAIN, message=message)
    if status in _REFUSED:
        return Answer(Outcome.REJECTED, message=message)
    # 401 and 403 are somebody's setting, which somebody may mend within hours.
    return Answer(Outcome.DOUBTFUL, message=message)


def _entry_statuses(body: bytes) -> list[str]:
    """What the answer says of each entry; nothing where it says nothing (Prefer: return=minimal)."""
    try:
        entries = json.loads(body).get("entry", [])
        return [str(one["response"]["status"]) for one in entries if "response" in one]
    except (ValueError, AttributeError, KeyError, TypeError):
        return []
