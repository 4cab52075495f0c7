"""A segmentation in the form and within the limits of its destination is the same mask, whole or not at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.profiles import SHIPPED, OverLimit, Profile, ResultKind, SegForm
from dicomnode.domain.sop_classes import LABEL_MAP_SEGMENTATION
from dicomnode.results import build, verify
from dicomnode.results.context import make_context
from dicomnode.results.seg import _encode, _layers, _numbered
from dicomnode.results.seg_plan import plan, shown_segments
from dicomnode.results.source import read_sources
from tests.results.cases import request_for, small_findings, small_series, volume_of
from tests.results.conftest import Case, make_case
from tests.results.test_checks import tampered
from tests.results.test_report import concept, groups, report, texts
from tests.results.test_segmentation import group, points_of

SEG_AND_SR = (ResultKind.SEG, ResultKind.SR)
PLAIN = SHIPPED["archive"].without_fallbacks()


def made_for(case: Case, folder: Path, profile: Profile) -> Case:
    made = make_case(case.paths, case.findings, case.volume, folder, profiles=(profile,), kinds=SEG_AND_SR)
    verify(made.objects, made.findings, made.volume, made.paths)
    return made


def by_label(made: Case) -> dict[str, tuple[Dataset, Dataset]]:
    """(object, its item) of each segment but a background."""
    return {
        str(item.SegmentLabel): (dataset, item)
        for dataset in made.of_kind(ResultKind.SEG)
        for item in dataset.SegmentSequence
        if item.SegmentNumber != dataset.get("PixelPaddingValue")
    }


def points_in_label_map(dataset: Dataset, number: int) -> np.ndarray:
    """LPS of every voxel of a segment, by pydicom's decoder and the frame's own plane."""
    points = []
    for frame, values in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
        plane = np.array(group(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient, float)
        spacing = np.array(group(dataset, frame, "PixelMeasuresSequence").PixelSpacing, float)
        rows, columns = np.nonzero(values == number)
        origin = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        points.append(origin + np.outer(columns * spacing[1], plane[:3]) + np.outer(rows * spacing[0], plane[3:]))
    return np.concatenate(points)


@pytest.mark.parametrize("form", list(SegForm))
@pytest.mark.parametrize("keep_empty_frames", [False, True])
def test_every_form_holds_every_voxel_of_every_segment_at_its_place(
    case: Case, tmp_path: Path, form: SegForm, keep_empty_frames: bool
) -> None:
    made = made_for(case, tmp_path, replace(PLAIN, seg_form=form, keep_empty_frames=keep_empty_frames))
    found = by_label(made)
    assert len(found) == 4
    for one, segment in shown_segments(case.findings):
        dataset, item = found[segment.label]
        read = points_in_label_map if form is SegForm.LABELMAP else points_of
        points = read(dataset, int(item.SegmentNumber))
        indices = np.argwhere(one.labels == segment.number)
        assert len(points) == segment.voxels
        assert np.allclose(points.mean(axis=0), (case.volume.affine @ np.append(indices.mean(axis=0), 1))[:3], atol=0.01)


@pytest.mark.parametrize("form", [SegForm.BINARY, SegForm.FRACTIONAL])
def test_another_implementation_finds_each_segment_s_centroid_where_the_mask_has_it(
    case: Case, tmp_path: Path, form: SegForm
) -> None:
    """SimpleITK (GDCM) decodes the masks and says where the source slices lie; pydicom only tells which slice a frame names."""
    simple_itk = pytest.importorskip("SimpleITK")
    made = made_for(case, tmp_path, replace(PLAIN, seg_form=form))
    (path,) = (one.path for one in made.objects if one.kind is ResultKind.SEG)
    masks = simple_itk.GetArrayFromImage(simple_itk.ReadImage(str(path))) > 0
    slices = {}
    for source in case.paths:
        reader = simple_itk.ImageFileReader()
        reader.SetFileName(str(source))
        reader.ReadImageInformation()
        slices[reader.GetMetaData("0008|0018").strip("\0 ")] = simple_itk.ReadImage(str(source))
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    points: dict[int, list[tuple[float, ...]]] = {}
    for frame, mask in zip(dataset.PerFrameFunctionalGroupsSequence, masks, strict=True):
        grid = slices[frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        number = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for row, column in np.argwhere(mask):
            points.setdefault(number, []).append(grid.TransformIndexToPhysicalPoint((int(column), int(row), 0)))
    for number, (one, segment) in enumerate(shown_segments(case.findings), start=1):
        indices = np.argwhere(one.labels == segment.number)
        expected = (case.volume.affine @ np.append(indices.mean(axis=0), 1))[:3]
        assert len(points[number]) == segment.voxels
        assert np.allclose(np.mean(points[number], axis=0), expected, atol=0.01)


def test_the_own_writer_of_fractional_objects_writes_what_highdicom_writes(case: Case, tmp_path: Path) -> None:
    findings = replace(case.findings, label_maps=case.findings.label_maps[:1], lesions=())
    profile = replace(PLAIN, seg_form=SegForm.FRACTIONAL)
    request = request_for(case.paths, profiles=(profile,), kinds=(ResultKind.SEG,))
    (ours,) = build(findings, case.volume, case.paths, request, tmp_path)
    context = make_context(findings, read_sources(case.paths, case.volume), request)
    part = plan(context, findings, case.volume).parts[0]
    ((labels, descriptions),) = _numbered(context, _layers(part, context.sources))
    binary = _encode(context, labels, descriptions, case.volume, 1)
    stack = np.stack([labels == 1, labels == 2], axis=-1).astype(np.float32)
    theirs = hd.seg.Segmentation(
        list(context.sources.headers), stack, "FRACTIONAL", descriptions, binary.SeriesInstanceUID, 1, binary.SOPInstanceUID, 1,
        "m", "m", "1", "1", fractional_type="OCCUPANCY", max_fractional_value=255,
        pixel_measures=binary.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence,
    )  # fmt: skip
    written = pydicom.dcmread(ours.path)
    assert written.PixelData == theirs.PixelData
    assert (written["PixelData"].VR, written.file_meta.TransferSyntaxUID) == ("OB", theirs.file_meta.TransferSyntaxUID)
    for keyword in (
        "SegmentationType", "SegmentationFractionalType", "MaximumFractionalValue", "BitsAllocated", "BitsStored", "HighBit",
        "NumberOfFrames", "PhotometricInterpretation", "PixelRepresentation", "SegmentSequence", "SOPClassUID",
    ):  # fmt: skip
        assert written.get(keyword) == theirs.get(keyword), keyword
    for mine, other in zip(
        written.PerFrameFunctionalGroupsSequence, theirs.PerFrameFunctionalGroupsSequence, strict=True
    ):  # fmt: skip
        assert mine.SegmentIdentificationSequence == other.SegmentIdentificationSequence
        place, other_place = (one.PlanePositionSequence[0].ImagePositionPatient for one in (mine, other))
        assert place == other_place


def test_label_maps_that_overlap_become_an_object_each(case: Case, tmp_path: Path) -> None:
    made = made_for(case, tmp_path, replace(PLAIN, seg_form=SegForm.LABELMAP))
    lungs, nodules = made.of_kind(ResultKind.SEG)
    assert {lungs.SOPClassUID, nodules.SOPClassUID} == {LABEL_MAP_SEGMENTATION}
    assert lungs.SeriesInstanceUID == nodules.SeriesInstanceUID
    assert [item.SegmentLabel for item in lungs.SegmentSequence] == ["Background", "Left lung", "Right lung"]
    assert [item.SegmentLabel for item in nodules.SegmentSequence] == ["Background", "Nodule 1", "Nodule 2"]
    assert (lungs.PixelPaddingValue, lungs.SegmentsOverlap) == (0, "NO")


def referenced(made: Case) -> list[tuple[str, int]]:
    """(SOP Instance UID, Segment Number) that each lesion's group names."""
    found = []
    for one in groups(report(made)):
        for item in one.ContentSequence:
            if concept(item) == "121191":
                reference = item.ReferencedSOPSequence[0]
                found.append((str(reference.ReferencedSOPInstanceUID), int(reference.ReferencedSegmentNumber)))
    return found


