"""Encapsulated pixel data (PS3.5 A.4): which bytes belong to which frame, and nothing beyond what is there."""

import struct
from collections.abc import Sequence

from dicomnode.imaging.codestreams import CorruptPixels

_ITEM = 0xFFFEE000
_SEQUENCE_DELIMITATION = 0xFFFEE0DD

type_span = tuple[int, int]  # start and stop within the value


def frames_of(value: bytes, number_of_frames: int, extended_offsets: tuple[bytes, bytes] | None = None) -> list[bytes]:
    """The encoded bytes of each frame of an encapsulated PixelData value (from its Basic Offset Table on).

    `extended_offsets`: values of Extended Offset Table (7FE0,0001) and its lengths (7FE0,0002), where present.
    Raises CorruptPixels if an item ends beyond the data, the sequence is not closed, or the fragments cannot be told apart.
    """
    table, *fragments = _items(value)
    if not fragments:
        raise CorruptPixels("the encapsulated pixel data hold no fragment")
    groups = (
        _by_extended_table(fragments, number_of_frames, extended_offsets)
        or _by_counting(fragments, number_of_frames)
        or _by_basic_table(value[slice(*table)], fragments, number_of_frames)
        or _by_end_markers(value, fragments, number_of_frames)
    )
    if groups is None:
        raise CorruptPixels(f"{len(fragments)} fragments cannot be assigned to {number_of_frames} frames")
    return [b"".join(value[start:stop] for start, stop in group) for group in groups]


def _items(value: bytes) -> list[type_span]:
    spans: list[type_span] = []
    position = 0
    while True:
        if position + 8 > len(value):
            raise CorruptPixels("the encapsulated pixel data end before their sequence delimiter")
        group, element, length = struct.unpack_from("<HHI", value, position)
        position += 8
        tag = group << 16 | element
        if tag == _SEQUENCE_DELIMITATION:
            if not spans:
                raise CorruptPixels("the encapsulated pixel data hold no item")
            return spans
        if tag != _ITEM:
            raise CorruptPixels(f"an unexpected tag ({group:04X},{element:04X}) among the fragments")
        if position + length > len(value):
            raise CorruptPixels("a fragment ends beyond the end of the file")
        spans.append((position, position + length))
        position += length


def _by_extended_table(
    fragments: Sequence[type_span], number_of_frames: int, extended_offsets: tuple[bytes, bytes] | None
) -> list[list[type_span]] | None:
    """One fragment a frame, cut to the length without padding (PS3.3 C.7.6.3.1.8)."""
    if extended_offsets is None or len(fragments) != number_of_frames:
        return None
    offsets, lengths = (struct.unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8]) for table in extended_offsets)
    first_item = fragments[0][0] - 8
    if list(offsets) != [start - 8 - first_item for start, _ in fragments] or len(lengths) != len(fragments):
        return None
    if any(length > stop - start for (start, stop), length in zip(fragments, lengths, strict=True)):
        return None
    return [[(start, start + length)] for (start, _), length in zip(fragments, lengths, strict=True)]


def _by_counting(fragments: Sequence[type_span], number_of_frames: int) -> list[list[type_span]] | None:
    if number_of_frames == 1:
        return [list(fragments)]
    if len(fragments) == number_of_frames:
        return [[span] for span in fragments]
    return None


def _by_basic_table(table: bytes, fragments: Sequence[type_span], number_of_frames: int) -> list[list[type_span]] | None:
    if len(table) != 4 * number_of_frames:
        return None
    first_item = fragments[0][0] - 8
    starts = {start - 8 - first_item: index for index, (start, _) in enumerate(fragments)}
    offsets = struct.unpack(f"<{number_of_frames}I", table)
    if offsets[0] != 0 or any(offset not in starts for offset in offsets) or list(offsets) != sorted(set(offsets)):
        return None
    firsts = [starts[offset] for offset in offsets]
    return [list(fragments[first:last]) for first, last in zip(firsts, [*firsts[1:], len(fragments)], strict=True)]


def _by_end_markers(value: bytes, fragments: Sequence[type_span], number_of_frames: int) -> list[list[type_span]] | None:
    """Without a table a frame's last fragment is the one that ends in an end marker (JPEG, JPEG-LS, JPEG 2000)."""
    groups: list[list[type_span]] = [[]]
    for start, stop in fragments:
        groups[-1].append((start, stop))
        if value[max(start, stop - 16) : stop].rstrip(b"\x00").endswith(b"\xff\xd9"):
            groups.append([])
    complete = groups[:-1] if not groups[-1] else groups
    return complete if len(complete) == number_of_frames else None
