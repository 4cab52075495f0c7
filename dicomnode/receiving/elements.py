"""Walks the elements of an encoded data set as its bytes come, without decoding values (PS3.5 7.1, 7.5).

Pure: bytes in, wanted values out. Memory is bounded whatever comes: values that nobody wants are stepped over, not kept, and no
length is believed before its bytes were there. Time is bounded by the number of elements.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

UNDEFINED = 0xFFFFFFFF
MOST_VALUE_BYTES = 4096  # of a wanted value; the longest indexed VR, PN, has 3 × 64 characters (PS3.5 Table 6.2-1)
MOST_SEQUENCE_BYTES = 65_536  # of the one sequence that is kept
# Whole-slide images with 100,000 tiles and contours of 300 MB have two million; 16 MB of empty elements are as many.
MOST_ELEMENTS = 4_000_000
_DEEPEST = 32
_WINDOW = 16_384
# PS3.5 Table 7.1-2: these have a length of 16 bits; all others, those to come included, have 32 after two reserved bytes.
_SHORT_VRS = "AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US"
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_IN_ITEM, _EXPLICIT = 1, 2


class Unscannable(ValueError):
    """The bytes are no data set in this transfer syntax, or end inside an element."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written (PS3.5 10)."""

    explicit_vr: bool
    little_endian: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader keeps. values: tags whose values; sequence: tag of one kept as encoded; ends_at: tags at which it stops."""

    values: frozenset[int]
    sequence: int
    ends_at: frozenset[int]


class _Tables:
    """Tags and VRs as the integers as which one `unpack` reads them: no element needs arithmetic."""

    def __init__(self, encoding: Encoding, wanted: Wanted) -> None:
        order = "<" if encoding.little_endian else ">"
        self.unpack_short = struct.Struct(order + "LHH").unpack_from  # tag, VR, length
        self.unpack_long = struct.Struct(order + "LL").unpack_from  # tag, length; or a length of 32 bits behind 4 other bytes
        self._little = encoding.little_endian
        self.short_vrs = {self.vr(vr): vr for vr in _SHORT_VRS.split()}
        self.unknown_vr = self.vr("UN")
        self.vrs = {self.vr(f"{a}{b}"): f"{a}{b}" for a in _LETTERS for b in _LETTERS}
        self.item, self.item_end, self.sequence_end = map(self.tag, (_ITEM, _ITEM_END, _SEQUENCE_END))
        self.delimiter_mask, self.delimiter = (0xFFFF, 0xFFFE) if self._little else (0xFFFF0000, 0xFFFE0000)
        self.sequence = self.tag(wanted.sequence)
        self.ends_at = frozenset(map(self.tag, wanted.ends_at))
        self.explicit = encoding.explicit_vr
        self.values = frozenset(map(self.tag, wanted.values))
        self.tags = {self.tag(tag): tag for tag in (*wanted.values, *wanted.ends_at, wanted.sequence)}

    def tag(self, tag: int) -> int:
        return (tag & 0xFFFF) << 16 | tag >> 16 if self._little else tag

    def vr(self, vr: str) -> int:
        return int.from_bytes(vr.encode(), "little" if self._little else "big")


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_tables = lru_cache(maxsize=16)(_Tables)


class ElementReader:
    """Reads one data set in pieces of any size up to the first of `wanted.ends_at`.

    values: tag → VR ("" where the encoding does not say) and at most MOST_VALUE_BYTES + 1 bytes of the value. sequence: the
    encoded element, b"" without one or if it is longer than MOST_SEQUENCE_BYTES. end: once reached, where the value of the
    element at which reading stopped starts, and its length, None where undefined.
    """

    def __init__(self, encoding: Encoding, wanted: Wanted, *, most_elements: int = MOST_ELEMENTS) -> None:
        self.values: dict[int, tuple[str, bytes]] = {}
        self.sequence = b""
        self.end: tuple[int, int | None] | None = None
        self._tables = _tables(encoding, wanted)
        self._most_elements = most_elements
        self._budget = repeat(None, most_elements)
        self._open: list[int] = []  # sequences and items of undefined length that the position is in
        self._sequence_from: int | None = None
        self._read = 0  # bytes of the data set before `_carried`
        self._carried = bytearray()  # an element that is not whole yet
        self._need = 8  # bytes of it without which there is no going on
        self._skip = 0  # bytes of a value that nobody wants

    def feed(self, piece: memoryview) -> bool:
        """Read on; whether `end` is reached. Raises Unscannable."""
        at, size = 0, len(piece)
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                self._read += step
                at += step
                continue
            window = piece[at : at + max(_WINDOW, self._need - len(self._carried))]
            at += len(window)
            if self._carried:
                self._carried += window
                if len(self._carried) < self._need:
                    return False
                self._advance(bytes(self._carried))
            else:
                self._advance(bytes(window))
            if self.end is not None:
                return True
        return False

    def finish(self) -> None:
        """The data set ended without `end`. Raises Unscannable if it ended inside an element."""
        if self._carried:
            self._advance(bytes(self._carried))
        if self.end is not None:
            return
        if self._skip:
            raise Unscannable("an element is longer than it")
        if self._open or len(self._carried) >= 8 or any(self._carried):  # fewer zeros: padding to some block size
            raise Unscannable("it ends inside an element")

    def _advance(self, data: bytes) -> None:
        size = len(data)
        self._need = 8
        position = self._walk(data, size)
        self._skip = max(0, position - size)
        self._carried = bytearray(data[position:])
        self._read += min(position, size)

    def _walk(self, data: bytes, size: int) -> int:
        """The position behind the last element read; behind the data if that lies in the midst of a value."""
        position = 0
        while True:
            if not self._open:
                position = (self._explicit if self._tables.explicit else self._implicit)(data, position, size)
            if not self._open:
                return position
            position = self._nested(data, position, size)
            start, self._sequence_from = self._sequence_from, None
            if start is not None:
                if self._open and size - start <= MOST_SEQUENCE_BYTES:
                    self._open.clear()  # not whole yet: read again from its start when there is twice as much of it
                    self._need = 2 * (size - start)
                    return start
                whole = not self._open and position - start <= MOST_SEQUENCE_BYTES
                self.sequence = data[start:position] if whole else b""
            if self._open:
                return position

    def _explicit(self, data: bytes, position: int, size: int) -> int:
        """Steps over top-level elements, to the end of the data or into a sequence of undefined length."""
        tables, values = self._tables, self.values
        tags, short_vrs, unpack, last = tables.tags, tables.short_vrs, tables.unpack_short, size - 8
        for _ in self._budget:
            if position > last:
                return position
            tag, vr, length = unpack(data, position)
            if vr in short_vrs:
                end = position + 8 + length
                if tag in tags:
                    if end <= size and length <= MOST_VALUE_BYTES and tag in tables.values:
                        values[tags[tag]] = short_vrs[vr], data[position + 8 : end]  # as most of them, without a call
                    elif self._met(data, tag, vr, position, position + 8, length):
                        return position
                position = end
                continue
            value, length = self._long_head(data, position, tag, vr)
            if value > size or (tag in tags and self._met(data, tag, vr, position, value, length)):
                return position
            if length == UNDEFINED:
                # A value of unknown VR and undefined length is a sequence in Implicit VR (PS3.5 6.2.2 Note 2).
                self._open.append(0 if vr == tables.unknown_vr else _EXPLICIT)
                return value
            position = value + length
        raise self._too_many()

    def _implicit(self, data: bytes, position: int, size: int) -> int:
        """As `_explicit`, where no VRs are written."""
        tags, unpack, last = self._tables.tags, self._tables.unpack_long, size - 8
        for _ in self._budget:
            if position > last:
                return position
            tag, length = unpack(data, position)
            if tag in tags and self._met(data, tag, 0, position, position + 8, length):
                return position
            position += 8
            if length == UNDEFINED:
                self._open.append(0)
                return position
            position += length
        raise self._too_many()

    def _long_head(self, data: bytes, position: int, tag: int, vr: int) -> tuple[int, int]:
        """Start and length of a value whose length has 32 bits. A start behind the data: the length is not there yet."""
        tables = self._tables
        if tag & tables.delimiter_mask == tables.delimiter:
            return position + 8, tables.unpack_long(data, position)[1]
        if vr not in tables.vrs:
            raise Unscannable("an element has no VR")
        if position + 12 > len(data):
            self._need = 12
            return position + 12, 0
        return position + 12, tables.unpack_long(data, position + 4)[1]

    def _met(self, data: bytes, read_tag: int, vr: int, position: int, value: int, length: int) -> bool:
        """Keeps a wanted element; whether to stop: at the end, or because the value is not whole yet."""
        tables = self._tables
        tag = tables.tags[read_tag]
        if read_tag in tables.ends_at:
            self.end = self._read + value, None if length == UNDEFINED else length
            return True
        is_sequence = read_tag == tables.sequence
        if length == UNDEFINED:
            self._sequence_from = position if is_sequence else None
            return False
        if is_sequence and value - position + length > MOST_SEQUENCE_BYTES:
            self.sequence = b""
            return False
        kept = value + (length if is_sequence else min(length, MOST_VALUE_BYTES + 1))
        if kept > len(data):
            self._need = kept - position
            return True
        if is_sequence:
            self.sequence = data[position:kept]
        else:
            self.values[tag] = tables.vrs.get(vr, ""), data[value:kept]
        return False

    def _nested(self, data: bytes, position: int, size: int) -> int:
        """Steps through open sequences and items, until all are closed or the data end."""
        tables, open_, last = self._tables, self._open, size - 8
        for _ in self._budget:
            if position > last:
                return position
            place = open_[-1]
            tag, length = tables.unpack_long(data, position)
            value = position + 8
            if tag == (tables.item_end if place & _IN_ITEM else tables.sequence_end):
                open_.pop()
                position = value
                if not open_:
                    return position
                continue
            if place & _IN_ITEM:
                opens = place & _EXPLICIT
                if opens:
                    _, vr, short_length = tables.unpack_short(data, position)
                    if vr in tables.short_vrs and tag & tables.delimiter_mask != tables.delimiter:
                        position = value + short_length
                        continue
                    value, length = self._long_head(data, position, tag, vr)
                    if value > size:
                        return position
                    opens = 0 if vr == tables.unknown_vr else _EXPLICIT
            elif tag == tables.item:
                opens = place | _IN_ITEM
            else:
                raise Unscannable("a sequence holds something that is no item")
            if length != UNDEFINED:
                position = value + length
                continue
            if len(open_) > 2 * _DEEPEST:
                raise Unscannable("sequences are nested too deep")
            open_.append(opens)
            position = value
        raise self._too_many()

    def _too_many(self) -> Unscannable:
        return Unscannable(f"it has more than {self._most_elements} elements")
