"""Our own writer of a segmentation's frames writes what highdicom writes, byte for byte; odd sources are left to highdicom."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dicomnode import imaging
from dicomnode.domain.findings import Findings, LabelMap
from dicomnode.domain.imaging import InstanceRef, SeriesRef, Volume, read_only
from dicomnode.domain.profiles import SHIPPED, CharacterSet, Profile, ResultKind, SegForm
from dicomnode.results import build, seg, verify
from dicomnode.results.seg_frames import put_frames
from tests.results.cases import request_for, small_findings, small_series, volume_of
from tests.results.enhanced import enhanced_mr
from tests.results.test_segmentation_forms import stack

PLAIN = SHIPPED["archive"].without_fallbacks()
FORMS = [
    PLAIN,
    replace(PLAIN, seg_form=SegForm.FRACTIONAL),
    replace(PLAIN, keep_empty_frames=True),
]
MR: dict[str, Any] = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR", "RescaleType": None, "ScanningSequence": "SE",
    "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "2D", "EchoTime": 90, "RepetitionTime": 3000,
    "EchoTrainLength": 1,
}  # fmt: skip


def along(direction: tuple[float, ...], step: float = 4.0) -> Callable[[int], list[float]]:
    return lambda index: [round(float(one), 4) for one in np.array([12.0, -7.5, 31.0]) + step * index * np.array(direction)]


# Changes of a series of 9 slices, and the direction in which they follow one another.
SERIES: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "axial CT": ({}, (0, 0, 1)),
    "from head to foot": ({}, (0, 0, -1)),
    "47 x 63": ({"rows": 47, "columns": 63}, (0, 0, 1)),
    "5 x 5": ({"rows": 5, "columns": 5, "slices": 11}, (0, 0, 1)),
    "one slice": ({"slices": 1}, (0, 0, 1)),
    "irregular": ({"ImagePositionPatient": lambda index: [0, 0, 2.5 * index + 0.2 * (index % 2)]}, (0, 0, 1)),
    "says its spacing": ({"SpacingBetweenSlices": 2.5, "LossyImageCompression": "01"}, (0, 0, 1)),
    "long decimals": ({"ImagePositionPatient": lambda index: [-1 / 3e3, 100 / 7, f"{index / 3:.13f}"]}, (0, 0, 1)),
    "not quite alike": (
        {"ImageOrientationPatient": lambda index: [1, 0, 0, 0, 1, 1e-7 * index], "ImageOrientationSlide": None},
        (0, 0, 1),
    ),
    "latin": ({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Äneas^Rüdiger"}, (0, 0, 1)),
    "gb18030": ({"SpecificCharacterSet": "GB18030", "PatientName": "Wang^XiaoDong=王^小东="}, (0, 0, 1)),
    "coronal MR": ({**MR, "ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": along((0, 1, 0))}, (0, 1, 0)),
    "sagittal MR": (
        {**MR, "ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": along((-1, 0, 0))},
        (-1, 0, 0),
    ),
    "oblique MR": (
        {**MR, "ImageOrientationPatient": [0.8, 0.6, 0, 0, 0, -1], "ImagePositionPatient": along((-0.6, 0.8, 0))},
        (-0.6, 0.8, 0),
    ),
    "tilted CT": ({"ImagePositionPatient": along((0, 0.2, 0.9))}, (0, 0, 1)),
}


def series(folder: Path, name: str) -> tuple[list[Path], Volume]:
    changes, direction = SERIES[name]
    paths = small_series(folder / "ct", **{"slices": 9, **changes})
    return paths, stack(paths, direction)


def drawn(volume: Volume) -> Findings:
    """Two overlapping maps of two segments; every slice is another."""
    generator = np.random.default_rng(5)
    findings = small_findings(volume)
    maps = []
    for one in findings.label_maps:
        labels = generator.integers(0, 3, volume.shape).astype(np.uint8)
        labels[:: max(2, len(labels) // 2)] = 0
        labels[-1][labels[-1] == 2] = 0
        labels[1 % len(labels), 0, :3] = 0, 1, 2
        segments = tuple(replace(s, voxels=int((labels == s.number).sum())) for s in one.segments)
        maps.append(LabelMap(one.name, read_only(labels), segments))
    return replace(findings, label_maps=tuple(maps), lesions=())


def one_segment(findings: Findings) -> Findings:
    first = findings.label_maps[0]
    labels = read_only((first.labels == 1).astype(np.uint8))
    return replace(findings, label_maps=(LabelMap(first.name, labels, first.segments[:1]),))


def each_in_its_map(findings: Findings) -> Findings:
    first = findings.label_maps[0]
    maps = (LabelMap(one.label, read_only((first.labels == one.number).astype(np.uint8)), (replace(one, number=1),))
            for one in first.segments)  # fmt: skip
    return replace(findings, label_maps=tuple(maps))


def other_numbers(findings: Findings) -> Findings:
    """Values that do not begin at one, in a map that overlaps another nowhere."""
    first, second = findings.label_maps
    table = np.array([0, 300, 7], np.uint16)
    segments = tuple(replace(one, number=int(table[one.number])) for one in first.segments)
    apart = np.where(first.labels > 0, 0, second.labels)
    others = tuple(replace(one, voxels=int((apart == one.number).sum())) for one in second.segments)
    moved = LabelMap(first.name, read_only(table[first.labels]), segments)
    return replace(findings, label_maps=(moved, LabelMap(second.name, read_only(apart), others)))


def as_it_is(findings: Findings) -> Findings:
    return findings


def first_map(findings: Findings) -> Findings:
    return replace(findings, label_maps=findings.label_maps[:1])


def files(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    paths: list[Path],
    volume: Volume,
    findings: Findings,
    profiles: list[Profile],
) -> tuple[list[bytes], list[bytes]]:
    """What is written for each profile: by ourselves, and by highdicom alone."""
    named = tuple(replace(one, name=str(place)) for place, one in enumerate(profiles))
    request = request_for(paths, profiles=named, kinds=(ResultKind.SEG,))
    written: list[list[bytes]] = []
    for folder_name in ("ours", "theirs"):
        if folder_name == "theirs":
            monkeypatch.setattr(seg, "grid_of", lambda _: None)
        objects = build(findings, volume, paths, request, folder / folder_name)
        if not written:
            verify(objects, findings, volume, paths)
        written.append([one.path.read_bytes() for one in objects])
    return written[0], written[1]


def assert_written_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the objects whose frames we write ourselves."""
    made: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> None:
        made.append(1)
        put_frames(*args, **kwargs)

    monkeypatch.setattr(seg, "put_frames", counted)
    return made


