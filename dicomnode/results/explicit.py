"""Explicit VR Little Endian (PS3.5 7.1.2, 7.5), for what repeats a thousand times in one object.

A data set of pydicom costs as much as writing it; items that differ in a UID and a few numbers are put together from bytes.
"""

import struct
from collections.abc import Iterable

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

SEQUENCE = "SQ"
_ITEM = (0xFFFE, 0xE000)


def element(tag: int, vr: str, value: bytes) -> bytes:
    """An element of a VR with a length of 16 bits; the value has an even length."""
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def uid(tag: int, value: str) -> bytes:
    """An element of UI."""
    return element(tag, "UI", value.encode() + b"\0" * (len(value) % 2))


def sequence(tag: int, *contents: bytes) -> bytes:
    """A sequence of items with these contents."""
    value = items(contents)
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, SEQUENCE.encode(), 0, len(value)) + value


def items(contents: Iterable[bytes]) -> bytes:
    """The value of a sequence: each content as an item of explicit length."""
    return b"".join(struct.pack("<HHL", *_ITEM, len(content)) + content for content in contents)


def encoded(dataset: Dataset, *keywords: str) -> bytes:
    """These elements of a data set, in the order of their tags."""
    part = Dataset()
    for keyword in keywords:
        part.add(dataset[keyword])
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, part)
    return bytes(buffer.getvalue())


def put_sequence(dataset: Dataset, keyword: str, contents: Iterable[bytes]) -> None:
    """Puts a sequence into a data set as bytes: parsed when somebody looks at it, written as it is (`write_as_it_is`)."""
    value, tag = items(contents), Tag(keyword)
    dataset[tag] = RawDataElement(tag, SEQUENCE, len(value), value, 0, False, True)


def write_as_it_is(dataset: Dataset) -> None:
    """Lets pydicom write a built data set's raw elements without parsing them; no element may have an ambiguous VR.

    pydicom converts those whose character set or encoding it does not know as the data set's own.
    """
    names = dataset.get("SpecificCharacterSet")
    dataset.set_original_encoding(False, True, convert_encodings(names) if names else default_encoding)
