"""An instance's header as values: what its pixels are, and where each of its frames lies.

Single-frame images carry these at the top of the data set; enhanced multi-frame images in the shared and per-frame functional
groups (PS3.3 C.7.6.16). Everything after this file sees no difference.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from dicomnode.domain.imaging import FrameRef, HeaderSummary, InstanceRef
from dicomnode.imaging.codecs import FrameFormat
from dicomnode.imaging.part10 import Part10Header, UnreadableDicom, read_header
from dicomnode.imaging.plain_headers import known_tag

# What can tell two frames at one position apart: name → (keyword at the top level, functional group and keyword in it).
DISTINCTIONS: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "AcquisitionNumber": ("AcquisitionNumber", (("FrameContentSequence", "FrameAcquisitionNumber"),)),
    "TemporalPositionIdentifier": ("TemporalPositionIdentifier", (("FrameContentSequence", "TemporalPositionIndex"),)),
    "EchoTime": ("EchoTime", (("MREchoSequence", "EffectiveEchoTime"),)),
    "DiffusionBValue": ("DiffusionBValue", (("MRDiffusionSequence", "DiffusionBValue"),)),
    "TriggerTime": ("TriggerTime", (("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),)),
    "FrameReferenceTime": ("FrameReferenceTime", ()),
    "AcquisitionTime": ("AcquisitionTime", (("FrameContentSequence", "FrameAcquisitionDateTime"),)),
    "ImageType": (
        "ImageType",
        (
            ("CTImageFrameTypeSequence", "FrameType"),
            ("MRImageFrameTypeSequence", "FrameType"),
            ("PETFrameTypeSequence", "FrameType"),
        ),
    ),
    "ConvolutionKernel": ("ConvolutionKernel", (("CTReconstructionSequence", "ConvolutionKernel"),)),
}


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """How the pixel data of an instance are kept: format of a frame, syntax, place in the file, and padding values."""

    frame_format: FrameFormat
    high_bit: int
    number_of_frames: int
    transfer_syntax_uid: str
    element_offset: int
    bytes_held: int  # from there to the end of the file
    extended_offsets: tuple[bytes, bytes] | None
    padding: tuple[int, int] | None  # stored values, lowest and highest (PS3.3 C.7.5.1.1.2)


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One image object. `layout` is None where there are no pixel data."""

    ref: InstanceRef
    instance_number: str
    frame_of_reference_uid: str
    patient_identity_removed: bool
    units: str  # Units (0054,1001) of PET, else Rescale Type (0028,1054)
    headers: HeaderSummary
    layout: PixelLayout | None
    pixel_spacing: tuple[float, float] | None  # top level, (y, x)
    imager_pixel_spacing: tuple[float, float] | None
    spacing_between_slices_mm: float | None
    modality_lut: tuple[int, NDArray[np.float32]] | None  # first mapped value, table (PS3.3 C.11.1)

    @property
    def path(self) -> Path:
        """Where the bytes are."""
        return self.ref.path


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image plane (PS3.3 C.7.6.2): LPS mm; None where the header does not say."""

    instance: Instance
    frame_index: int  # 0-based
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None  # direction of a row, then of a column
    pixel_spacing: tuple[float, float] | None  # (y, x)
    slope: float
    intercept: float
    distinctions: Mapping[str, str]

    @property
    def ref(self) -> FrameRef:
        """The seam's name of this frame."""
        return FrameRef(self.instance.ref.sop_instance_uid, self.instance.ref.sop_class_uid, self.frame_index + 1)

    @property
    def layout(self) -> PixelLayout:
        """Of the instance; frames are only made where there are pixel data."""
        if self.instance.layout is None:
            raise ValueError("an instance without pixel data has no frames")
        return self.instance.layout

    @property
    def is_localizer(self) -> bool:
        """Whether Image Type or Frame Type value 3 says so (PS3.3 C.8.2.1.1.1)."""
        return "LOCALIZER" in self.distinctions["ImageType"].upper().split("\\")


