"""Whatever contradicts its source or the findings does not leave: each check is shown something that it must catch."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.results import ResultKind
from dicomnode.results import verify
from tests.results.conftest import Case, make_case
from tests.results.test_report import groups


def tampered(case: Case, kind: ResultKind, change: Callable[[Dataset], None], folder: Path) -> tuple:
    """The objects of a case, the first of a kind changed and recorded anew, as if it had been built so."""
    objects = list(case.objects)
    place = next(index for index, one in enumerate(objects) if one.kind == kind)
    dataset = pydicom.dcmread(objects[place].path)
    change(dataset)
    path = folder / "changed.dcm"
    dataset.save_as(path)
    content = path.read_bytes()
    objects[place] = replace(objects[place], path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    return tuple(objects)


def put(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def flip_a_voxel(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[100] ^= 1
    dataset.PixelData = bytes(pixels)


def shift_a_frame(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[2] += 2.5


def nudge_a_frame(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[1] += 0.05


def swap_two_sources(dataset: Dataset) -> None:
    first, second = (
        dataset.PerFrameFunctionalGroupsSequence[place].DerivationImageSequence[0].SourceImageSequence[0] for place in (0, 1)
    )
    first.ReferencedSOPInstanceUID, second.ReferencedSOPInstanceUID = (
        second.ReferencedSOPInstanceUID,
        first.ReferencedSOPInstanceUID,
    )


def turn(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def stretch(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.7, 0.8]


def name_a_stranger(dataset: Dataset) -> None:
    dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"


def lose_a_frame(dataset: Dataset) -> None:
    frames = list(dataset.PerFrameFunctionalGroupsSequence)[:-1]
    dataset.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    dataset.NumberOfFrames = len(frames)
    size = dataset.Rows * dataset.Columns // 8
    dataset.PixelData = dataset.PixelData[: len(frames) * size]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flip_a_voxel, "differs from the model's mask"),
        (shift_a_frame, "lies elsewhere"),
        (nudge_a_frame, "lies elsewhere"),
        (swap_two_sources, "lies elsewhere"),
        (turn, "turned against"),
        (stretch, "another pixel spacing"),
        (name_a_stranger, "not in the source series"),
        (lose_a_frame, "voxels, the findings"),
        (put("FrameOfReferenceUID", "1.2.3"), "another frame of reference"),
        (put("PatientID", "R-2"), "PatientID differs"),
        (put("ContentLabel", ""), "ContentLabel is missing"),
        (put("ContributingEquipmentSequence", pydicom.Sequence()), "does not say that this node made it"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_wrong_segmentation_is_held(case: Case, tmp_path: Path, change: Callable[[Dataset], None], words: str) -> None:
    objects = tampered(case, ResultKind.SEG, change, tmp_path)
    with pytest.raises(ResultCheckFailed, match=words):
        verify(objects, case.findings, case.volume, case.paths)


def another_number(place: int) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        lesion = groups(dataset)[1]
        number = [item for item in lesion.ContentSequence if item.ValueType == "NUM"][place]
        value = number.MeasuredValueSequence[0]
        value.NumericValue = float(value.NumericValue) + 0.5

    return change


def lose_a_group(dataset: Dataset) -> None:
    measurements = next(item for item in dataset.ContentSequence if groups(item))
    measurements.ContentSequence = pydicom.Sequence(list(measurements.ContentSequence)[:-1])


def say_absent(dataset: Dataset) -> None:
    item = next(
        item
        for item in groups(dataset)[0].ContentSequence
        if item.ValueType == "CODE" and item.ConceptCodeSequence[0].CodeMeaning == "Present"
    )
    item.ConceptCodeSequence[0].CodeValue, item.ConceptCodeSequence[0].CodeMeaning = "272519000", "Absent"


def rename_a_track(dataset: Dataset) -> None:
    next(item for item in groups(dataset)[1].ContentSequence if item.ValueType == "TEXT").TextValue = "other"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *((another_number(place), "a number of Nodule 1 differs") for place in range(6)),
        (lose_a_group, "SR lacks 1 of the findings"),
        (say_absent, "another value"),
        (rename_a_track, "tracking identifier"),
        (put("VerificationFlag", "VERIFIED"), "a person verified it"),
        (put("PatientName", "Someone^Else"), "PatientName differs"),
        (put("AccessionNumber", "A2"), "AccessionNumber differs"),
    ],
)
def test_a_wrong_report_is_held(case: Case, tmp_path: Path, change: Callable[[Dataset], None], words: str) -> None:
    objects = tampered(case, ResultKind.SR, change, tmp_path)
    with pytest.raises(ResultCheckFailed, match=words):
        verify(objects, case.findings, case.volume, case.paths)


def test_findings_that_contradict_their_own_mask_are_held(case: Case) -> None:
    lungs = case.findings.label_maps[0]
    fewer = replace(lungs.segments[0], voxels=lungs.segments[0].voxels - 1)
    wrong = replace(
        case.findings, label_maps=(replace(lungs, segments=(fewer, lungs.segments[1])), *case.findings.label_maps[1:])
    )
    with pytest.raises(ResultCheckFailed, match="voxels, the findings"):
        verify(case.objects, wrong, case.volume, case.paths)


def test_a_report_whose_volume_is_not_that_of_the_segment_is_held(case: Case, tmp_path: Path) -> None:
    """Report and findings agree, but the lesion was measured on more voxels than its segment has: two lesions shared them."""
    lesion = case.findings.lesions[1]
    larger = replace(lesion, volume_ml=lesion.volume_ml + 2 * case.volume.voxel_ml)
    findings = replace(case.findings, lesions=(case.findings.lesions[0], larger))
    made = make_case(case.paths, findings, case.volume, tmp_path, kinds=(ResultKind.SEG, ResultKind.SR))
    with pytest.raises(ResultCheckFailed, match="the volume of Nodule 2 is not that of its segment"):
        verify(made.objects, findings, case.volume, case.paths)


def test_an_organ_s_reported_volume_that_is_not_its_segment_s_is_held(negative: Case, tmp_path: Path) -> None:
    lungs = negative.findings.label_maps[0]
    larger = replace(lungs.segments[0], volume_ml=lungs.segments[0].volume_ml + 1)
    findings = replace(
        negative.findings, classifications=(), label_maps=(replace(lungs, segments=(larger, lungs.segments[1])),)
    )
    made = make_case(negative.paths, findings, negative.volume, tmp_path, kinds=(ResultKind.SEG, ResultKind.SR))
    with pytest.raises(ResultCheckFailed, match="the volume of Left lung is not that of its segment"):
        verify(made.objects, findings, negative.volume, negative.paths)


def test_a_file_that_changed_on_disk_is_held(case: Case, tmp_path: Path) -> None:
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(case.objects[0].path.read_bytes()[:-2] + b"\0\1")
    objects = (replace(case.objects[0], path=copy), *case.objects[1:])
    with pytest.raises(ResultCheckFailed, match="changed after it was written"):
        verify(objects, case.findings, case.volume, case.paths)


def test_a_file_that_is_gone_is_held(case: Case, tmp_path: Path) -> None:
    objects = (replace(case.objects[0], path=tmp_path / "gone.dcm"), *case.objects[1:])
    with pytest.raises(ResultCheckFailed, match="cannot be read"):
        verify(objects, case.findings, case.volume, case.paths)


def test_two_objects_of_one_uid_are_held(case: Case) -> None:
    with pytest.raises(ResultCheckFailed, match="same UID"):
        verify((case.objects[0], case.objects[0]), case.findings, case.volume, case.paths)


def test_what_was_built_passes(case: Case, negative: Case) -> None:
    verify(case.objects, case.findings, case.volume, case.paths)
    verify(negative.objects, negative.findings, negative.volume, negative.paths)


def test_an_object_that_names_more_than_its_recorded_sources_is_held(case: Case) -> None:
    """Delivery looks the recorded ones up in the registry: what an object names beside them would never be looked at."""
    first, *others = case.objects
    forgetful = replace(first, source_sop_instance_uids=first.source_sop_instance_uids[:-6])
    with pytest.raises(ResultCheckFailed, match="6 instances that are not recorded as its sources"):
        verify((forgetful, *others), case.findings, case.volume, case.paths)
