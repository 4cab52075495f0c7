"""Understands a received data set up to its pixel data: identity, indexed attributes, where the pixels are."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomnode.domain.errors import InvalidInstance
from dicomnode.domain.received import INDEXED_KEYWORDS
from dicomnode.domain.statuses import CANNOT_UNDERSTAND
from dicomnode.receiving.elements import UNDEFINED, Element, Encoding, Unscannable, Walker
from dicomnode.receiving.values import as_text, encodings_of

_DEFLATED = frozenset(
    {
        str(DeflatedExplicitVRLittleEndian),
        "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
        "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
    }
)
PIXEL_DATA_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double float, integer (PS3.3 C.7.6.24, C.7.6.3)
CONTRIBUTING_EQUIPMENT = 0x0018A001
_CHARACTER_SET = 0x00080005
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(f"{keyword} is no DICOM keyword")
    return int(tag)


_WANTED: Mapping[int, tuple[str, str]] = {
    _tag(keyword): (keyword, dictionary_VR(keyword)) for keyword in (*INDEXED_KEYWORDS, *_IDENTITY)
}
_LONGEST_UID = 64


class Refused(InvalidInstance):
    """An object that is not accepted. `code`: one word for logs, which may not quote the object."""

    def __init__(self, what: str, code: str, status: int = CANNOT_UNDERSTAND) -> None:
        super().__init__(what, "correct the object at its source and send it again", status)
        self.code = code


@dataclass(frozen=True, slots=True)
class Header:
    """What the elements before the pixel data say.

    attributes: indexed keyword → text; absent and empty values have no entry. pixels: start and end of the pixel value in the
    (inflated) data set, None without any; an encapsulated value is taken to the end of what was received.
    contributing_equipment: the encoded element (0018,A001), b"" without one.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    attributes: Mapping[str, str]
    pixels: tuple[int, int] | None
    contributing_equipment: bytes
    encoding: Encoding


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """Implicit VR Little Endian, Explicit VR Big Endian, else Explicit VR Little Endian (PS3.5 A.4: all encapsulated ones)."""
    return Encoding(
        explicit_vr=transfer_syntax_uid != ImplicitVRLittleEndian, little_endian=transfer_syntax_uid != ExplicitVRBigEndian
    )


def inflated(data_set: memoryview, transfer_syntax_uid: str, *, at_most: int) -> memoryview:
    """The data set as elements: inflated where the transfer syntax deflates (PS3.5 A.5). Raises Refused.

    at_most: bytes; a longer result is refused, because a few kilobytes can inflate to gigabytes.
    """
    if transfer_syntax_uid not in _DEFLATED:
        return data_set
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        whole = stream.decompress(data_set, at_most + 1)
    except zlib.error:
        raise Refused("the deflated data set cannot be inflated", "deflated") from None
    if len(whole) > at_most:
        raise Refused("the deflated data set is too large", "deflated_too_large")
    return memoryview(whole)


def scan(elements: memoryview, transfer_syntax_uid: str) -> Header:
    """The header of an (inflated) data set. Raises Refused (C000) if it does not scan or an identifying UID is missing."""
    encoding = encoding_of(transfer_syntax_uid)
    raw: dict[int, tuple[str, bytes]] = {}
    pixels, equipment = None, b""
    pending: Element | None = None
    try:
        for element in Walker(elements, encoding).elements():
            if pending is not None:  # its end is known only now
                equipment, pending = bytes(elements[pending.start : element.start]), None
            if element.tag in PIXEL_DATA_TAGS:
                end = len(elements) if element.length == UNDEFINED else min(element.value + element.length, len(elements))
                pixels = (element.value, end)
                break
            if element.tag in _WANTED and element.length != UNDEFINED:
                raw[element.tag] = (element.vr, bytes(elements[element.value : element.value + element.length]))
            elif element.tag == CONTRIBUTING_EQUIPMENT:
                pending = element
    except Unscannable as error:
        raise Refused(f"the data set cannot be read: {error}", "unscannable") from None
    if pending is not None:
        equipment = bytes(elements[pending.start :])
    texts = _texts(raw, encoding)
    return Header(
        sop_class_uid=_uid(texts, "SOPClassUID"),
        sop_instance_uid=_uid(texts, "SOPInstanceUID"),
        study_instance_uid=_uid(texts, "StudyInstanceUID"),
        series_instance_uid=_uid(texts, "SeriesInstanceUID"),
        attributes={keyword: texts[keyword] for keyword in INDEXED_KEYWORDS if texts.get(keyword)},
        pixels=pixels,
        contributing_equipment=equipment,
        encoding=encoding,
    )


def _texts(raw: Mapping[int, tuple[str, bytes]], encoding: Encoding) -> dict[str, str]:
    character_set = raw.get(_CHARACTER_SET, ("CS", b""))[1].decode("ascii", "replace").strip(" \0")
    encodings = encodings_of(character_set)
    texts = {}
    for tag, (written_vr, value) in raw.items():
        keyword, dictionary_vr = _WANTED[tag]
        vr = dictionary_vr if written_vr in {"", "UN"} else written_vr
        texts[keyword] = as_text(vr, value, encodings, little_endian=encoding.little_endian)
    return texts


def _uid(texts: Mapping[str, str], keyword: str) -> str:
    uid = texts.get(keyword, "")
    if not uid:
        raise Refused(f"{keyword} is missing", "missing_uid")
    if len(uid) > _LONGEST_UID or not uid.isascii() or any(c in uid for c in " \\"):
        raise Refused(f"{keyword} is no UID", "bad_uid")
    return uid