def read_frames(ref: InstanceRef) -> tuple[Instance, tuple[Frame, ...]]:
    """The instance at `ref.path` and its frames; no frames where there are no pixel data.

    Raises NotDicom, UnreadableDicom or OSError.
    """
    part10 = read_header(ref.path)
    try:
        instance = _read_instance(ref, part10)
        return instance, _read_planes(instance, part10.data_set) if instance.layout is not None else ()
    except UnreadableDicom:
        raise
    except Exception as error:
        # pydicom converts values when they are asked for, so a wrong one shows here: TypeError, ValueError, AttributeError …
        raise UnreadableDicom(f"a header value cannot be understood ({type(error).__name__})") from error


@cache
def _tag_of(keyword: str) -> BaseTag:
    return known_tag(int(Tag(keyword)))


# Without text, whose meaning hangs on the data set's character sets. As long as they are, elements are the same in all slices.
_PLAIN_VRS = frozenset({"AS", "CS", "DA", "DS", "FD", "FL", "IS", "SS", "TM", "UI", "US"})
_TEXT_VRS = frozenset({"LO", "SH"})
# Letters, digits and signs that every character set of PS3.3 C.12.1.1.2 has in the same places: not those of ISO 646's national
# variants (backslash and tilde in Japan), and no escape.
_SAME_EVERYWHERE = frozenset(range(0x20, 0x7E)) - {0x5C}


@lru_cache(maxsize=4096)
def _plain_value(tag: BaseTag, vr: str, encoded: bytes, is_little_endian: bool) -> Any:
    """pydicom's conversion, half of what a header costs, once for each value."""
    return convert_raw_data_element(RawDataElement(tag, vr, len(encoded), encoded, 0, False, is_little_endian)).value


def value_of(data_set: Dataset, keyword: str) -> Any:
    """The value, not to be changed; None where absent.

    `Dataset.get` finds by an attribute error that a keyword is absent: ten times slower, and most are.
    """
    tag = _tag_of(keyword)
    if tag not in data_set.keys():  # noqa: SIM118 - pydicom's own `in` makes a tag of the tag first: most of the time goes there
        return None
    element = data_set.get_item(tag)
    if isinstance(element, RawDataElement) and element.value is not None and _is_plain(element.VR, element.value):
        return _plain_value(tag, element.VR, bytes(element.value), element.is_little_endian)
    return data_set[tag].value


def _is_plain(vr: str | None, encoded: bytes) -> bool:
    return vr in _PLAIN_VRS or (vr in _TEXT_VRS and _SAME_EVERYWHERE.issuperset(encoded))


def text(data_set: Dataset, keyword: str) -> str:
    """An attribute as text, values joined by backslashes; "" where absent or empty."""
    value = value_of(data_set, keyword)
    if value is None:
        return ""
    values = value if isinstance(value, list) or hasattr(value, "append") else [value]
    return "\\".join(str(item).strip() for item in values)


def _number(data_set: Dataset, keyword: str) -> float | None:
    value = value_of(data_set, keyword)
    value = value[0] if value is not None and hasattr(value, "append") and len(value) else value
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _numbers(data_set: Dataset, keyword: str, count: int) -> NDArray[np.float64] | None:
    value = value_of(data_set, keyword)
    if value is None or not hasattr(value, "append") or len(value) != count:
        return None
    array = np.array([float(item) for item in value])
    return array if np.isfinite(array).all() else None


def _required(data_set: Dataset, keyword: str) -> int:
    value = value_of(data_set, keyword)
    if not isinstance(value, int):
        raise UnreadableDicom(f"{keyword} is missing or not one number")
    return value


def _spacing(data_set: Dataset, keyword: str) -> tuple[float, float] | None:
    value = _numbers(data_set, keyword, 2)
    return None if value is None or (value <= 0).any() else (float(value[0]), float(value[1]))


