"""Headers of the source series, made fit for building results from them.

What a writer of results needs and a real source may lack (PatientName, StudyID, one frame of reference for all slices) is
mended on working copies; `identity` keeps patient and study as they came, and is what goes into the results.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.imaging import FrameRef, Image2D, Volume
from dicomnode.domain.profiles import CharacterSet
from dicomnode.domain.uids import derived_uid
from dicomnode.results.elements import are_alike, distinct_values, elements_below

# Type 2 in the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): must be there, may be empty.
TYPE_2_IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
BLANKED = tuple((Tag(keyword), dictionary_VR(keyword)) for keyword in TYPE_2_IDENTITY)
FRAME_OF_REFERENCE = Tag("FrameOfReferenceUID")
UTF_8 = "ISO_IR 192"
IDENTITY_GROUPS = frozenset({0x0008, 0x0010, 0x0012, 0x0020, 0x0032, 0x0038, 0x0040})
# Values that Specific Character Set rules (PS3.5 6.1.2.2).
CHARACTER_SET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


@dataclass(frozen=True, slots=True)
class Sources:
    """headers: working copies; those of the image's slices in their order, else all in the order of Instance Number.

    headers_by_uid: every instance of the series that was read. slice_headers: one per slice of the image (multi-frame
    instances repeat), empty without an image; frame_numbers: 1-based, the same.
    identity: patient and study as received, in the character set of the source. frame_of_reference_uid: of the working copies;
    a derived one where received_frames_of_reference is empty and the image is a volume. survives_writing: whether the text
    of `identity` reads the same after it was written in its own character set.
    """

    headers: tuple[Dataset, ...]
    headers_by_uid: dict[str, Dataset]
    slice_headers: tuple[Dataset, ...]
    frame_numbers: tuple[int, ...]
    identity: Dataset
    frame_of_reference_uid: str
    received_frames_of_reference: frozenset[str]
    survives_writing: Callable[[], bool]
    is_projection: bool = False

    @property
    def study_instance_uid(self) -> str:
        """Of the source study."""
        return str(self.identity.StudyInstanceUID)

    @property
    def series_instance_uid(self) -> str:
        """Of the source series."""
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def timezone_offset_from_utc(self) -> str:
        """(0008,0201) of the source, "" without."""
        return str(self.identity.get("TimezoneOffsetFromUTC") or "")

    def position(self, slice_index: int) -> tuple[float, ...] | None:
        """Image Position (Patient) of this slice as the source has it, LPS mm; None where it has none."""
        header = self.slice_headers[slice_index]
        frames = header.get("PerFrameFunctionalGroupsSequence")
        planes = frames[self.frame_numbers[slice_index] - 1].get("PlanePositionSequence") if frames else [header]
        found = planes[0].get("ImagePositionPatient") if planes else None
        return tuple(float(value) for value in found) if found else None

    def instance_number(self, slice_index: int) -> int:
        """What a viewer shows for this slice: Instance Number; of a multi-frame object the frame's number; else its place."""
        header = self.slice_headers[slice_index]
        if int(header.get("NumberOfFrames") or 1) > 1:
            return self.frame_numbers[slice_index] if len(self.headers) == 1 else slice_index + 1
        value = header.get("InstanceNumber")
        return slice_index + 1 if value in (None, "") else int(value)


def read_sources(paths: Sequence[Path], image: Volume | Image2D | None) -> Sources:
    """Reads the headers (no pixels) and mends the copies. Raises ResultCheckFailed where a slice has no source file."""
    if not paths:
        raise ResultCheckFailed("no source file was given", "check that the series is still in the store")
    read: list[Dataset] = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    by_uid = {str(header.SOPInstanceUID): header for header in read}
    frames = _frames(image)
    missing = sum(frame.sop_instance_uid not in by_uid for frame in frames)
    if missing:
        raise ResultCheckFailed(
            f"{missing} of {len(frames)} slices have no source file", "check the store with `dicomnode fsck`, then retry"
        )
    slice_headers = tuple(by_uid[frame.sop_instance_uid] for frame in frames)
    headers = tuple({id(header): header for header in slice_headers}.values()) or tuple(sorted(read, key=_reading_order))
    received = frozenset(str(value) for value in distinct_values(read, "FrameOfReferenceUID") if value)
    frame_of_reference = next(iter(sorted(received)), "")
    if isinstance(image, Volume):
        # Writers insist on one; whether it leaves the node with an object is the profile's choice.
        frame_of_reference = image.frame_of_reference_uid or derived_frame_of_reference(str(read[0].SeriesInstanceUID))
    identity = _identity(headers[0])
    for header in read:
        _mend(header, image, frame_of_reference)
    if isinstance(image, Volume):
        _agree(slice_headers)
    numbers = tuple(frame.frame_number for frame in frames)
    projection = isinstance(image, Image2D)
    survives = cache(partial(_survives_writing, identity))  # every object of a set asks
    return Sources(headers, by_uid, slice_headers, numbers, identity, frame_of_reference, received, survives, projection)


def derived_frame_of_reference(series_instance_uid: str) -> str:
    """The UID for the space of a series that names none: the same for all results of it."""
    return derived_uid(("frame of reference", series_instance_uid))


def _frames(image: Volume | Image2D | None) -> tuple[FrameRef, ...]:
    if isinstance(image, Volume):
        return image.frames
    return (image.frame,) if image is not None else ()


