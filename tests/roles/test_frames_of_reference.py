"""Several frames of reference in one series: refused, taken with a warning in the report, as the route and the header say."""

import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pydicom
import pytest

from dicomnode import routing
from dicomnode.domain.clock import utc_now
from dicomnode.phantom import small_thorax, write_study
from dicomnode.receiving import Receiver
from dicomnode.roles import wiring
from dicomnode.roles.lifeline import Lifeline
from dicomnode.roles.sweep import pipeline_facts
from dicomnode.roles.work import Worker
from dicomnode.settings import load_settings
from tests.peers.dcmtk import dcmsend
from tests.peers.node import chest_route, destination, settings_text

PIPELINES = Path(__file__).parents[1] / "pipelines"


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def series_with_many(folder: Path, *, deidentified: bool) -> None:
    for number, path in enumerate(write_study(small_thorax(5), folder)):
        data_set = pydicom.dcmread(path)
        data_set.FrameOfReferenceUID = f"2.25.{700 + number}"
        if deidentified:
            data_set.PatientIdentityRemoved, data_set.DeidentificationMethod = "YES", "a new UID for each image"
        data_set.save_as(path)


@pytest.mark.parametrize(
    ("deidentified", "allowed", "state"),
    [(False, False, "refused"), (False, True, "done"), (True, False, "done")],
    ids=["not de-identified", "the route allows it", "de-identified"],
)
def test_many_frames_of_reference_are_refused_or_go_with_a_warning_into_the_report(
    tmp_path: Path, deidentified: bool, allowed: bool, state: str
) -> None:
    (tmp_path / "results").mkdir()
    folder = destination("folder", kind="folder", path=str(tmp_path / "results"), peer=None, proof="status")
    route = chest_route(pipeline="tiny", send_to=["folder"], match={"Modality": "CT"}, allow_many_frames_of_reference=allowed)
    tables = {"node": {"data_dir": str(tmp_path / "data")}, "pipelines": {"folders": [str(PIPELINES)]}}
    (config := tmp_path / "dicomnode.toml").write_text(settings_text(tables, {"destinations": [folder], "routes": [route]}))
    settings = load_settings(config)
    store, registry = wiring.open_store(settings), wiring.open_registry(settings)
    store.prepare()
    registry.prepare()
    series_with_many(tmp_path / "study", deidentified=deidentified)
    receiver = Receiver(store, registry, ae_title="DICOMNODE", port=0)
    receiver.start()
    assert dcmsend(receiver.port, tmp_path / "study").ok
    receiver.stop()
    routing.sweep(registry, wiring.routes(settings), utc_now() + timedelta(minutes=5), pipelines=pipeline_facts(settings))
    job = registry.claim_job(wiring.worker_name(settings), 60)
    assert job is not None
    Worker(settings, registry, store, Lifeline()).attempt(job)

    explained = registry.explain("S1")
    assert explained is not None
    (told,) = [job for series in explained["series"] for job in series["jobs"]]
    reports = [path for path, _, _ in registry.known_files() if path.parts[0] == "spool"]
    data_sets = [pydicom.dcmread(store.absolute(path)) for path in reports]
    words = [str(one.value) for data_set in data_sets for one in data_set.iterall() if one.keyword == "TextValue"]
    registry.close()
    assert told["state"] == state
    if state == "refused":
        assert "24 different Frames of Reference" in told["reason"]
        assert "the route must allow several" in explained["paragraph"] + str(told)
    else:
        assert any("24 Frame of Reference UIDs" in warning for warning in told["findings"]["warnings"])
        assert any("24 Frame of Reference UIDs" in one for one in words)  # in the PACS, not only in our logs
