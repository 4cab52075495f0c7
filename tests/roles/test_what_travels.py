"""What a reader must know of a result stands in the SR and in the captures that leave, through the worker, from the files."""

import re
import shutil
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode import routing
from dicomnode.domain.clock import utc_now
from dicomnode.engines.digest import bundle_digest
from dicomnode.phantom import small_thorax, write_study
from dicomnode.receiving import Receiver
from dicomnode.roles import wiring
from dicomnode.roles.lifeline import Lifeline
from dicomnode.roles.sweep import pipeline_facts
from dicomnode.roles.work import Worker
from dicomnode.settings import load_settings
from tests.peers.dcmtk import dcmsend
from tests.peers.node import chest_route, destination, settings_text

TINY = Path(__file__).parents[1] / "pipelines" / "tiny"
CARD = """
[trained_on]
kernels = ["B3*"]
slice_thickness_mm = [0.5, 3.0]
contrast = "with"
age_years = [18, 60]
"""
WARNINGS = (
    "outside the model card: the kernel YC is none that the model was trained on (B3*)",
    "outside the model card: slices are 9 mm thick, the model was trained on 0.5 to 3 mm",
    "outside the model card: no contrast agent is stated, the model was trained on enhanced series",
    "outside the model card: the patient is 71 years old, the model was trained on patients of 18 to 60",
    "24 Frame of Reference UIDs",
)


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def _series(folder: Path) -> None:
    """Another kernel, thickness, contrast and age than the card says; a frame of reference for each image."""
    for number, path in enumerate(write_study(small_thorax(5), folder)):
        data_set = pydicom.dcmread(path)
        data_set.FrameOfReferenceUID = f"2.25.{700 + number}"
        data_set.PatientIdentityRemoved, data_set.DeidentificationMethod = "YES", "a new UID for each image"
        data_set.ConvolutionKernel, data_set.SliceThickness, data_set.PatientAge = "YC", 9, "071Y"
        data_set.save_as(path)


def _text(data_set: Dataset) -> str:
    """All text of a report; of a capture its own words."""
    if data_set.Modality == "SR":
        return " ".join(str(one.value) for one in data_set.iterall() if one.keyword == "TextValue")
    return str(data_set.ImageComments)


def _pages(data_sets: list[Dataset], kind: str) -> list[Dataset]:
    return [one for one in data_sets if one.Modality == kind]


def test_warnings_and_the_model_cards_facts_stand_in_every_report_and_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "pipelines" / "tiny"
    shutil.copytree(TINY, bundle)
    with (bundle / "pipeline.toml").open("a") as file:
        file.write(CARD)
    (tmp_path / "results").mkdir()
    folder = destination("folder", kind="folder", path=str(tmp_path / "results"), peer=None, proof="status")
    route = chest_route(pipeline="tiny", send_to=["folder"], match={"Modality": "CT"})
    tables = {"node": {"data_dir": str(tmp_path / "data")}, "pipelines": {"folders": [str(bundle.parent)]}}
    (config := tmp_path / "dicomnode.toml").write_text(settings_text(tables, {"destinations": [folder], "routes": [route]}))
    settings = load_settings(config)
    store, registry = wiring.open_store(settings), wiring.open_registry(settings)
    store.prepare()
    registry.prepare()
    _series(tmp_path / "study")
    receiver = Receiver(store, registry, ae_title="DICOMNODE", port=0)
    receiver.start()
    assert dcmsend(receiver.port, tmp_path / "study").ok
    receiver.stop()
    routing.sweep(registry, wiring.routes(settings), utc_now() + timedelta(minutes=5), pipelines=pipeline_facts(settings))
    job = registry.claim_job(wiring.worker_name(settings), 60)
    assert job is not None
    drawn: list[str] = []
    _listen_to_the_pen(monkeypatch, drawn)
    Worker(settings, registry, store, Lifeline()).attempt(job)
    spooled = [store.absolute(path) for path, _, _ in registry.known_files() if path.parts[0] == "spool"]
    registry.close()

    data_sets = [pydicom.dcmread(path) for path in spooled]
    reports, captures = _pages(data_sets, "SR"), _pages(data_sets, "OT")
    assert reports
    assert len(captures) > 1
    facts = (
        f"Model tiny 1.0.0, SHA-256 {bundle_digest(bundle)[:16]}, by dicomnode project.",
        "Intended use: Tests of the node only. Not a trained model.",
        "Model card: Three linear filters that stand in for a network in tests. Not trained, not for any use.",
        "DEMONSTRATION - NOT FOR CLINICAL USE",
    )
    for data_set in (*reports, *captures):
        said = _text(data_set)
        assert [one for one in (*WARNINGS, *facts) if one not in said] == []
    page = re.sub(r"\s+", " ", " ".join(drawn))
    assert "DEMONSTRATION - NOT FOR CLINICAL USE" in page
    assert f"Model tiny 1.0.0, weights {bundle_digest(bundle)[:12]}, dicomnode project" in page
    assert [one for one in WARNINGS if f"Note: {one[:1].upper()}{one[1:]}" not in page] == []


def _listen_to_the_pen(monkeypatch: pytest.MonkeyPatch, drawn: list[str]) -> None:
    """Every text that is drawn onto a page, as it is drawn."""
    from PIL import ImageDraw

    plainly = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: object, words: str, *args: object, **more: object) -> None:
        drawn.append(words)
        plainly(self, xy, words, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
