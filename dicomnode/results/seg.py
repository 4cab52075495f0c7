"""Segmentation objects (PS3.3 A.51): on the source's own grid and slices, in the form that the profile asks for.

Label maps may overlap each other (a nodule lies in a lung), and highdicom takes either one label map or a stack with a channel
per segment, eight times the memory. So maps that overlap are encoded one by one and their frames joined into one instance.
Of plain sources (`seg_frames.grid_of`) highdicom encodes the first slice alone and `seg_frames` writes all frames: the same
bytes in a quarter of the time. FRACTIONAL is made of the BINARY object's bits: built by highdicom it costs fifteen times the
volume.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code as DicomCode
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from dicomnode.domain.equipment import MANUFACTURER, MODEL_NAME
from dicomnode.domain.findings import Code, Findings, LabelMap, Segment
from dicomnode.domain.imaging import Image2D, SpacingOrigin, Volume
from dicomnode.domain.profiles import ResultKind, SegForm, WithoutFrameOfReference
from dicomnode.results import equipment
from dicomnode.results.context import Context
from dicomnode.results.frames import images_for_writers, in_order_of_frames, name_own_objects
from dicomnode.results.orientation import patient_orientation
from dicomnode.results.seg_frames import grid_of, put_frames
from dicomnode.results.seg_join import join, lean_on_source_images
from dicomnode.results.seg_plan import plan, type_part
from dicomnode.results.source import Sources, copy_body_part, restore_identity

type_labels = NDArray[np.uint8] | NDArray[np.uint16]
type_layer = tuple[type_labels, list[Segment], dict[int, int]]

CONTENT_LABEL = "AI_SEG"  # CS, 16 characters
FULL = 255  # Maximum Fractional Value (0062,000E)


def dicom_code(code: Code) -> DicomCode:
    """The seam's code as pydicom's."""
    return DicomCode(code.value, code.scheme, code.meaning)


def build_segmentation(
    context: Context, findings: Findings, image: Volume | Image2D, _built: Mapping[ResultKind, Sequence[Any]]
) -> list[Any]:
    """The instances of one series, as `seg_plan.plan` says; none where nothing was segmented or nothing may be sent."""
    parts = plan(context, findings, image).parts
    made = []
    for number, part in enumerate(parts, start=1):
        dataset = _instance(context, part, image, number)
        if len(parts) > 1:
            dataset.ContentDescription = f"{dataset.SeriesDescription[:50]} {number} of {len(parts)}"
        made.append(dataset)
    return made


def _instance(context: Context, part: type_part, image: Volume | Image2D, number: int) -> Any:
    layers = _layers(part, context.sources)
    binary = context.profile.seg_form is not SegForm.LABELMAP
    grid = grid_of(context.sources) if binary and isinstance(image, Volume) else None
    make = _of_highdicom if grid is None else _envelope
    dataset = make(context, layers, image, number)
    _say_overlap(dataset, layers)
    dataset.SeriesDescription = context.description("SEG")
    copy_body_part(dataset, context.sources)
    if not isinstance(image, Volume):
        _say_pixel_measures(dataset, image)
    if "FrameOfReferenceUID" not in dataset:
        # Type 2C where frames have no position of their own (PS3.3 C.7.6.1).
        dataset.PatientOrientation = patient_orientation(image, context.sources.headers[0])
    restore_identity(dataset, context.sources, context.profile.character_set)
    if grid is not None:
        maps = [(labels, segments) for labels, segments, _ in layers]
        put_frames(dataset, grid, maps, keep_empty=context.profile.keep_empty_frames)
    if context.profile.seg_form is SegForm.FRACTIONAL:
        _make_fractional(dataset)
    return dataset


def _of_highdicom(context: Context, layers: list[type_layer], image: Volume | Image2D, number: int) -> Any:
    """The whole object by highdicom, for sources whose frames are not all alike."""
    objects = [_encode(context, labels, descriptions, image, number) for labels, descriptions in _numbered(context, layers)]
    dataset = objects[0] if len(objects) == 1 else join(objects)
    _pad_with_zero(dataset)
    name_own_objects(dataset, context.sources)
    without = isinstance(image, Volume) and not context.sources.received_frames_of_reference
    if without and context.profile.without_frame_of_reference is WithoutFrameOfReference.DERIVATION:
        lean_on_source_images(dataset)
    return dataset


def _pad_with_zero(dataset: Any) -> None:
    """Pixel data of an odd length end with a byte of 00H (PS3.5 6.2, OB); highdicom 0.28 writes the digit "0"."""
    length = -(-int(dataset.NumberOfFrames) * int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8)
    if length % 2:
        dataset.PixelData = dataset.PixelData[:length] + b"\0"


def _envelope(context: Context, layers: list[type_layer], image: Volume | Image2D, number: int) -> Any:
    """highdicom's object of the first slice alone, with the segments of all maps."""
    segments = [segment for _, some, _ in layers for segment in some]
    descriptions = [_describe(context, segment, place) for place, segment in enumerate(segments, start=1)]
    labels = np.zeros((1, *layers[0][0].shape[1:]), np.uint8)
    labels[0, 0, 0] = 1
    return _encode(context, labels, descriptions, image, number, context.sources.headers[:1])


