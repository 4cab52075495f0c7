"""The same SOP Instance UID with other content: what differs, and what that means (DESIGN section 5).

Judged rarely, so both files are read again: the pixels as digests of their encoded value, the headers by pydicom.
"""

from collections.abc import Iterable
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicomnode.receiving.header import Header
from dicomnode.receiving.pixels import pixel_digest, stored_header
from dicomnode.registry import ConflictKind

# pydicom takes many times the header's size in memory; no image's header is nearly as long.
_MOST_COMPARED_BYTES = 32 << 20

# How an object travelled, was signed or (Derivation Description and Code Sequence) compressed; nothing of what it says.
_TRANSPORT_TAGS = frozenset(
    {0x00080005, 0x00080012, 0x00080013, 0x00080014, 0x00080054, 0x00080056, 0x00082111, 0x00089215, 0xFFFCFFFC}
)
_TRANSPORT_GROUPS = frozenset({0x0002, 0x0400, 0xFFFA})  # file meta, Original Attributes and MACs, Digital Signatures
# What makes stored values into a picture in space. Window, level and the marks of lossy compression do not belong to it.
_PRESENTATION_TAGS = frozenset({0x00281050, 0x00281051, 0x00281055, 0x00281056, 0x00282110, 0x00282112, 0x00282114, 0x00280301})
_GEOMETRY_GROUPS = frozenset({0x0028, 0x0054, 0x5200})
_GEOMETRY_TAGS = frozenset(
    {
        *(0x00080016, 0x0020000D, 0x0020000E),  # another class, study or series
        *(0x00180050, 0x00180088, 0x00181120, 0x00181164, 0x00185100),  # thickness, spacing, tilt, patient position
        *(0x00200020, 0x00200032, 0x00200037, 0x00200052, 0x00200060, 0x00200062, 0x00201041),  # orientation, laterality
    }
)
_NATIVE_LITTLE_ENDIAN = frozenset(map(str, (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)))
_LOSSLESS = _NATIVE_LITTLE_ENDIAN | {
    str(ExplicitVRBigEndian),
    str(RLELossless),
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame
    *(f"1.2.840.10008.1.2.4.{n}" for n in (57, 70, 80, 90, 92, 110, 201, 202)),
}


def judge(stored: Path, received: Path, *, syntaxes: tuple[str, str]) -> ConflictKind | None:
    """What the new file contradicts in the stored one; None if only transport or private elements differ.

    syntaxes: transfer syntaxes of the two. What cannot be compared is not called the same: it is PIXELS.
    """
    try:
        headers = stored_header(stored, syntaxes[0]), stored_header(received, syntaxes[1])
        if not _may_be_the_same_pixels(*syntaxes):
            digests = pixel_digest(stored, headers[0], syntaxes[0]), pixel_digest(received, headers[1], syntaxes[1])
            if digests[0] != digests[1]:
                return ConflictKind.PIXELS
        if max(_bytes_before_pixels(stored, headers[0]), _bytes_before_pixels(received, headers[1])) > _MOST_COMPARED_BYTES:
            return ConflictKind.PIXELS
        tags = differing_tags(dcmread(stored, stop_before_pixels=True), dcmread(received, stop_before_pixels=True))
    except Exception:  # noqa: BLE001 - a damaged file makes pydicom raise many kinds
        return ConflictKind.PIXELS
    return kind_of(tags)


def _bytes_before_pixels(path: Path, header: Header) -> int:
    return header.pixels[0] if header.pixels else path.stat().st_size


def _may_be_the_same_pixels(first: str, second: str) -> bool:
    """Two lossless encodings of one image have different digests; that the headers agree must then do."""
    return first != second and not {first, second} <= _NATIVE_LITTLE_ENDIAN and {first, second} <= _LOSSLESS


def differing_tags(first: Dataset, second: Dataset) -> frozenset[int]:
    """Tags of top-level elements, private ones left out, that one lacks or whose values differ."""
    tags = {int(tag) for tag in (*first.keys(), *second.keys()) if not tag.is_private}
    return frozenset(tag for tag in tags if tag not in first or tag not in second or first[tag].value != second[tag].value)


def kind_of(tags: Iterable[int]) -> ConflictKind | None:
    """The gravest meaning of these differences."""
    told = [
        tag for tag in tags if tag & 0xFFFF and tag not in _TRANSPORT_TAGS and tag >> 16 not in _TRANSPORT_GROUPS
    ]  # element 0000 is a group length
    if any(_is_geometry(tag) for tag in told):
        return ConflictKind.GEOMETRY
    return ConflictKind.HEADER if told else None


def _is_geometry(tag: int) -> bool:
    group = tag >> 16
    if tag in _PRESENTATION_TAGS:
        return False
    return tag in _GEOMETRY_TAGS or group in _GEOMETRY_GROUPS or (group == 0x0020 and tag & 0xF000 == 0x9000)
