"""Digests of the pixel value of stored data sets: streamed, never decoded (receiving knows no codecs), in bounded memory."""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dicomnode.receiving.header import DEFLATED, Header, HeaderReader, Inflater
from dicomnode.storage import data_set_offset

_READ_AT_ONCE = 1 << 20
_UNBOUNDED = 1 << 62  # what is stored was inflated under its bound when it came
_ITEM = b"\xfe\xff\x00\xe0"


def stored_header(path: Path, transfer_syntax_uid: str) -> Header:
    """The header of a stored Part 10 file. Raises Refused, CorruptInstance or OSError."""
    reader = HeaderReader(transfer_syntax_uid, at_most_inflated=_UNBOUNDED)
    with path.open("rb") as file:
        file.seek(data_set_offset(path))
        for piece in _pieces(file):
            header = reader.feed([memoryview(piece)])
            if header is not None:
                return header
    return reader.finish()


def pixel_digest(path: Path, header: Header, transfer_syntax_uid: str) -> str:
    """SHA-256 of the pixel value of the stored Part 10 file with this header, "" without pixels. Raises as `stored_header`.

    Of an encapsulated value (PS3.5 A.4) only the fragments count, one after the other: the offset table, and how a code stream
    is cut into fragments, are matters of transport.
    """
    if header.pixels is None:
        return ""
    start, length = header.pixels
    offset = data_set_offset(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        value: Iterator[bytes | memoryview]
        if transfer_syntax_uid in DEFLATED:
            file.seek(offset)
            value = _cut(_inflated(file), start, length)
        elif length is None:
            file.seek(offset + start)
            value = _fragments(file)
        else:
            file.seek(offset + start)
            value = _pieces(file, length)
        for piece in value:
            digest.update(piece)
    return digest.hexdigest()


def _pieces(file: BinaryIO, at_most: int = _UNBOUNDED) -> Iterator[bytes]:
    while at_most > 0 and (piece := file.read(min(_READ_AT_ONCE, at_most))):
        at_most -= len(piece)
        yield piece


def _inflated(file: BinaryIO) -> Iterator[memoryview]:
    inflater = Inflater(_UNBOUNDED)
    for piece in _pieces(file):
        yield from inflater.feed(memoryview(piece))


def _cut(pieces: Iterator[memoryview], start: int, length: int | None) -> Iterator[memoryview]:
    """The value that starts at `start` of what the pieces make together."""
    end = _UNBOUNDED if length is None else start + length
    at = 0
    for piece in pieces:
        yield piece[max(0, start - at) : max(0, end - at)]
        at += len(piece)


def _fragments(file: BinaryIO) -> Iterator[bytes]:
    """All items of the sequence of fragments but the first, the Basic Offset Table; to the file's end if they end early.

    Encapsulated transfer syntaxes are all Explicit VR Little Endian (PS3.5 A.4).
    """
    is_offset_table = True
    while (head := file.read(8))[:4] == _ITEM and len(head) == 8:
        (length,) = struct.unpack("<L", head[4:])
        for piece in _pieces(file, length):
            if not is_offset_table:
                yield piece
        is_offset_table = False