def _say_pixel_measures(dataset: Any, image: Image2D) -> None:
    """Where the spacing is the patient's: at a detector all is magnified. highdicom leaves the group out without a frame of
    reference.
    """
    if image.pixel_spacing_mm is not None and image.spacing_origin is SpacingOrigin.CALIBRATED:
        measures = Dataset()
        measures.PixelSpacing = [DSfloat(value, auto_format=True) for value in image.pixel_spacing_mm]
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = DicomSequence([measures])


def _make_fractional(dataset: Any) -> None:
    """Whole voxels or none (OCCUPANCY, PS3.3 C.8.20.2.3): the model's mask, in the bytes of a FRACTIONAL object."""
    count = int(dataset.NumberOfFrames) * int(dataset.Rows) * int(dataset.Columns)
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    dataset.PixelData = b""
    values = np.unpackbits(packed, count=count, bitorder="little")
    values *= np.uint8(FULL)
    dataset.PixelData = values.tobytes() + b"\0" * (count % 2)
    dataset.SegmentationType = "FRACTIONAL"
    dataset.SegmentationFractionalType = "OCCUPANCY"
    dataset.MaximumFractionalValue = FULL
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset["PixelData"].VR = "OB"


def _layers(part: type_part, sources: Sources) -> list[type_layer]:
    """(frames, segments, voxel value → 1-based place in `segments`) of each label map of which the part holds segments."""
    maps: dict[str, tuple[LabelMap, list[Segment]]] = {}
    for one, segment in part:
        maps.setdefault(one.name, (one, []))[1].append(segment)
    return [
        (
            in_order_of_frames(one.labels, sources),
            segments,
            {segment.number: place for place, segment in enumerate(segments, start=1)},
        )
        for one, segments in maps.values()
    ]


def _numbered(context: Context, layers: list[type_layer]) -> list[tuple[type_labels, list[Any]]]:
    encoded = []
    for labels, segments, places in layers:
        descriptions = [_describe(context, segment, place) for place, segment in enumerate(segments, start=1)]
        encoded.append((_renumbered(labels, places), descriptions))
    return encoded


def _renumbered(labels: type_labels, places: dict[int, int]) -> type_labels:
    """Voxel values 1 to n, as highdicom wants them."""
    highest = int(labels.max())
    if highest == len(places) and all(value == place for value, place in places.items()):
        return labels
    table = np.zeros(max(highest, *places) + 1, labels.dtype)
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


def _encode(
    context: Context,
    labels: type_labels,
    descriptions: list[Any],
    image: Volume | Image2D,
    number: int,
    headers: Sequence[Dataset] = (),
) -> Any:
    """highdicom's object of these source images; without `headers` of all."""
    kind = ResultKind.SEG
    labelmap = context.profile.seg_form is SegForm.LABELMAP
    types = hd.seg.SegmentationTypeValues
    return hd.seg.Segmentation(
        source_images=list(headers) or images_for_writers(context.sources),
        pixel_array=labels,
        segmentation_type=types.LABELMAP if labelmap else types.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=context.uid(kind, "series"),
        series_number=context.series_number(kind),
        sop_instance_uid=context.uid(kind, "instance", *([str(number)] if number > 1 else [])),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=equipment.software_versions(context.model),
        device_serial_number=equipment.device_serial_number(context.model),
        content_label=CONTENT_LABEL,
        content_description=context.description("SEG"),
        content_creator_name="dicomnode^AI",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        pixel_measures=pixel_measures(context.sources, image),
        omit_empty_frames=not context.profile.keep_empty_frames,
        contributing_equipment=equipment.contributing_equipment(context.model, context.moment, context.request.uid_root),
    )


def pixel_measures(sources: Sources, image: Volume | Image2D) -> Any:
    """With Spacing Between Slices: readers that stack frames by thickness would be wrong for overlapping slices."""
    if not isinstance(image, Volume):
        return None
    header = sources.headers[0]
    return hd.PixelMeasuresSequence(
        pixel_spacing=[float(value) for value in header.get("PixelSpacing") or image.spacing_mm[1:]],
        slice_thickness=float(header.get("SliceThickness") or image.spacing_mm[0]),
        spacing_between_slices=image.spacing_mm[0] if len(image.frames) > 1 else None,
    )


def _say_overlap(dataset: Any, layers: list[type_layer]) -> None:
    """Within a map nothing overlaps, as highdicom says; between maps it may."""
    if len(layers) > 1:
        dataset.SegmentsOverlap = "YES" if any(map(_overlap, *(_presence(*layer) for layer in layers))) else "NO"


def _presence(labels: type_labels, _segments: list[Segment], places: dict[int, int]) -> Iterator[NDArray[np.bool_]]:
    """Slice by slice where one of these segments is."""
    whole = sorted(places) == list(range(1, len(places) + 1)) and int(labels.max()) <= len(places)
    for one in labels:
        yield one > 0 if whole else np.isin(one, list(places))


def _overlap(*masks: NDArray[np.bool_]) -> bool:
    covered = masks[0]
    for mask in masks[1:]:
        if np.any(covered & mask):
            return True
        covered = covered | mask
    return False