@pytest.mark.parametrize(
    ("limits", "objects"),
    [({"max_segments": 3}, 2), ({"max_segments": 1}, 4), ({"max_frames": 13}, 3), ({"max_frames": 10}, 3)],
    ids=str,
)
def test_more_than_a_destination_bears_goes_into_several_objects_of_one_series(
    case: Case, tmp_path: Path, limits: dict[str, int], objects: int
) -> None:
    profile = replace(PLAIN, **limits)  # type: ignore[arg-type]
    made = made_for(case, tmp_path, profile)
    written = made.of_kind(ResultKind.SEG)
    assert len(written) == objects
    assert len({one.SeriesInstanceUID for one in written}) == 1
    assert [int(one.InstanceNumber) for one in written] == list(range(1, objects + 1))
    for one in written:
        assert len(one.SegmentSequence) <= profile.max_segments
        assert one.NumberOfFrames <= profile.max_frames
    labels = [item.SegmentLabel for one in written for item in one.SegmentSequence]
    assert labels == ["Left lung", "Right lung", "Nodule 1", "Nodule 2"]
    assert f"Segmentation: 4 of 4 segments shown, in {objects} objects." in texts(report(made))
    tracked = {
        (str(one.SOPInstanceUID), int(item.SegmentNumber)): item.get("TrackingUID")
        for one in written
        for item in one.SegmentSequence
    }
    assert [tracked[place] for place in referenced(made)] == [lesion.tracking_uid for lesion in case.findings.lesions]