def _reading_order(header: Dataset) -> tuple[int, str]:
    try:
        number = int(header.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        number = 0
    return number, str(header.SOPInstanceUID)


def _identity(header: Dataset) -> Dataset:
    """Patient and study level as received. The class is CT's so that its modules are known for any source, RTSTRUCT too."""
    identity = Dataset()
    for element in header:
        if element.tag.group in IDENTITY_GROUPS:
            identity.add(copy.deepcopy(element))  # `_mend` blanks the header's own
    for keyword in TYPE_2_IDENTITY:
        if keyword not in identity:
            setattr(identity, keyword, "")
    identity.SOPClassUID = CTImageStorage
    return identity


def _mend(header: Dataset, image: Volume | Image2D | None, frame_of_reference: str) -> None:
    """What highdicom insists on and sources lack. `restore_identity` puts patient and study into the built object.

    They are blank until then: highdicom 0.28 refuses a birth date of "1960", sex "U" and ISO 2022 names, and prints names of
    one component in warnings, where patient data must not be.
    """
    for tag, vr in BLANKED:
        header[tag] = DataElement(tag, vr, "")  # by assignment the value that goes would be parsed first
    if "SpecificCharacterSet" in header:
        del header.SpecificCharacterSet
    if frame_of_reference:
        header[FRAME_OF_REFERENCE] = DataElement(FRAME_OF_REFERENCE, "UI", frame_of_reference)
    _share_geometry(header, image)
    if isinstance(image, Volume) and "ImagePositionPatient" in header and not header.get("SliceThickness"):
        header.SliceThickness = pydicom.valuerep.DSfloat(image.spacing_mm[0], auto_format=True)


def _agree(slice_headers: Sequence[Dataset]) -> None:
    """Directions and spacing of one volume may differ in the last digits from slice to slice; highdicom wants them equal."""
    first = slice_headers[0]
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        if are_alike(slice_headers, keyword):
            continue
        for header in slice_headers[1:]:
            if keyword in first and keyword in header and header[keyword].value != first[keyword].value:
                setattr(header, keyword, list(first[keyword].value))


def _share_geometry(header: Dataset, image: Volume | Image2D | None) -> None:
    """highdicom looks for spacing and directions of a multi-frame source among the shared groups only, and takes what is there.

    Slice Thickness is type 1C there (PS3.3 C.7.6.16.2.1): what we derive from volumetric frames needs one.
    """
    if "PerFrameFunctionalGroupsSequence" not in header or "SharedFunctionalGroupsSequence" not in header:
        return
    shared, first = header.SharedFunctionalGroupsSequence[0], header.PerFrameFunctionalGroupsSequence[0]
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if keyword not in shared and keyword in first:
            shared[keyword] = first[keyword]
    if isinstance(image, Volume) and "PixelMeasuresSequence" in shared:
        measures = shared.PixelMeasuresSequence[0]
        if not measures.get("SliceThickness"):
            measures.SliceThickness = pydicom.valuerep.DSfloat(image.spacing_mm[0], auto_format=True)


def restore_identity(dataset: Any, sources: Sources, character_set: CharacterSet = CharacterSet.SOURCE) -> None:
    """Patient and study of a built object become the source's own.

    They keep its character set and bytes, unless the profile or text of ours needs UTF-8.
    """
    identity = sources.identity
    if character_set is CharacterSet.UTF_8 or not _is_ascii(dataset) or not sources.survives_writing():
        identity = _in_utf_8(identity)
    dataset.copy_patient_and_study_information(identity)
    for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC"):
        # Times of the copied study and of our content are in the same zone (PS3.3 C.12.1.1.8).
        if identity.get(keyword):
            dataset[keyword] = identity[keyword]


def _in_utf_8(identity: Dataset) -> Dataset:
    decoded = copy.deepcopy(identity)
    decoded.decode()
    for element in identity:
        if element.VR == "PN" and element.VM == 1:
            # pydicom 3.0 keeps a name's bytes as it would write them, in ISO_IR 13 with "?" for what it cannot write.
            decoded[element.tag].value = str(element.value)
    decoded.SpecificCharacterSet = UTF_8
    return decoded


def _is_ascii(dataset: Dataset) -> bool:
    return all(str(element.value).isascii() for element in elements_below(dataset, (), CHARACTER_SET_VRS))


def _survives_writing(identity: Dataset) -> bool:
    """Whether its text reads the same after it was written in the source's own character set (ISO_IR 13 may lose letters)."""
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what is tested here
        pydicom.dcmwrite(buffer, identity, implicit_vr=False, little_endian=True)
        buffer.seek(0)
        again = pydicom.dcmread(buffer, force=True)
        return all(str(again[one.tag].value) == str(one.value) for one in identity if one.VR in CHARACTER_SET_VRS)


def identity_arguments(sources: Sources) -> dict[str, Any]:
    """Patient and study for highdicom constructors that take no source image."""
    header = sources.headers[0]
    return {
        "study_instance_uid": str(header.StudyInstanceUID),
        "patient_id": header.PatientID,
        "patient_name": header.PatientName,
        "patient_birth_date": header.PatientBirthDate or None,
        "patient_sex": header.PatientSex,
        "accession_number": header.AccessionNumber,
        "study_id": header.StudyID,
        "study_date": header.StudyDate or None,
        "study_time": header.StudyTime or None,
        "referring_physician_name": header.ReferringPhysicianName,
    }


def copy_body_part(dataset: Dataset, sources: Sources) -> None:
    """Body part and side of the source, where it names them."""
    for keyword in ("BodyPartExamined", "Laterality"):
        value = sources.headers[0].get(keyword)
        if value:
            setattr(dataset, keyword, value)


def copy_lossy_history(dataset: Dataset, sources: Sources) -> None:
    """An image derived from lossy pixels stays lossy (PS3.3 C.7.6.1.1.5)."""
    for header in sources.headers:
        if header.get("LossyImageCompression") == "01":
            for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
                element: DataElement | None = header.get_item(keyword) and header[keyword]
                if element is not None:
                    dataset.add(element)
            return
    dataset.LossyImageCompression = "00"
