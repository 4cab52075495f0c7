"""The frames of a segmentation, for the plain case: a volume of single-frame images that lie in one space.

There every frame is the same few elements with another source image, place and segment. highdicom builds thousands of nested
data sets for them, half of all the time that results take; here it builds the object of one slice, and the frames and
references of all slices follow as bytes. A test holds the files equal, byte by byte, to those that highdicom makes alone.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage
from pydicom.valuerep import DSfloat, format_number_as_ds

from dicomnode.domain.findings import Segment
from dicomnode.results import explicit
from dicomnode.results.elements import are_alike
from dicomnode.results.source import Sources

type_labels = NDArray[np.uint8] | NDArray[np.uint16]
type_layer = tuple[type_labels, Sequence[Segment]]

SINGLE_FRAME = frozenset({CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage})
PLACED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
ALIKE = (
    *("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Rows", "Columns", "ImageOrientationPatient"),
)
CLOSEST_MM = 0.01  # nearer planes are one place or two by rounding


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where the slices lie. positions: (slices, 3), LPS mm; order: slices in the order of frames, against the normal."""

    headers: Sequence[Dataset]
    orientation: tuple[float, ...]
    positions: NDArray[np.float64]
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: Segment Number (0062,0004) and slice."""

    segment: int
    slice_index: int


def grid_of(sources: Sources) -> Grid | None:
    """The grid of plain sources; None for all others, which highdicom must write (or refuse) by itself."""
    headers = sources.headers
    first = headers[0]
    if len(headers) != len(sources.slice_headers) or not sources.received_frames_of_reference:
        return None
    if first.SOPClassUID not in SINGLE_FRAME or not all(first.get(keyword) for keyword in PLACED):
        return None
    if not all(are_alike(headers, keyword) for keyword in ALIKE):
        return None
    if not all(header.get("ImagePositionPatient") for header in headers):
        return None
    orientation = tuple(map(float, first.ImageOrientationPatient))
    positions = np.array([header.ImagePositionPatient for header in headers], float)
    # As highdicom has it: the third axis of (rows down, columns to the right) as a right-handed system.
    distances = positions @ hd.spatial.get_normal_vector(orientation, index_convention="DR")
    order = np.argsort(distances)
    if len(headers) > 1 and np.diff(distances[order]).min() < CLOSEST_MM:
        return None
    return Grid(headers, orientation, positions, tuple(map(int, order)))


def put_frames(dataset: Any, grid: Grid, layers: Sequence[type_layer], *, keep_empty: bool) -> None:
    """Gives highdicom's object of the grid's first slice the frames of all slices, in its order: by segment, then by place.

    dataset: BINARY, with the segments of all layers in their order, complete but for the frames. layers: label maps (z, y, x)
    and the segments of each; every segment is on a slice.
    """
    frames, bits = _frames(grid, layers, keep_empty=keep_empty)
    shown = {frame.slice_index for frame in frames}
    planes = [index for index in grid.order if index in shown]
    # highdicom counts places along the order of frames; in an object that is joined of several maps they ascend.
    ranks = {index: rank for rank, index in enumerate(planes if len(layers) == 1 else reversed(planes), start=1)}
    _say_spacing(dataset, grid)
    several = len(dataset.SegmentSequence) > 1
    if not several and _are_regular(grid, sorted(shown)):
        dataset.DimensionOrganizationType = "3D"  # frames differ by place alone (PS3.3 C.7.6.17)
    beginnings = _derivations(dataset, grid, shown)
    places = {index: _plane_position(grid.headers[index]) for index in shown}
    contents = [
        beginnings[frame.slice_index]
        + _frame_content(frame.segment, ranks[frame.slice_index])
        + places[frame.slice_index]
        + (_segment_identification(frame.segment) if several else b"")
        for frame in frames
    ]
    explicit.put_sequence(dataset, "PerFrameFunctionalGroupsSequence", contents)
    _name_sources(dataset, grid)
    dataset.NumberOfFrames = len(frames)
    dataset[0x7FE00010] = DataElement(0x7FE00010, "OB", bits + b"\0" * (len(bits) % 2))
    explicit.write_as_it_is(dataset)


def _frames(grid: Grid, layers: Sequence[type_layer], *, keep_empty: bool) -> tuple[list[Frame], bytes]:
    """Which frames there are, and their bits one after another without padding (PS3.5 8.1.1, D.2)."""
    frames: list[Frame] = []
    packed: list[bytes] = []
    rest = np.zeros(0, bool)  # bits of the last frame that are no whole byte
    numbers = count(1)
    for labels, segments in layers:
        slices = [index for index in grid.order if keep_empty or labels[index].max() > 0]
        for segment in segments:
            number = next(numbers)
            for index in slices:
                mask = (labels[index] == segment.number).ravel()
                if not keep_empty and not mask.any():
                    continue
                bits = np.concatenate([rest, mask]) if rest.size else mask
                whole = bits.size - bits.size % 8
                packed.append(np.packbits(bits[:whole], bitorder="little").tobytes())
                rest = bits[whole:]
                frames.append(Frame(number, index))
    packed.append(np.packbits(rest, bitorder="little").tobytes())
    return frames, b"".join(packed)


def _say_spacing(dataset: Any, grid: Grid) -> None:
    """Spacing Between Slices of all the source's planes, where they are regular and the source does not name it itself."""
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if grid.headers[0].get("SpacingBetweenSlices") is not None:
        return
    spacing, _ = hd.spatial.get_volume_positions(grid.positions, grid.orientation)
    if spacing is None:
        del measures.SpacingBetweenSlices
    else:
        measures.SpacingBetweenSlices = format_number_as_ds(spacing)


