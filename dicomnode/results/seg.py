"""Segmentation objects (PS3.3 A.51): BINARY, on the source's own grid and slices.

Label maps may overlap each other (a nodule lies in a lung), and highdicom takes either one label map or a stack with a channel
per segment, eight times the memory. So maps that overlap are encoded one by one and their frames joined into one instance.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code as DicomCode
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.equipment import MANUFACTURER, MODEL_NAME
from dicomnode.domain.findings import Code, Findings, LabelMap, Segment
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import ResultKind
from dicomnode.results import equipment
from dicomnode.results.context import Context
from dicomnode.results.source import Sources, copy_body_part, restore_identity

type_labels = NDArray[np.uint8] | NDArray[np.uint16]
# (name of the label map, voxel value there) → Segment Number (0062,0004) in the object.
type_segment_numbers = dict[tuple[str, int], int]

CONTENT_LABEL = "AI_SEG"  # CS, 16 characters


def dicom_code(code: Code) -> DicomCode:
    """The seam's code as pydicom's."""
    return DicomCode(code.value, code.scheme, code.meaning)


def shown_segments(findings: Findings) -> list[tuple[LabelMap, Segment]]:
    """Segments that have voxels, in the order of their Segment Number."""
    return [(one, segment) for one in findings.label_maps for segment in one.segments if segment.voxels > 0]


def segment_numbers(findings: Findings) -> type_segment_numbers:
    """Which number each segment gets in the object."""
    shown = shown_segments(findings)
    return {(one.name, segment.number): number for number, (one, segment) in enumerate(shown, start=1)}


def build_segmentation(
    context: Context, findings: Findings, image: Volume | Image2D, _built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """One object with all segments; none where nothing was segmented, or a volume has no frame of reference to lie in."""
    shown = shown_segments(findings)
    if not shown or (isinstance(image, Volume) and not context.sources.frame_of_reference_uid):
        return []
    layers = _layers(findings, context.sources)
    objects = [_encode(context, labels, descriptions, image) for labels, descriptions in _numbered(context, layers)]
    dataset = objects[0] if len(objects) == 1 else _join(objects)
    if len(objects) > 1:
        dataset.SegmentsOverlap = "YES" if _overlap(layers) else "NO"
    dataset.SeriesDescription = context.description("SEG")
    copy_body_part(dataset, context.sources)
    if isinstance(image, Image2D):
        # Type 2C where frames have no position of their own (PS3.3 C.7.6.1).
        dataset.PatientOrientation = context.sources.headers[0].get("PatientOrientation") or []
    restore_identity(dataset, context.sources)
    return [dataset]


type_layer = tuple[type_labels, list[Segment], dict[int, int]]


def _layers(findings: Findings, sources: Sources) -> list[type_layer]:
    """(frames, segments, voxel value → 1-based place in `segments`) of each label map that has voxels."""
    layers = []
    for one in findings.label_maps:
        segments = [segment for segment in one.segments if segment.voxels > 0]
        if segments:
            places = {segment.number: place for place, segment in enumerate(segments, start=1)}
            layers.append((in_order_of_frames(one.labels, sources), segments, places))
    return layers


def in_order_of_frames(labels: type_labels, sources: Sources) -> type_labels:
    """Slices in the order in which the source stores them: as they are for single-frame series, by frame number else."""
    if len(sources.headers) > 1 or int(sources.headers[0].get("NumberOfFrames") or 1) == 1:
        return labels
    frames = np.zeros((int(sources.headers[0].NumberOfFrames), *labels.shape[1:]), labels.dtype)
    frames[[number - 1 for number in sources.frame_numbers]] = labels
    return frames


def _numbered(context: Context, layers: list[type_layer]) -> list[tuple[type_labels, list[Any]]]:
    encoded = []
    for labels, segments, places in layers:
        descriptions = [_describe(context, segment, place) for place, segment in enumerate(segments, start=1)]
        encoded.append((_renumbered(labels, places), descriptions))
    return encoded


def _renumbered(labels: type_labels, places: dict[int, int]) -> type_labels:
    """Voxel values 1 to n, as highdicom wants them."""
    if all(value == place for value, place in places.items()):
        return labels
    table = np.zeros(int(labels.max()) + 1, labels.dtype)
    for value, place in places.items():
        table[value] = place
    return table[labels]


def _describe(context: Context, segment: Segment, number: int) -> Any:
    red, green, blue = segment.color_rgb
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:64],
        segmented_property_category=dicom_code(segment.category),
        segmented_property_type=dicom_code(segment.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=equipment.algorithm_sequence(context.model),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.tracking_id,
        anatomic_regions=[dicom_code(segment.anatomy)] if segment.anatomy else None,
        display_color=hd.color.CIELabColor.from_rgb(red, green, blue),
    )


def _encode(context: Context, labels: type_labels, descriptions: list[Any], image: Volume | Image2D) -> Any:
    kind = ResultKind.SEG
    return hd.seg.Segmentation(
        source_images=list(context.sources.headers),
        pixel_array=labels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=context.uid(kind, "series"),
        series_number=context.series_number(kind),
        sop_instance_uid=context.uid(kind, "instance"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=equipment.software_versions(context.model),
        device_serial_number=equipment.device_serial_number(context.model),
        content_label=CONTENT_LABEL,
        content_description=context.description("SEG"),
        content_creator_name="dicomnode^AI",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        pixel_measures=_pixel_measures(context.sources, image),
        omit_empty_frames=not context.profile.keep_empty_frames,
        contributing_equipment=equipment.contributing_equipment(context.model, context.moment, context.request.uid_root),
    )


def _pixel_measures(sources: Sources, image: Volume | Image2D) -> Any:
    """With Spacing Between Slices: readers that stack frames by thickness would be wrong for overlapping slices."""
    if not isinstance(image, Volume):
        return None
    header = sources.headers[0]
    return hd.PixelMeasuresSequence(
        pixel_spacing=[float(value) for value in header.get("PixelSpacing") or image.spacing_mm[1:]],
        slice_thickness=float(header.get("SliceThickness") or image.spacing_mm[0]),
        spacing_between_slices=image.spacing_mm[0] if len(image.frames) > 1 else None,
    )


def _overlap(layers: list[type_layer]) -> bool:
    covered = layers[0][0] > 0
    for labels, _, _ in layers[1:]:
        if np.any(covered[labels > 0]):
            return True
        covered |= labels > 0
    return False


def _join(objects: list[Any]) -> Any:
    """Segments and frames of all in the first; segment numbers go on, dimension indices are counted anew (PS3.3 C.7.6.17)."""
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
    normal = np.cross(*np.array(_orientation(dataset, frames[0]), float).reshape(2, 3))
    heights = [round(float(np.dot(normal, frame.PlanePositionSequence[0].ImagePositionPatient)), 4) for frame in frames]
    ranks = {height: rank for rank, height in enumerate(sorted(set(heights)), start=1)}
    for frame, height in zip(frames, heights, strict=True):
        segment = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        frame.FrameContentSequence[0].DimensionIndexValues = [segment, ranks[height]]


def _orientation(dataset: Dataset, frame: Dataset) -> list[float]:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    group = shared if "PlaneOrientationSequence" in shared else frame
    return [float(value) for value in group.PlaneOrientationSequence[0].ImageOrientationPatient]