@pytest.mark.parametrize("name", SERIES)
def test_the_frames_of_every_series_are_those_of_highdicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made = assert_written_here(monkeypatch)
    paths, volume = series(tmp_path, name)
    ours, theirs = files(tmp_path, monkeypatch, paths, volume, drawn(volume), FORMS)
    assert ours == theirs
    assert len(ours) == len(made) == len(FORMS)


@pytest.mark.parametrize("change", [as_it_is, first_map, one_segment, each_in_its_map, other_numbers])
def test_the_frames_of_maps_of_any_kind_are_those_of_highdicom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Findings], Findings]
) -> None:
    made = assert_written_here(monkeypatch)
    paths, volume = series(tmp_path, "5 x 5")
    split = [*FORMS, replace(PLAIN, max_segments=1), replace(PLAIN, max_frames=9, character_set=CharacterSet.UTF_8)]
    ours, theirs = files(tmp_path, monkeypatch, paths, volume, change(drawn(volume)), split)
    assert ours == theirs
    assert len(ours) == len(made) >= len(FORMS)


def test_who_looks_into_a_built_object_finds_what_is_written(tmp_path: Path) -> None:
    paths, volume = series(tmp_path, "axial CT")
    findings = drawn(volume)
    request = request_for(paths, profiles=(PLAIN,), kinds=(ResultKind.SEG,))
    seen: list[Any] = []

    def look(dataset: Any, *args: Any, **kwargs: Any) -> None:
        put_frames(dataset, *args, **kwargs)
        seen.append(
            [len(dataset.PerFrameFunctionalGroupsSequence), len(dataset.SourceImageSequence), dataset.ReferencedSeriesSequence]
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seg, "put_frames", look)
        (one,) = build(findings, volume, paths, request, tmp_path / "results")
    dataset = pydicom.dcmread(one.path)
    assert seen == [[dataset.NumberOfFrames, len(paths), dataset.ReferencedSeriesSequence]]
    verify((one,), findings, volume, paths)


def no_frame_of_reference(folder: Path) -> tuple[list[Path], Volume]:
    paths = small_series(folder, slices=5, FrameOfReferenceUID=None)
    return paths, volume_of(paths)


def another_class(folder: Path) -> tuple[list[Path], Volume]:
    paths = small_series(folder, slices=5, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    return paths, volume_of(paths)


def enhanced(folder: Path) -> tuple[list[Path], Volume]:
    path = enhanced_mr(folder / "enhanced.dcm")
    dataset = pydicom.dcmread(path)
    reference = InstanceRef(str(dataset.SOPInstanceUID), str(dataset.SOPClassUID), path, int(dataset.NumberOfFrames))
    volume = imaging.load(SeriesRef(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), (reference,)))
    assert isinstance(volume, Volume)
    return [path], volume


@pytest.mark.parametrize("source", [no_frame_of_reference, another_class, enhanced])
def test_odd_sources_are_left_to_highdicom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Callable[[Path], tuple[list[Path], Volume]]
) -> None:
    made = assert_written_here(monkeypatch)
    paths, volume = source(tmp_path / "source")
    findings = drawn(volume)
    objects = build(
        findings, volume, paths, request_for(paths, profiles=(PLAIN,), kinds=(ResultKind.SEG,)), tmp_path / "results"
    )
    verify(objects, findings, volume, paths)
    assert (len(objects), made) == (1, [])


def test_label_maps_are_left_to_highdicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = assert_written_here(monkeypatch)
    paths, volume = series(tmp_path, "axial CT")
    profile = replace(PLAIN, seg_form=SegForm.LABELMAP)
    findings = drawn(volume)
    objects = build(findings, volume, paths, request_for(paths, profiles=(profile,), kinds=(ResultKind.SEG,)), tmp_path / "r")
    verify(objects, findings, volume, paths)
    assert (len(objects), made) == (2, [])
