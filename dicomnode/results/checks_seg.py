"""Lays written segmentations over the source's grid again (PS3.3 C.8.20)."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.sop_classes import LABEL_MAP_SEGMENTATION
from dicomnode.results.elements import content_key
from dicomnode.results.source import Sources, derived_frame_of_reference

REMEDY = "nothing was sent; keep the study and report this with the pipeline's name and version"
POSITION_TOLERANCE_MM = 0.01  # against the source slice's own position
# Against the volume's grid, with which slices agree as far as imaging lets them: real scanners round and jitter.
GRID_TOLERANCE_STEPS, GRID_TOLERANCE_PIXELS = 0.25, 0.5
SPACING_TOLERANCE = 2e-3  # relative
DIRECTION_TOLERANCE = 2e-3

DERIVATION, IDENTIFICATION = Tag("DerivationImageSequence"), Tag("SegmentIdentificationSequence")
POSITION, ORIENTATION = Tag("PlanePositionSequence"), Tag("PlaneOrientationSequence")
MEASURES = Tag("PixelMeasuresSequence")

# (label map, value there, voxels, label) of a segment, in the order of their numbers.
type_expected = tuple[NDArray[np.uint8] | NDArray[np.uint16], int, int, str]


def expected_segments(findings: Findings) -> list[type_expected]:
    """What the instances of one segmentation series must hold together."""
    return [
        (one.labels, segment.number, segment.voxels, segment.label)
        for one in findings.label_maps
        for segment in one.segments
        if segment.voxels > 0
    ]


def check_segmentation(
    dataset: Dataset, expected: list[type_expected], image: Volume | Image2D, source: Sources
) -> list[type_expected]:
    """One instance against the segments that it must begin with; gives those that are left for the next instance.

    Raises ResultCheckFailed unless each frame lies where its source slice lies and all together are the label maps.
    """
    if isinstance(image, Volume):
        _check_frame_of_reference(dataset, image, source)
    here = _segments_here(dataset, expected)
    slices = {
        (str(header.SOPInstanceUID), number): index
        for index, (header, number) in enumerate(zip(source.slice_headers, source.frame_numbers, strict=True))
    }
    seen: dict[int, int] = dict.fromkeys(here, 0)
    indices: dict[object, int] = {}
    placed: set[object] = set()  # a slice's groups come again with every segment
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame, values in zip(dataset.PerFrameFunctionalGroupsSequence, _frames(dataset), strict=True):
        key = _key(shared, frame, DERIVATION)
        if key not in indices:
            indices[key] = _slice_of(_group(shared, frame, DERIVATION), slices)
        index = indices[key]
        place = (index, *(_key(shared, frame, tag) for tag in (POSITION, ORIENTATION, MEASURES)))
        if isinstance(image, Volume) and "FrameOfReferenceUID" in dataset and place not in placed:
            _check_place(shared, frame, image, index, source)
            placed.add(place)
        for number, mask in _masks(dataset, shared, frame, values, here):
            labels, value, _, _ = here[number]
            if not np.array_equal(mask, labels[index] == value):
                raise ResultCheckFailed(f"SEG segment {number} differs from the model's mask on slice {index + 1}", REMEDY)
            seen[number] += int(np.count_nonzero(mask))
    for number, (_, _, voxels, _) in here.items():
        if seen[number] != voxels:
            raise ResultCheckFailed(f"SEG segment {number} has {seen[number]} voxels, the findings {voxels}", REMEDY)
    return expected[len(here) :]


def _segments_here(dataset: Dataset, expected: list[type_expected]) -> dict[int, type_expected]:
    """By Segment Number; a label map's background (Pixel Padding Value, PS3.3 C.8.20.2) is none of ours."""
    items = [item for item in dataset.SegmentSequence if not _is_background(dataset, item)]
    if len(items) > len(expected):
        raise ResultCheckFailed(f"SEG has {len(items)} segments, the findings {len(expected)}", REMEDY)
    for item, (_, _, _, label) in zip(items, expected, strict=False):
        if str(item.SegmentLabel) != label[:64].strip():
            raise ResultCheckFailed("SEG calls a segment by another name than the findings", REMEDY)
    return {int(item.SegmentNumber): one for item, one in zip(items, expected, strict=False)}


def _is_background(dataset: Dataset, item: Dataset) -> bool:
    return bool(dataset.SOPClassUID == LABEL_MAP_SEGMENTATION) and int(item.SegmentNumber) == dataset.get("PixelPaddingValue")