def _read_instance(ref: InstanceRef, part10: Part10Header) -> Instance:
    data_set = part10.data_set
    return Instance(
        ref=ref,
        instance_number=text(data_set, "InstanceNumber"),
        frame_of_reference_uid=text(data_set, "FrameOfReferenceUID"),
        patient_identity_removed=text(data_set, "PatientIdentityRemoved").upper() == "YES",
        units=text(data_set, "Units")
        or text(_place(data_set, "PixelValueTransformationSequence", "RescaleType"), "RescaleType"),
        headers=_read_summary(data_set),
        layout=_read_layout(part10),
        pixel_spacing=_spacing(data_set, "PixelSpacing"),
        imager_pixel_spacing=_spacing(data_set, "ImagerPixelSpacing"),
        spacing_between_slices_mm=_number(data_set, "SpacingBetweenSlices"),
        modality_lut=_read_modality_lut(data_set),
    )


def _place(data_set: Dataset, sequence: str, keyword: str) -> Dataset:
    """Where an attribute stands that is the instance's own or its first frame's: a functional group, else the top level."""
    items = (group[sequence][0] for group in _functional_groups(data_set, 0) if value_of(group, sequence))
    return next((item for item in items if keyword in item), data_set)


def _read_summary(data_set: Dataset) -> HeaderSummary:
    window = _place(data_set, "FrameVOILUTSequence", "WindowCenter")
    return HeaderSummary(
        modality=text(data_set, "Modality"),
        body_part_examined=text(data_set, "BodyPartExamined"),
        series_description=text(data_set, "SeriesDescription"),
        convolution_kernel=text(_place(data_set, "CTReconstructionSequence", "ConvolutionKernel"), "ConvolutionKernel"),
        slice_thickness_mm=_number(_place(data_set, "PixelMeasuresSequence", "SliceThickness"), "SliceThickness"),
        contrast_agent=text(data_set, "ContrastBolusAgent"),
        patient_age=text(data_set, "PatientAge"),
        patient_sex=text(data_set, "PatientSex"),
        laterality=text(data_set, "ImageLaterality") or text(data_set, "Laterality"),
        image_type=tuple(text(data_set, "ImageType").split("\\")) if text(data_set, "ImageType") else (),
        manufacturer=text(data_set, "Manufacturer"),
        window_center=_number(window, "WindowCenter"),
        window_width=_number(window, "WindowWidth"),
    )


def _read_layout(part10: Part10Header) -> PixelLayout | None:
    if part10.pixel_element_offset is None:
        return None
    data_set = part10.data_set
    rows, columns, bits_allocated = (_required(data_set, keyword) for keyword in ("Rows", "Columns", "BitsAllocated"))
    bits_stored = int(value_of(data_set, "BitsStored") or bits_allocated)
    signed = int(value_of(data_set, "PixelRepresentation") or 0) == 1
    high_bit = value_of(data_set, "HighBit")
    number_of_frames = int(value_of(data_set, "NumberOfFrames") or 1)
    if min(rows, columns, number_of_frames) < 1 or not 1 <= bits_stored <= bits_allocated:
        raise UnreadableDicom("Rows, Columns, Number of Frames or Bits Stored is out of range")
    tables = value_of(data_set, "ExtendedOffsetTable"), value_of(data_set, "ExtendedOffsetTableLengths")
    frame_format = FrameFormat(
        rows=rows,
        columns=columns,
        samples=int(value_of(data_set, "SamplesPerPixel") or 1),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        signed=signed,
        photometric_interpretation=text(data_set, "PhotometricInterpretation"),
    )
    return PixelLayout(
        frame_format=frame_format,
        high_bit=bits_stored - 1 if high_bit is None else int(high_bit),
        number_of_frames=number_of_frames,
        transfer_syntax_uid=part10.transfer_syntax_uid,
        element_offset=part10.pixel_element_offset,
        bytes_held=part10.bytes_held,
        extended_offsets=(bytes(tables[0]), bytes(tables[1])) if all(isinstance(table, bytes) for table in tables) else None,
        padding=_read_padding(data_set, signed, bits_allocated),
    )


