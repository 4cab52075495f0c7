"""The segmentation lies where the model's mask lies, and says what it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.domain.findings import LabelMap
from dicomnode.domain.imaging import read_only
from dicomnode.domain.profiles import SHIPPED
from dicomnode.domain.results import ResultKind
from dicomnode.results import build, verify
from tests.results.cases import request_for, small_findings, small_series, volume_of
from tests.results.conftest import Case, make_case

KEEPING = replace(SHIPPED["ohif"], keep_empty_frames=True)


def group(dataset: Dataset, frame: Dataset, keyword: str) -> Dataset:
    return (frame if keyword in frame else dataset.SharedFunctionalGroupsSequence[0])[keyword][0]


def points_of(dataset: Dataset, number: int) -> np.ndarray:
    """LPS of every voxel of a segment, by pydicom's decoder and the frame's own plane: not our reader, not our affine."""
    points = []
    for frame, mask in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
        if group(dataset, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber != number:
            continue
        plane = np.array(group(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient, float)
        spacing = np.array(group(dataset, frame, "PixelMeasuresSequence").PixelSpacing, float)
        origin = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(mask)
        points.append(origin + np.outer(columns * spacing[1], plane[:3]) + np.outer(rows * spacing[0], plane[3:]))
    return np.concatenate(points)


def segmentation(case: Case) -> Dataset:
    return case.of_kind(ResultKind.SEG)[0]


def test_each_segment_has_its_centroid_and_its_voxels_where_the_mask_has_them(case: Case) -> None:
    dataset = segmentation(case)
    number = 0
    for one in case.findings.label_maps:
        for segment in one.segments:
            number += 1
            indices = np.argwhere(one.labels == segment.number)
            expected = (case.volume.affine @ np.append(indices.mean(axis=0), 1))[:3]
            points = points_of(dataset, number)
            assert len(points) == segment.voxels
            assert np.allclose(points.mean(axis=0), expected, atol=0.01)


def test_a_second_reader_sees_the_same_grid(case: Case) -> None:
    simple_itk = pytest.importorskip("SimpleITK")
    reader = simple_itk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in case.paths])
    grid = reader.Execute()
    labels = case.findings.label_maps[1]
    z, y, x = (int(value) for value in np.argwhere(labels.labels == 1)[0])
    point = grid.TransformIndexToPhysicalPoint((x, y, z))
    distances = np.linalg.norm(points_of(segmentation(case), 3) - np.array(point), axis=1)
    assert distances.min() < 0.01


def test_a_nodule_in_a_lung_belongs_to_both_segments(case: Case) -> None:
    dataset = segmentation(case)
    assert dataset.SegmentsOverlap == "YES"
    lungs = {tuple(point) for number in (1, 2) for point in points_of(dataset, number).round(3)}
    nodule = {tuple(point) for point in points_of(dataset, 3).round(3)}
    assert nodule <= lungs


def test_slices_without_a_segment_have_no_frame_unless_a_destination_needs_them(case: Case, tmp_path: Path) -> None:
    dataset = segmentation(case)
    filled = sum(
        int((one.labels == segment.number).any(axis=(1, 2)).sum())
        for one in case.findings.label_maps
        for segment in one.segments
    )
    assert dataset.NumberOfFrames == filled < len(case.paths) * 4
    kept = make_case(case.paths, case.findings, case.volume, tmp_path, profiles=(KEEPING,), kinds=(ResultKind.SEG,))
    assert segmentation(kept).NumberOfFrames == len(case.paths) * 4
    verify(kept.objects, kept.findings, kept.volume, kept.paths)


def test_each_frame_names_the_source_slice_that_lies_where_it_lies(case: Case) -> None:
    dataset, headers = segmentation(case), case.headers()
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        source = headers[frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
    assert dataset.FrameOfReferenceUID == next(iter(headers.values())).FrameOfReferenceUID


def test_frames_are_numbered_by_segment_and_place(case: Case) -> None:
    dataset = segmentation(case)
    values = [tuple(one.FrameContentSequence[0].DimensionIndexValues) for one in dataset.PerFrameFunctionalGroupsSequence]
    assert len(set(values)) == len(values)
    heights = {}
    for frame, (_, place) in zip(dataset.PerFrameFunctionalGroupsSequence, values, strict=True):
        heights.setdefault(place, set()).add(float(frame.PlanePositionSequence[0].ImagePositionPatient[2]))
    assert all(len(one) == 1 for one in heights.values())
    in_order = [next(iter(heights[place])) for place in sorted(heights)]
    assert in_order == sorted(in_order)
    assert sorted(heights) == list(range(1, len(heights) + 1))


def test_segments_say_what_they_are_and_who_made_them(case: Case) -> None:
    dataset = segmentation(case)
    assert dataset.SegmentationType == "BINARY"
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    labels = [one.SegmentLabel for one in dataset.SegmentSequence]
    assert labels == ["Left lung", "Right lung", "Nodule 1", "Nodule 2"]
    nodule = dataset.SegmentSequence[2]
    assert nodule.SegmentedPropertyTypeCodeSequence[0].CodeValue == "27925004"
    assert nodule.SegmentAlgorithmType == "AUTOMATIC"
    assert nodule.SegmentAlgorithmName == "chest_ct"
    assert nodule.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.0"
    assert nodule.TrackingUID == case.findings.lesions[0].tracking_uid
    assert nodule.TrackingID == case.findings.lesions[0].tracking_id
    assert nodule.RecommendedDisplayCIELabValue != dataset.SegmentSequence[0].RecommendedDisplayCIELabValue


def test_label_values_need_not_begin_at_one_nor_be_neighbours(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    volume = volume_of(paths)
    findings = small_findings(volume, nodules=0)
    lungs = findings.label_maps[0]
    table = np.zeros(3, np.uint16)
    table[[1, 2]] = 300, 7
    moved = tuple(replace(one, number=int(table[one.number])) for one in lungs.segments)
    findings = replace(findings, label_maps=(LabelMap("lungs", read_only(table[lungs.labels]), moved),))
    objects = build(findings, volume, paths, request_for(paths), tmp_path / "results")
    verify(objects, findings, volume, paths)
    dataset = pydicom.dcmread(objects[0].path)
    assert len(points_of(dataset, 1)) == lungs.segments[0].voxels


def test_a_frame_that_is_no_whole_number_of_bytes_is_packed_without_a_gap(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct", rows=47, columns=63)
    made = make_case(paths, None, volume_of(paths), tmp_path / "results", kinds=(ResultKind.SEG,))
    verify(made.objects, made.findings, made.volume, paths)
    assert len(points_of(segmentation(made), 3)) == made.findings.label_maps[1].segments[0].voxels


def test_a_single_nodule_of_one_slice_is_joined_to_the_lungs(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    volume = volume_of(paths)
    findings = small_findings(volume, nodules=1)
    made = make_case(paths, findings, volume, tmp_path / "results", kinds=(ResultKind.SEG,))
    verify(made.objects, findings, volume, paths)
    dataset = segmentation(made)
    assert [int(one.SegmentNumber) for one in dataset.SegmentSequence] == [1, 2, 3]
    assert len(points_of(dataset, 3)) == findings.label_maps[1].segments[0].voxels


def test_sixty_frames_of_reference_in_a_series_become_the_volume_s_own(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct", FrameOfReferenceUID=lambda index: f"1.2.276.0.7230010.3.1.5.{index + 1}")
    made = make_case(paths, None, volume_of(paths), tmp_path / "results", kinds=(ResultKind.SEG,))
    verify(made.objects, made.findings, made.volume, paths)
    assert segmentation(made).FrameOfReferenceUID == made.volume.frame_of_reference_uid == "1.2.276.0.7230010.3.1.5.1"


def test_nothing_segmented_gives_a_report_and_captures_but_no_segmentation(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    volume = volume_of(paths)
    empty = replace(small_findings(volume, nodules=0), label_maps=())
    made = make_case(paths, empty, volume, tmp_path / "results")
    assert [one.kind for one in made.objects] == [ResultKind.SR, ResultKind.SC]
    verify(made.objects, empty, volume, paths)
