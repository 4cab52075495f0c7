"""Operational logs carry no patient data and no UIDs: marker values go through success, refusal, crash and traceback."""

import os
import signal
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from dicomnode.phantom import PatientText, small_thorax, write_study
from tests.journeys.hospital import Hospital, send, study_uid_of, wait_for_end
from tests.peers.dcmtk import storescu

MARKS = ("XQZNAME", "XQZGIVEN", "XQZID77", "19470311", "XQZACC9", "XQZREFERRER", "XQZDESCRIPTION")


def marked_patient() -> PatientText:
    return PatientText(
        patient_name="XQZNAME^XQZGIVEN",
        patient_id="XQZID77",
        birth_date="19470311",
        accession_number="XQZACC9",
        referring_physician="XQZREFERRER",
        study_description="XQZDESCRIPTION",
    )


def sinks(hospital: Hospital) -> dict[str, str]:
    """Every text that an operator may read or ship elsewhere: console output, log files, status files."""
    found = {"console": hospital.node.output()}
    for path in hospital.node.data_dir.rglob("*"):
        if path.is_file() and (
            path.suffix in {".log", ".json", ".jsonl", ".txt"} or "run" in path.parts or "logs" in path.parts
        ):
            found[str(path)] = path.read_text(errors="replace")
    return found


def spoil(paths: list[Path], change: str) -> None:
    """Makes a series whose volume is refused (a slice lost) or whose pixels cannot be decoded."""
    if change == "gap":
        paths[len(paths) // 2].unlink()
        return
    for path in paths:
        one: Dataset = pydicom.dcmread(path)
        one.Rows = 60000
        one.save_as(path)


def test_no_log_sink_holds_patient_data_or_uids(tiny_hospital: Hospital, tmp_path: Path) -> None:
    uids: set[str] = set()
    studies = []
    for seed, change in enumerate(("", "gap", "corrupt")):
        paths = write_study(small_thorax(20 + seed), tmp_path / f"study{seed}", patient=marked_patient())
        if change:
            spoil(paths, change)
        for path in paths:
            if path.exists():
                one = pydicom.dcmread(path, stop_before_pixels=True)
                uids |= {str(one.SOPInstanceUID), str(one.SeriesInstanceUID), str(one.StudyInstanceUID)}
        studies.append(study_uid_of(next((tmp_path / f"study{seed}").glob("*.dcm"))))

    tiny_hospital.pacs.start()
    tiny_hospital.node.start()
    for seed in range(len(studies)):
        send(tiny_hospital, tmp_path / f"study{seed}")
    for study in studies:
        wait_for_end(tiny_hospital, study, timeout_s=120)

    # A worker that dies in the middle of a study, and the traceback of a data set that cannot be understood.
    late = write_study(small_thorax(29), tmp_path / "late", patient=marked_patient())
    send(tiny_hospital, tmp_path / "late")
    worker = next(role["pid"] for role in tiny_hospital.node.status()["roles"] if role["name"] == "work")
    os.kill(worker, signal.SIGSEGV)
    broken = pydicom.dcmread(late[0])
    del broken.SOPInstanceUID
    broken.save_as(tmp_path / "broken.dcm", enforce_file_format=False)
    storescu(tiny_hospital.node.port, tmp_path / "broken.dcm", calling="CT_SCANNER", called=tiny_hospital.node.ae_title)
    wait_for_end(tiny_hospital, study_uid_of(late[0]), timeout_s=120)
    tiny_hospital.node.stop()

    texts = sinks(tiny_hospital)
    assert "job" in texts["console"], "the log must say something, or this test proves nothing"
    for mark in MARKS:
        for sink, text in texts.items():
            assert mark.lower() not in text.lower(), f"{mark} stands in {sink}"
    for uid in uids:
        for sink, text in texts.items():
            assert uid not in text, f"a UID stands in {sink}"


def test_the_explanation_is_where_patient_and_uids_are_found(tiny_hospital: Hospital, tmp_path: Path) -> None:
    paths = write_study(small_thorax(31), tmp_path / "study", patient=marked_patient())
    tiny_hospital.node.start("receive")
    send(tiny_hospital, tmp_path / "study")
    listed = tiny_hospital.node.json("studies", "XQZID77")["studies"]
    assert [one["study_instance_uid"] for one in listed] == [study_uid_of(paths[0])]
    assert listed[0]["patient_name"] == "XQZNAME^XQZGIVEN"