def _frames(dataset: Dataset) -> Iterator[NDArray[np.uint8] | NDArray[np.uint16]]:
    """Stored values (y, x) of each frame; bits follow one another without padding (PS3.5 8.1.1, D.2)."""
    rows, columns, frames = int(dataset.Rows), int(dataset.Columns), int(dataset.NumberOfFrames)
    if dataset.BitsAllocated != 1:
        size = rows * columns
        for number in range(frames):
            if dataset.BitsAllocated == 8:
                yield np.frombuffer(dataset.PixelData, np.uint8, size, number * size).reshape(rows, columns)
            else:
                yield np.frombuffer(dataset.PixelData, np.uint16, size, number * size * 2).reshape(rows, columns)
        return
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    size, rest = divmod(rows * columns, 8)
    if rest:
        bits = np.unpackbits(packed, count=rows * columns * frames, bitorder="little")
        yield from bits.reshape(frames, rows, columns)
        return
    for number in range(frames):
        part = packed[number * size : (number + 1) * size]
        yield np.unpackbits(part, bitorder="little").reshape(rows, columns)


def _masks(
    dataset: Dataset,
    shared: Dataset,
    frame: Dataset,
    values: NDArray[np.uint8] | NDArray[np.uint16],
    here: Mapping[int, type_expected],
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """(Segment Number, mask) of what one frame holds."""
    if dataset.SOPClassUID == LABEL_MAP_SEGMENTATION:
        if np.setdiff1d(np.unique(values), [int(dataset.PixelPaddingValue), *here]).size:
            raise ResultCheckFailed("SEG holds values that are no segment of the findings", REMEDY)
        yield from ((number, values == number) for number in here)
        return
    number = int(_group(shared, frame, IDENTIFICATION).ReferencedSegmentNumber)
    if number not in here:
        raise ResultCheckFailed("SEG holds a segment that the findings do not", REMEDY)
    full = int(dataset.MaximumFractionalValue) if dataset.SegmentationType == "FRACTIONAL" else 1
    if full > 1 and not np.isin(values, (0, full)).all():
        raise ResultCheckFailed("SEG holds fractions where the model has a mask", REMEDY)
    yield number, values == full


def _group(shared: Dataset, frame: Dataset, tag: BaseTag) -> Dataset:
    """A functional group of a frame, its own or shared by all (PS3.3 C.7.6.16)."""
    item: Dataset = (frame if tag in frame else shared)[tag][0]
    return item


def _key(shared: Dataset, frame: Dataset, tag: BaseTag) -> object:
    """Groups with equal keys have equal content."""
    return content_key(frame if tag in frame else shared, tag)


def _slice_of(derivation: Dataset, slices: dict[tuple[str, int], int]) -> int:
    source_image = derivation.SourceImageSequence[0]
    number = int(source_image.get("ReferencedFrameNumber") or 1)
    try:
        return slices[(str(source_image.ReferencedSOPInstanceUID), number)]
    except KeyError:
        raise ResultCheckFailed("a SEG frame names no slice of the source", REMEDY) from None


def _check_frame_of_reference(dataset: Dataset, image: Volume, source: Sources) -> None:
    written = str(dataset.get("FrameOfReferenceUID", ""))
    if source.received_frames_of_reference:
        right = written == image.frame_of_reference_uid and written in source.received_frames_of_reference
    else:
        right = written in ("", derived_frame_of_reference(source.series_instance_uid))
    if not right:
        raise ResultCheckFailed("SEG has another frame of reference than the source", REMEDY)


def _check_place(shared: Dataset, frame: Dataset, image: Volume, index: int, source: Sources) -> None:
    """A frame's position against that of its source slice; all of its geometry against the affine, which imaging made."""
    position = np.array(_group(shared, frame, POSITION).ImagePositionPatient, float)
    directions = np.array(_group(shared, frame, ORIENTATION).ImageOrientationPatient, float)
    spacing = np.array(_group(shared, frame, MEASURES).PixelSpacing, float)
    affine = image.affine
    row_step, column_step = affine[:3, 2], affine[:3, 1]
    true = np.array([np.linalg.norm(column_step), np.linalg.norm(row_step)])
    aside = np.linalg.norm(position - (affine @ (index, 0, 0, 1))[:3])
    own = source.position(index)
    from_own = 0.0 if own is None else np.abs(position - own).max()
    farthest = GRID_TOLERANCE_STEPS * image.spacing_mm[0] + GRID_TOLERANCE_PIXELS * true.min()
    if from_own > POSITION_TOLERANCE_MM or aside > farthest:
        raise ResultCheckFailed(f"SEG lies elsewhere than the source on slice {index + 1}", REMEDY)
    if np.abs(spacing / true - 1).max() > SPACING_TOLERANCE:
        raise ResultCheckFailed("SEG has another pixel spacing than the source", REMEDY)
    along = np.concatenate([row_step / true[1], column_step / true[0]])
    if np.abs(directions - along).max() > DIRECTION_TOLERANCE:
        raise ResultCheckFailed("SEG is turned against the source", REMEDY)
