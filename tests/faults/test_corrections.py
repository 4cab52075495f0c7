"""What a hospital corrects while and after we work, through a real PACS; each rule alone: tests/registry, routing, delivery."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pydicom
import pytest

from dicomnode.domain.rejection import KEY_OBJECT_SELECTION, NamedInstance, RejectionNote
from dicomnode.network.rejection_notes import read_rejection_note, rejection_note
from tests.faults.crashing import MortalNode, Nursery, another_study
from tests.peers.orthanc import Orthanc, StoredInstance
from tests.peers.waiting import wait_until

WITHDRAWING = '\n[[profiles]]\nname = "withdrawing"\nlike = "ohif"\nrejection_note = "113039"\n'


def held_by(pacs: Orthanc, study: str) -> list[StoredInstance]:
    return [one for one in pacs.instances() if one.study_instance_uid == study]


def rejecting(image: Path, path: Path) -> Path:
    """A PACS's own rejection note on this image, for its quality."""
    dataset = pydicom.dcmread(image)
    named = NamedInstance(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID))
    note = RejectionNote("113001", str(dataset.StudyInstanceUID), (named,))
    uid, series = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    at = datetime(2026, 11, 21, 9, 0)  # noqa: DTZ001 - local, as DA and TM are
    document = rejection_note(dataset, note, sop_instance_uid=uid, series_instance_uid=series, at=at, description="Bad image")
    del document.ContributingEquipmentSequence  # it is the PACS's own, not one of ours that came back
    document.Manufacturer = document.ManufacturerModelName = "Some PACS"
    document.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_newer_version_withdraws_the_older_in_the_pacs_and_a_note_that_comes_from_there_makes_another(
    nursery: Nursery, pacs: Orthanc, template: list[Path], tmp_path: Path
) -> None:
    study, paths = another_study(template, tmp_path / "study", "withdrawn")
    with MortalNode(tmp_path / "node-withdrawing", nursery, pacs, results=["SEG", "SR"]) as node:
        text = node.node.config.read_text()
        assert 'profile = "ohif"' in text
        assert '"retrieve"]' in text
        text = text.replace('profile = "ohif"', 'profile = "withdrawing"').replace('"retrieve"]', '"retrieve", "reject"]')
        node.node.config.write_text(text + WITHDRAWING)
        node.start()
        node.send_until_taken(paths[:-1])
        node.wait_for_end(study)
        first = {one.sop_instance_uid for one in held_by(pacs, study)}
        assert len(first) == 2

        node.send_until_taken(paths[-1:])  # a late image
        node.wait_for_end(study)
        wait_until(lambda: len(notes(pacs, study)) == 1, timeout_s=240, what="the note that withdraws the first version")
        (path,) = saved(pacs, notes(pacs, study), tmp_path)
        note = read_rejection_note(path)
        assert note is not None
        assert note.code == "113039"
        assert {one.sop_instance_uid for one in note.named} == first

        pacs.upload([rejecting(paths[0], tmp_path / "bad.dcm")])
        pacs.send(node.node.folder.name, study)  # all that it has: our results and our own note come back, too
        left_out = "SELECT count(*) FROM instances WHERE rejected = '113001'"
        wait_until(lambda: node.rows(left_out) == [(1,)], timeout_s=240, what="the note to be carried out")
        wait_until(lambda: states(node) == ["superseded", "superseded", "done"], timeout_s=240, what="a third version")
        node.wait_for_end(study)
        wait_until(lambda: len(reports(pacs, study)) == 3, timeout_s=240, what="the third version's report")
        newest = max(
            (pydicom.dcmread(one) for one in saved(pacs, reports(pacs, study), tmp_path)), key=lambda one: one.InstanceNumber
        )
        rejected = str(pydicom.dcmread(paths[0], stop_before_pixels=True).SOPInstanceUID)
        evidence = newest.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        named = {str(item.ReferencedSOPInstanceUID) for one in evidence for item in one.ReferencedSOPSequence}
        assert rejected not in named
        assert "pacs rejected it: Rejected for Quality Reasons (113001)" in str(node.node.json("explain", study))


def states(node: MortalNode) -> list[str]:
    return [state for (state,) in node.rows("SELECT state FROM jobs ORDER BY version")]


def notes(pacs: Orthanc, study: str) -> list[StoredInstance]:
    return [one for one in held_by(pacs, study) if one.sop_class_uid == KEY_OBJECT_SELECTION]


def reports(pacs: Orthanc, study: str) -> list[StoredInstance]:
    return [one for one in held_by(pacs, study) if one.modality == "SR"]


def saved(pacs: Orthanc, instances: Sequence[StoredInstance], folder: Path) -> list[Path]:
    paths = []
    for one in instances:
        paths.append(folder / f"{one.sop_instance_uid}.dcm")
        paths[-1].write_bytes(pacs.download(one))
    return paths


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_patient_who_is_merged_while_results_wait_for_the_pacs_gets_none_under_the_old_identity(
    nursery: Nursery, template: list[Path], tmp_path: Path
) -> None:
    study, paths = another_study(template, tmp_path / "study", "merged")
    other, other_paths = another_study(template, tmp_path / "other", "beside the merged one")
    with (
        Orthanc(tmp_path / "pacs") as pacs,
        MortalNode(tmp_path / "node-merged", nursery, pacs, results=["SEG", "SR"]) as node,
    ):
        pacs.stop()
        node.start()
        node.send_until_taken(paths)
        tried = "SELECT count(*) FROM deliveries WHERE attempt > 0 AND state = 'waiting'"
        wait_until(lambda: node.rows(tried) >= [(1,)], timeout_s=240, what="the dead PACS to be tried")
        for path in paths:
            dataset = pydicom.dcmread(path)
            dataset.PatientID, dataset.PatientName = "MERGED-2", "Merged^Jane"
            dataset.save_as(path)
        assert node.send(paths), "corrected images are kept"
        pacs.start()
        pacs.add_modality(node.node.folder.name, pacs.modalities[node.node.folder.name])
        node.send_until_taken(other_paths)
        node.wait_for_end(other)
        assert held_by(pacs, study) == [], "who it is about is not decided"
        assert "retry" in str(node.node.json("explain", study)["paragraph"]), "and the answer says what an operator can do"

        assert node.node.command("retry", "S1").returncode == 0
        node.wait_for_end(study)
        found = held_by(pacs, study)
        assert len(found) == 2
        assert {str(pacs.dataset(one).PatientID) for one in found} == {"MERGED-2"}
