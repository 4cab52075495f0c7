"""The header of a Part 10 file in Explicit VR Little Endian, walked in one piece of memory: what pydicom's reader gives, in a
fifth of its time. Anything out of the ordinary (a VR that nobody knows, an end within an element) is left to pydicom.
"""

import struct
from typing import BinaryIO

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

_AT_ONCE = 1 << 14  # headers of slices are some kilobytes
_UNDEFINED = 0xFFFFFFFF
_SHORT = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_16}
_LONG = {str(vr).encode(): str(vr) for vr in EXPLICIT_VR_LENGTH_32}
# b"" for text, None for numbers; raw values are never anything else.
_EMPTY = {vr: b"" if empty_value_for_VR(vr, raw=True) == b"" else None for vr in (*_SHORT.values(), *_LONG.values())}
_CHARACTER_SET = 0x00080005
_DELIMITERS = 0xFFFE
_read_short = struct.Struct("<HH2sH").unpack_from
_read_long = struct.Struct("<L").unpack_from

_KNOWN: dict[int, BaseTag] = {}
_MOST_KNOWN = 4096  # headers of a hospital have some hundred tags; hostile ones may have any number

type_element = RawDataElement | DataElement


def known_tag(tag: int) -> BaseTag:
    """The same object each time: a dictionary then finds it without asking pydicom whether two tags are equal, in Python."""
    made = _KNOWN.get(tag)
    if made is None:
        made = BaseTag(tag)
        if len(_KNOWN) < _MOST_KNOWN:
            _KNOWN[tag] = made
    return made


class _NotPlain(Exception):
    """For pydicom to read, and to say what is wrong if anything is."""


def read_plain(
    stream: BinaryIO, start: int, *, ends_at: frozenset[int] = frozenset(), end_group: int | None = None
) -> Dataset | None:
    """Elements from `start` up to a tag of `ends_at`, or behind the last one of `end_group`; None for what is not plain.

    The stream stands then where the element begins at which reading ended, or at the end of the file.
    """
    try:
        elements, stop = _Walk(stream, start).read(ends_at, end_group)
    except (_NotPlain, struct.error):
        return None
    stream.seek(stop)
    data_set = Dataset(elements)
    data_set.set_original_encoding(False, True, _encoding(elements))
    return data_set


def _encoding(elements: dict[BaseTag, type_element]) -> str | list[str]:
    found = elements.get(BaseTag(_CHARACTER_SET))
    if not isinstance(found, RawDataElement):
        return default_encoding
    return list(convert_encodings(convert_raw_data_element(found).value))


class _Walk:
    """A window on the stream, from `start` on; it moves with the elements: no more is held than one of them and a bit."""

    def __init__(self, stream: BinaryIO, start: int) -> None:
        self._stream, self._start = stream, start
        stream.seek(start)
        self._held = stream.read(_AT_ONCE)

    def read(self, ends_at: frozenset[int], end_group: int | None) -> tuple[dict[BaseTag, type_element], int]:
        """Elements by tag, and where in the file reading ended. Raises _NotPlain."""
        found: dict[BaseTag, type_element] = {}
        at, held = 0, self._held
        while True:
            if at + 12 > len(held):
                held, at = self._from(at, 12), 0
                if not held:
                    return found, self._start
                if len(held) < 8:
                    raise _NotPlain
            group, element, vr, length = _read_short(held, at)
            tag = group << 16 | element
            if tag in ends_at or (end_group is not None and group != end_group):
                return found, self._start + at
            if group == _DELIMITERS:
                raise _NotPlain
            begin = at + 8
            name = _SHORT.get(vr)
            if name is None:
                name = _LONG.get(vr)
                if name is None or at + 12 > len(held):
                    raise _NotPlain
                (length,) = _read_long(held, begin)
                begin += 4
            if length == _UNDEFINED:
                key, sequence, at = self._sequence(tag, name, begin, found)
                found[key] = sequence
                held = self._held
                continue
            at = begin + length
            if at > len(held):
                held, begin, at = self._from(begin, length), 0, length
                if at > len(held):
                    raise _NotPlain
            value = held[begin:at] if length else _EMPTY[name]
            key = _KNOWN.get(tag) or known_tag(tag)
            found[key] = RawDataElement(key, name, length, value, self._start + begin, False, True)

    def _from(self, at: int, wanted: int) -> bytes:
        """The window moved to `at`, more than it held of it: `wanted` bytes at least, or all that is left of the file."""
        kept = self._held[at:]
        self._start += at
        self._held = kept + self._stream.read(max(_AT_ONCE, wanted - len(kept)))
        return self._held

    def _sequence(self, tag: int, vr: str, begin: int, found: dict[BaseTag, type_element]) -> tuple[BaseTag, DataElement, int]:
        """A sequence of undefined length, by pydicom, and where it ends; the window begins anew there."""
        if vr != "SQ":
            raise _NotPlain
        value_at = self._start + begin
        self._stream.seek(value_at)
        sequence = read_sequence(self._stream, False, True, _UNDEFINED, _encoding(found))
        behind = self._stream.tell()
        if behind > self._start + len(self._held):
            self._start, self._held = behind, b""
        self._stream.seek(self._start + len(self._held))
        key = known_tag(tag)
        return key, DataElement(key, vr, sequence, value_at, is_undefined_length=True), behind - self._start