@pytest.mark.parametrize(
    "profile",
    [
        replace(PLAIN, max_segments=3, over_limit=OverLimit.LEAVE_OUT),
        replace(PLAIN, max_frames=4),  # one segment alone has more
    ],
    ids=["by-profile", "never-cut"],
)
def test_a_mask_that_may_not_go_whole_does_not_go_and_the_report_says_so(case: Case, tmp_path: Path, profile: Profile) -> None:
    made = made_for(case, tmp_path, profile)
    assert not made.of_kind(ResultKind.SEG)
    assert any(text.startswith("Segmentation: 0 of 4 segments shown: the destination takes") for text in texts(report(made)))
    assert len(groups(report(made))) == 3
    assert not referenced(made)


def a_fraction(dataset: Dataset) -> None:
    values = bytearray(dataset.PixelData)
    values[values.index(255)] = 128
    dataset.PixelData = bytes(values)


def another_name(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].SegmentLabel = "Liver"


def another_value(dataset: Dataset) -> None:
    values = bytearray(dataset.PixelData)
    values[0] = 77
    dataset.PixelData = bytes(values)


@pytest.mark.parametrize(
    ("form", "change", "words"),
    [
        (SegForm.FRACTIONAL, a_fraction, "fractions where the model has a mask"),
        (SegForm.BINARY, another_name, "by another name"),
        (SegForm.LABELMAP, another_value, "values that are no segment"),
    ],
)
def test_a_mask_that_reads_back_otherwise_is_held(case: Case, tmp_path: Path, form: SegForm, change: Any, words: str) -> None:
    made = made_for(case, tmp_path / "good", replace(PLAIN, seg_form=form))
    with pytest.raises(ResultCheckFailed, match=words):
        verify(tampered(made, ResultKind.SEG, change, tmp_path), made.findings, made.volume, made.paths)


def test_an_object_of_the_series_that_is_lost_is_missed(case: Case, tmp_path: Path) -> None:
    made = made_for(case, tmp_path, replace(PLAIN, max_segments=3))
    left = tuple(one for one in made.objects if one.order != 1 and one.kind is ResultKind.SEG)
    with pytest.raises(ResultCheckFailed, match="SEG lacks 1 segments"):
        verify(left, made.findings, made.volume, made.paths)


@pytest.mark.parametrize(
    ("directions", "along"),
    [
        ([0, 1, 0, 0, 0, -1], (1.0, 0.0, 0.0)),  # sagittal
        ([1, 0, 0, 0, 0, -1], (0.0, 1.0, 0.0)),  # coronal
        ([0.8, 0.6, 0, 0, 0, -1], (-0.6, 0.8, 0.0)),  # between the two
    ],
    ids=["sagittal", "coronal", "oblique"],
)
def test_masks_on_mr_in_any_direction_lie_where_they_were_drawn(
    tmp_path: Path, directions: list[float], along: tuple[float, ...]
) -> None:
    paths = small_series(
        tmp_path / "mr",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4",
        Modality="MR",
        ImageOrientationPatient=directions,
        ImagePositionPatient=lambda index: (np.array([12.0, -7.5, 31.0]) + 4.0 * index * np.array(along)).tolist(),
        RescaleType=None,
        ScanningSequence="SE",
        SequenceVariant="NONE",
        ScanOptions="",
        MRAcquisitionType="2D",
        EchoTime=90,
        RepetitionTime=3000,
        EchoTrainLength=1,
    )
    volume = stack(paths, along)
    findings = small_findings(volume)
    made = make_case(paths, findings, volume, tmp_path / "results", profiles=(PLAIN,), kinds=SEG_AND_SR)
    verify(made.objects, findings, volume, paths)
    (dataset,) = made.of_kind(ResultKind.SEG)
    for number, (one, segment) in enumerate(shown_segments(findings), start=1):
        indices = np.argwhere(one.labels == segment.number)
        expected = (volume.affine @ np.append(indices.mean(axis=0), 1))[:3]
        points = points_of(dataset, number)
        assert len(points) == segment.voxels
        assert np.allclose(points.mean(axis=0), expected, atol=0.01)


def stack(paths: list[Path], along: tuple[float, ...]) -> Any:
    """The volume of slices that are ordered along a direction."""
    volume = volume_of(paths)
    read = sorted(map(pydicom.dcmread, paths), key=lambda one: float(np.dot(one.ImagePositionPatient, along)))
    from tests.results.cases import volume_from

    pixels = np.stack([one.pixel_array for one in read]).astype(np.int16)
    ordered = volume_from(read, pixels)
    return replace(ordered, unit="1", headers=replace(volume.headers, modality="MR"))
