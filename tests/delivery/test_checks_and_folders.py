"""What must not leave stays; a folder as destination; destinations that cannot be served."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.delivery import supported
from dicomnode.domain.errors import SettingsError
from dicomnode.domain.results import ResultKind
from tests.delivery.outbox import PATIENT, Outbox, dicom_destination, folder_destination


def test_results_land_in_a_folder_whole_and_with_the_same_bytes(outbox: Outbox, tmp_path: Path) -> None:
    root = tmp_path / "results"
    root.mkdir()
    results = outbox.finish_a_job("folder")

    assert outbox.deliverer(folder_destination("folder", root)).run_once() == 3

    assert outbox.states() == ["sent"] * 3
    for result in results:
        path = root / result.study_instance_uid / result.series_instance_uid / f"{result.sop_instance_uid}.dcm"
        assert path.read_bytes() == outbox.store.absolute(result.path).read_bytes()
    assert {path.suffix for path in root.rglob("*") if path.is_file()} == {".dcm"}
    assert {one["proof"] for one in outbox.deliveries()} == {"written, synced and read back"}


def test_a_folder_that_is_not_mounted_is_waited_for_not_made(outbox: Outbox, tmp_path: Path) -> None:
    root = tmp_path / "share" / "results"
    outbox.finish_a_job("folder")
    assert outbox.deliverer(folder_destination("folder", root)).run_once() == 1
    assert not root.exists()
    assert outbox.states() == ["waiting"] * 3

    root.mkdir(parents=True)
    outbox.deliverer(folder_destination("folder", root)).run_once()
    assert outbox.states() == ["sent"] * 3


def test_bytes_that_changed_in_the_spool_are_held_and_the_others_go(outbox: Outbox, tmp_path: Path) -> None:
    (damaged,) = outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    (lost,) = outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    content = bytearray(outbox.store.absolute(damaged.path).read_bytes())
    content[-1] ^= 1
    outbox.store.absolute(damaged.path).write_bytes(content)
    outbox.store.absolute(lost.path).unlink()

    outbox.deliverer(folder_destination("folder", tmp_path)).run_once()

    assert outbox.states() == ["held", "held", "sent"]
    assert "bytes have changed" in outbox.deliveries()[0]["last_error"]
    assert "is gone" in outbox.deliveries()[1]["last_error"]


def test_a_result_under_another_patient_than_its_source_is_held(outbox: Outbox, tmp_path: Path) -> None:
    outbox.finish_a_job("folder", kinds=[ResultKind.SC], patient={**PATIENT, "PatientID": "P-2"})
    outbox.finish_a_job("folder", kinds=[ResultKind.SC])

    outbox.deliverer(folder_destination("folder", tmp_path)).run_once()

    assert outbox.states() == ["held", "sent"]
    message = outbox.deliveries()[0]["last_error"]
    assert "PatientID" in message
    assert "P-2" not in message


def test_destinations_that_cannot_be_served_say_what_to_set_instead(tmp_path: Path) -> None:
    pacs = dicom_destination("pacs", "PACS", 4242)
    supported(pacs)
    supported(replace(pacs, proof="find"))
    supported(folder_destination("folder", tmp_path))
    supported(replace(pacs, proof="commitment"))
    with pytest.raises(SettingsError, match=r"storage commitment.* — set proof = \"find\""):
        supported(replace(folder_destination("folder", tmp_path), proof="commitment"))
    with pytest.raises(SettingsError, match="has no peer"):
        supported(replace(pacs, peer=None))
    with pytest.raises(SettingsError, match="has no path"):
        supported(replace(folder_destination("folder", tmp_path), path=None))
    with pytest.raises(SettingsError, match="has no url"):
        supported(replace(pacs, kind="stow"))
    supported(replace(pacs, kind="stow", url="https://pacs.example/dicom-web"))
    with pytest.raises(SettingsError, match="'fhir'"):
        supported(replace(pacs, kind="fhir"))  # type: ignore[arg-type]


def test_delivery_loads_neither_torch_nor_highdicom_nor_monai() -> None:
    script = "import sys, dicomnode.delivery; print([m for m in ('torch', 'highdicom', 'monai') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