def _read_padding(data_set: Dataset, signed: bool, bits_allocated: int) -> tuple[int, int] | None:
    """The range of stored values that are padding. Many files write a signed one as US: 63536 is −2000 in 16 bits."""
    values = [_number(data_set, "PixelPaddingValue"), _number(data_set, "PixelPaddingRangeLimit")]
    if values[0] is None:
        return None
    stored = [int(value) for value in values if value is not None]
    if signed:
        stored = [value - (1 << bits_allocated) if value >= 1 << (bits_allocated - 1) else value for value in stored]
    return min(stored), max(stored)


def _read_modality_lut(data_set: Dataset) -> tuple[int, NDArray[np.float32]] | None:
    sequence = value_of(data_set, "ModalityLUTSequence")
    if not sequence:
        return None
    entries, first, _ = (int(value) for value in sequence[0].LUTDescriptor)
    data = sequence[0].LUTData
    table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data)
    if table.size != (entries or 1 << 16):  # an entry count of 0 means 65536 (PS3.3 C.11.1.1.1)
        raise UnreadableDicom("the Modality LUT does not hold as many entries as its descriptor says")
    return first, table.astype(np.float32)


def _functional_groups(data_set: Dataset, frame_index: int) -> tuple[Dataset, ...]:
    """Where a frame's attributes may stand, the most particular place first."""
    per_frame = value_of(data_set, "PerFrameFunctionalGroupsSequence")
    shared = value_of(data_set, "SharedFunctionalGroupsSequence")
    particular = (per_frame[frame_index],) if per_frame and frame_index < len(per_frame) else ()
    return (*particular, shared[0]) if shared else particular


def _read_planes(instance: Instance, data_set: Dataset) -> tuple[Frame, ...]:
    count = instance.layout.number_of_frames if instance.layout else 0
    per_frame = value_of(data_set, "PerFrameFunctionalGroupsSequence")
    if per_frame is None:
        # Without functional groups a position at the top level is that of one plane: it says nothing of further frames.
        return tuple(_read_plane(instance, data_set, (data_set,) if count == 1 else (), index) for index in range(count))
    if len(per_frame) != count:
        raise UnreadableDicom(f"Number of Frames is {count}, but {len(per_frame)} frames are described")
    return tuple(_read_plane(instance, data_set, _functional_groups(data_set, index), index) for index in range(count))


def _read_plane(instance: Instance, data_set: Dataset, groups: tuple[Dataset, ...], index: int) -> Frame:
    def place(sequence: str) -> Dataset:
        """The item that holds a functional group's attributes; a single-frame image is its own item."""
        found = next((group[sequence][0] for group in groups if value_of(group, sequence)), None)
        return found if found is not None else (data_set if groups == (data_set,) else Dataset())

    transformation = place("PixelValueTransformationSequence")
    if "RescaleSlope" not in transformation and "RescaleIntercept" not in transformation:
        transformation = data_set
    slope, intercept = _number(transformation, "RescaleSlope"), _number(transformation, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise UnreadableDicom("the Rescale Slope is zero or not a number")
    return Frame(
        instance=instance,
        frame_index=index,
        position=_numbers(place("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=_numbers(place("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        pixel_spacing=_spacing(place("PixelMeasuresSequence"), "PixelSpacing"),
        slope=slope,
        intercept=intercept,
        distinctions={name: _distinction(data_set, groups, name) for name in DISTINCTIONS},
    )


def _distinction(data_set: Dataset, groups: tuple[Dataset, ...], name: str) -> str:
    keyword, places = DISTINCTIONS[name]
    for sequence, inner in places:
        for group in groups:
            items: Any = value_of(group, sequence)
            if items and (found := text(items[0], inner)):
                return found
    return text(data_set, keyword)
