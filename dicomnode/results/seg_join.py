"""Several segmentation objects of one grid made one, and one that stands without a frame of reference."""

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag

STACK_POSITION, FRAME_CONTENT = Tag("InStackPositionNumber"), Tag("FrameContentSequence")
PLANE_POSITION = Tag("ImagePositionPatient")


def join(objects: list[Any]) -> Any:
    """Segments and frames of all BINARY objects in the first: segment numbers go on, dimension indices are counted anew."""
    for one in objects:
        _give_frames_their_segment(one)
    first = objects[0]
    frames = list(first.PerFrameFunctionalGroupsSequence)
    segments = list(first.SegmentSequence)
    for other in objects[1:]:
        offset = len(segments)
        for segment in other.SegmentSequence:
            segment.SegmentNumber += offset
            segments.append(segment)
        for frame in other.PerFrameFunctionalGroupsSequence:
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber += offset
            frames.append(frame)
    first.SegmentSequence = DicomSequence(segments)
    _number_dimensions(frames, first)
    packed = _joined_bits(objects)
    first.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    first.NumberOfFrames = len(frames)
    if "DimensionOrganizationType" in first:
        del first.DimensionOrganizationType  # 3D says that frames differ by place alone (PS3.3 C.7.6.17)
    first.PixelData = packed + b"\0" * (len(packed) % 2)
    return first


def _give_frames_their_segment(dataset: Dataset) -> None:
    """highdicom shares the segment of an object with a single one among all frames; joined frames need their own."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:
        number = int(shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        del shared.SegmentIdentificationSequence
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            identification = Dataset()
            identification.ReferencedSegmentNumber = number
            frame.SegmentIdentificationSequence = DicomSequence([identification])


def _joined_bits(objects: list[Any]) -> bytes:
    """Frames follow one another without padding (PS3.5 8.1.1), so only frames of whole bytes may be joined as bytes."""
    bits = objects[0].Rows * objects[0].Columns
    if bits % 8 == 0:
        return b"".join(bytes(one.PixelData[: int(one.NumberOfFrames) * bits // 8]) for one in objects)
    unpacked = [
        np.unpackbits(np.frombuffer(one.PixelData, np.uint8), count=int(one.NumberOfFrames) * bits, bitorder="little")
        for one in objects
    ]
    return np.packbits(np.concatenate(unpacked), bitorder="little").tobytes()


def _number_dimensions(frames: list[Dataset], dataset: Dataset) -> None:
    """Index of a frame's position: its rank among the positions that occur; of its segment: the segment's number."""
    first_values = [tuple(frame.FrameContentSequence[0].DimensionIndexValues) for frame in frames]
    if len(first_values[0]) != 2 or "PlanePositionSequence" not in frames[0]:
        return
    for frame, rank in zip(frames, _ranks(frames, dataset), strict=True):
        segment = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        frame.FrameContentSequence[0].DimensionIndexValues = [segment, rank]


def _ranks(frames: list[Dataset], dataset: Dataset) -> list[int]:
    """Place of each frame's plane among all planes along their normal, 1-based."""
    normal = np.cross(*np.array(_orientation(dataset, frames[0]), float).reshape(2, 3))
    heights = [round(float(np.dot(normal, frame.PlanePositionSequence[0].ImagePositionPatient)), 4) for frame in frames]
    ranks = {height: rank for rank, height in enumerate(sorted(set(heights)), start=1)}
    return [ranks[height] for height in heights]


def _orientation(dataset: Dataset, frame: Dataset) -> list[float]:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    group = shared if "PlaneOrientationSequence" in shared else frame
    return [float(value) for value in group.PlaneOrientationSequence[0].ImageOrientationPatient]


def lean_on_source_images(dataset: Dataset) -> None:
    """Without a frame of reference a frame lies where the image that it names lies (Derivation Image, PS3.3 A.51.3).

    Positions and directions mean nothing without it and go too; the frames' order stays as their place in a stack.
    """
    for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator", "DimensionOrganizationType"):
        if keyword in dataset:
            delattr(dataset, keyword)
    pointers = [int(item.DimensionIndexPointer) for item in dataset.DimensionIndexSequence]
    place = pointers.index(PLANE_POSITION)
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    for frame, rank in zip(frames, _ranks(frames, dataset), strict=True):
        content = frame.FrameContentSequence[0]
        content.StackID, content.InStackPositionNumber = "1", rank
        values = [content.DimensionIndexValues] if len(pointers) == 1 else list(content.DimensionIndexValues)
        values[place] = rank
        content.DimensionIndexValues = values
    for group in (dataset.SharedFunctionalGroupsSequence[0], *frames):
        for keyword in ("PlanePositionSequence", "PlaneOrientationSequence"):
            if keyword in group:
                del group[keyword]
    index = dataset.DimensionIndexSequence[place]
    index.DimensionIndexPointer, index.FunctionalGroupPointer = STACK_POSITION, FRAME_CONTENT
    index.DimensionDescriptionLabel = "In-Stack Position Number"
