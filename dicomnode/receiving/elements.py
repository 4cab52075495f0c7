"""Walks the elements of an encoded data set without decoding values (PS3.5 7.1, 7.5): where each stands, and nothing else.

Pure: bytes in, positions out. Every length is checked against what was received before it is believed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# PS3.5 Table 7.1-2: these have a length of 16 bits; all others, those to come included, have 32 after two reserved bytes.
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_DEEPEST = 32


class Unscannable(ValueError):
    """The bytes are no data set in this transfer syntax, or end inside an element."""


@dataclass(frozen=True, slots=True)
class Element:
    """Where one element stands. vr: "" where the encoding does not say. length: UNDEFINED, or that of the value in bytes."""

    tag: int
    vr: str
    start: int
    value: int
    length: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written (PS3.5 10)."""

    explicit_vr: bool
    little_endian: bool


class Walker:
    """Reads elements of one data set, `data`, one after the other."""

    def __init__(self, data: bytes | memoryview, encoding: Encoding) -> None:
        self._data = data
        self._explicit = encoding.explicit_vr
        order = "<" if encoding.little_endian else ">"
        self._tag_and_length = struct.Struct(order + "HHL")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "L")

    def elements(self, start: int = 0) -> Iterator[Element]:
        """Top-level elements from `start` to the end. Raises Unscannable.

        The caller may stop at any element; only for going on must the whole of it be there.
        """
        position, end = start, len(self._data)
        while position < end:
            if end - position < 8 and not any(self._data[position:end]):
                return  # padding to some block size
            element = self._element(position, explicit=self._explicit)
            yield element
            position = self._behind(element, explicit=self._explicit, depth=0)

    def _element(self, position: int, *, explicit: bool) -> Element:
        data = self._data
        if len(data) - position < 8:
            raise Unscannable("it ends inside an element")
        group, number, length = self._tag_and_length.unpack_from(data, position)
        tag = group << 16 | number
        if not explicit or group == 0xFFFE:
            return Element(tag, "", position, position + 8, length)
        vr = bytes(data[position + 4 : position + 6])
        if vr in _SHORT_VRS:
            return Element(tag, vr.decode(), position, position + 8, self._short.unpack_from(data, position + 6)[0])
        if not (vr.isalpha() and vr.isupper()):
            raise Unscannable("an element has no value representation")
        if len(data) - position < 12:
            raise Unscannable("it ends inside an element")
        return Element(tag, vr.decode(), position, position + 12, self._long.unpack_from(data, position + 8)[0])

    def _behind(self, element: Element, *, explicit: bool, depth: int) -> int:
        """The first position after the element."""
        if element.length == UNDEFINED:
            # A value of unknown VR and undefined length is a sequence in Implicit VR (PS3.5 6.2.2 Note 2).
            return self._behind_items(element.value, explicit=explicit and element.vr != "UN", depth=depth + 1)
        position = element.value + element.length
        if position > len(self._data):
            raise Unscannable("an element is longer than the data set")
        return position

    def _behind_items(self, position: int, *, explicit: bool, depth: int) -> int:
        if depth > _DEEPEST:
            raise Unscannable("sequences are nested too deep")
        while True:
            item = self._element(position, explicit=False)
            if item.tag == _SEQUENCE_END:
                return item.value
            if item.tag != _ITEM:
                raise Unscannable("a sequence holds something that is no item")
            if item.length != UNDEFINED:
                position = self._behind(item, explicit=False, depth=depth)
                continue
            position = item.value
            while (element := self._element(position, explicit=explicit)).tag != _ITEM_END:
                position = self._behind(element, explicit=explicit, depth=depth)
            position = element.value
