"""Lays a written segmentation over the source's grid again (PS3.3 C.8.20)."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.results.source import Sources

REMEDY = "nothing was sent; keep the study and report this with the pipeline's name and version"
POSITION_TOLERANCE_MM = 0.01
SPACING_TOLERANCE_MM = 1e-4
DIRECTION_TOLERANCE = 1e-4


def check_segmentation(dataset: Dataset, findings: Findings, image: Volume | Image2D, source: Sources) -> None:
    """Raises ResultCheckFailed unless each frame lies where its source slice lies and all together are the label maps."""
    if isinstance(image, Volume):
        _check_frame_of_reference(dataset, image, source)
    expected = _expected(findings)
    if len(dataset.SegmentSequence) != len(expected):
        raise ResultCheckFailed(f"SEG has {len(dataset.SegmentSequence)} segments, the findings {len(expected)}", REMEDY)
    slices = {
        (str(header.SOPInstanceUID), number): index
        for index, (header, number) in enumerate(zip(source.slice_headers, source.frame_numbers, strict=True))
    }
    seen: dict[int, int] = dict.fromkeys(range(1, len(expected) + 1), 0)
    for frame, mask in zip(dataset.PerFrameFunctionalGroupsSequence, _masks(dataset), strict=True):
        number = int(_group(dataset, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        labels, value, _ = expected[number - 1]
        index = _slice_of(_group(dataset, frame, "DerivationImageSequence"), slices)
        if isinstance(image, Volume):
            _check_place(dataset, frame, image, index)
        if not np.array_equal(mask, labels[index] == value):
            raise ResultCheckFailed(f"SEG segment {number} differs from the model's mask on slice {index + 1}", REMEDY)
        seen[number] += int(np.count_nonzero(mask))
    for number, (_, _, voxels) in enumerate(expected, start=1):
        if seen[number] != voxels:
            raise ResultCheckFailed(f"SEG segment {number} has {seen[number]} voxels, the findings {voxels}", REMEDY)


type_expected = tuple[NDArray[np.uint8] | NDArray[np.uint16], int, int]


def _expected(findings: Findings) -> list[type_expected]:
    """(label map, value there, voxels) by Segment Number."""
    return [
        (one.labels, segment.number, segment.voxels)
        for one in findings.label_maps
        for segment in one.segments
        if segment.voxels > 0
    ]


def _masks(dataset: Dataset) -> Iterator[NDArray[np.bool_]]:
    """Frames of a BINARY object (y, x); bits follow one another without padding (PS3.5 8.1.1, D.2)."""
    rows, columns, frames = int(dataset.Rows), int(dataset.Columns), int(dataset.NumberOfFrames)
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    size, rest = divmod(rows * columns, 8)
    if rest:
        bits = np.unpackbits(packed, count=rows * columns * frames, bitorder="little")
        yield from bits.reshape(frames, rows, columns).view(bool)
        return
    for number in range(frames):
        part = packed[number * size : (number + 1) * size]
        yield np.unpackbits(part, bitorder="little").reshape(rows, columns).view(bool)


def _group(dataset: Dataset, frame: Dataset, keyword: str) -> Dataset:
    """A functional group of a frame, its own or shared by all (PS3.3 C.7.6.16)."""
    item: Dataset = (frame if keyword in frame else dataset.SharedFunctionalGroupsSequence[0])[keyword][0]
    return item


def _slice_of(derivation: Dataset, slices: dict[tuple[str, int], int]) -> int:
    source_image = derivation.SourceImageSequence[0]
    number = int(source_image.get("ReferencedFrameNumber") or 1)
    try:
        return slices[(str(source_image.ReferencedSOPInstanceUID), number)]
    except KeyError:
        raise ResultCheckFailed("a SEG frame names no slice of the source", REMEDY) from None


def _check_frame_of_reference(dataset: Dataset, image: Volume, source: Sources) -> None:
    written = str(dataset.get("FrameOfReferenceUID", ""))
    if written != image.frame_of_reference_uid or written not in source.received_frames_of_reference:
        raise ResultCheckFailed("SEG has another frame of reference than the source", REMEDY)


def _check_place(dataset: Dataset, frame: Dataset, image: Volume, index: int) -> None:
    """Position, directions and spacing of a frame against the affine of the volume, which imaging made from the source."""
    position = np.array(_group(dataset, frame, "PlanePositionSequence").ImagePositionPatient, float)
    directions = np.array(_group(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient, float)
    spacing = np.array(_group(dataset, frame, "PixelMeasuresSequence").PixelSpacing, float)
    affine = image.affine
    row_step, column_step = affine[:3, 2], affine[:3, 1]
    true = np.array([np.linalg.norm(column_step), np.linalg.norm(row_step)])
    if np.abs(position - (affine @ (index, 0, 0, 1))[:3]).max() > POSITION_TOLERANCE_MM:
        raise ResultCheckFailed(f"SEG lies elsewhere than the source on slice {index + 1}", REMEDY)
    if np.abs(spacing - true).max() > SPACING_TOLERANCE_MM:
        raise ResultCheckFailed("SEG has another pixel spacing than the source", REMEDY)
    along = np.concatenate([row_step / true[1], column_step / true[0]])
    if np.abs(directions - along).max() > DIRECTION_TOLERANCE:
        raise ResultCheckFailed("SEG is turned against the source", REMEDY)