def _are_regular(grid: Grid, slices: Sequence[int]) -> bool:
    if len(slices) < 2:
        return False
    spacing, _ = hd.spatial.get_volume_positions(grid.positions[list(slices)], grid.orientation, sort=False)
    return spacing is not None and spacing > 0


def _derivations(dataset: Any, grid: Grid, slices: Iterable[int]) -> dict[int, bytes]:
    """Derivation Image Sequence of each slice: that of highdicom's frame, of another image."""
    derivation = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    source = derivation.SourceImageSequence[0]
    purpose = explicit.encoded(source, "SpatialLocationsPreserved", "PurposeOfReferenceCodeSequence")
    code = explicit.encoded(derivation, "DerivationCodeSequence")
    return {
        index: explicit.sequence(0x00089124, explicit.sequence(0x00082112, _reference(grid.headers[index]) + purpose) + code)
        for index in slices
    }


def _reference(header: Dataset) -> bytes:
    return explicit.uid(0x00081150, header.SOPClassUID) + explicit.uid(0x00081155, header.SOPInstanceUID)


def _plane_position(header: Dataset) -> bytes:
    place = Dataset()
    place.ImagePositionPatient = [DSfloat(value, auto_format=True) for value in header.ImagePositionPatient]
    return explicit.sequence(0x00209113, explicit.encoded(place, "ImagePositionPatient"))


def _frame_content(segment: int, rank: int) -> bytes:
    """Dimension Index Values (0020,9157): segment, place."""
    return explicit.sequence(0x00209111, explicit.element(0x00209157, "UL", struct.pack("<2L", segment, rank)))


def _segment_identification(segment: int) -> bytes:
    return explicit.sequence(0x0062000A, explicit.element(0x0062000B, "US", struct.pack("<H", segment)))


def _name_sources(dataset: Any, grid: Grid) -> None:
    """All images of the series as its sources (PS3.3 C.7.6.1, C.12.2)."""
    references = [_reference(header) for header in grid.headers]
    explicit.put_sequence(dataset, "SourceImageSequence", references)
    series = explicit.sequence(0x0008114A, *references) + explicit.uid(0x0020000E, grid.headers[0].SeriesInstanceUID)
    explicit.put_sequence(dataset, "ReferencedSeriesSequence", [series])
