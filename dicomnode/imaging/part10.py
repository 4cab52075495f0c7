"""A Part 10 file's header without its pixels, and where the pixels begin; nothing in a file makes the reader take more memory
than the file is long (deflated ones: than MAX_INFLATED_BYTES)."""

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag

from dicomnode.imaging.plain_headers import read_plain

MAX_INFLATED_BYTES = 1 << 30  # a deflated object may be small and claim to be endless
_FLOAT_OR_INTEGER_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_META_GROUP, _TRANSFER_SYNTAX = 2, BaseTag(0x00020010)
_NATIVE_SYNTAXES = {
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
}


class NotDicom(ValueError):
    """Not a DICOM file; the text is a reason in words."""


class UnreadableDicom(ValueError):
    """A DICOM file whose data set cannot be read; the text is a reason in words, without patient data."""


@dataclass(frozen=True, slots=True, eq=False)
class Part10Header:
    """File meta and data set up to the pixel data.

    pixel_element_offset: where the PixelData element begins in the (inflated) file; None where there is none.
    """

    meta: Dataset
    data_set: Dataset
    transfer_syntax_uid: str
    pixel_element_offset: int | None
    bytes_held: int = 0  # from there to the end of the (inflated) file


class _BoundedReader(io.BufferedReader):
    """Never reads past the end: `read(length)` of CPython allocates a lying length before it finds out."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 1 << 16:
            position = self.tell()
            end = self.seek(0, io.SEEK_END)
            self.seek(position)
            size = min(size, max(end - position, 0))
        return super().read(size)


def read_header(path: Path) -> Part10Header:
    """The header of the file at `path`. Raises NotDicom, UnreadableDicom or OSError."""
    with warnings.catch_warnings(), _open(path) as stream:
        warnings.simplefilter("ignore")  # pydicom's warnings quote values, which may be patient data
        try:
            meta, syntax = _read_meta(stream)
            if syntax == uid.DeflatedExplicitVRLittleEndian:
                stream = _inflate(stream)  # noqa: PLW2901
            data_set = _read_data_set(stream, syntax)
            offset = stream.tell()
            held = stream.seek(0, io.SEEK_END) - offset
            return Part10Header(meta, data_set, syntax, offset if held > 0 else None, held)
        except (NotDicom, UnreadableDicom, OSError):
            raise
        except Exception as error:
            # pydicom raises whatever its parsing runs into: RecursionError for nested sequences, struct.error, KeyError …
            raise UnreadableDicom(f"the data set cannot be parsed ({type(error).__name__})") from error


def _read_data_set(stream: BinaryIO, syntax: str) -> Dataset:
    """From the stream's position up to the pixel data, where the stream stands then."""
    start = stream.tell()
    is_implicit, is_little = syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
    if is_little and not is_implicit:
        plain = read_plain(stream, start, ends_at=_FLOAT_OR_INTEGER_PIXELS)
        if plain is not None:
            return plain
        stream.seek(start)
    return read_dataset(stream, is_implicit, is_little, stop_when=_at_pixel_data)


@contextmanager
def open_from(path: Path, transfer_syntax_uid: str, offset: int) -> Iterator[BinaryIO]:
    """The (inflated) bytes of the file at `path`, positioned at `offset`."""
    with _open(path) as stream:
        if transfer_syntax_uid == uid.DeflatedExplicitVRLittleEndian:
            _read_meta(stream)
            stream = _inflate(stream)  # noqa: PLW2901
        stream.seek(offset)
        yield stream


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with _BoundedReader(io.FileIO(path)) as stream:
        yield stream


def _read_meta(stream: BinaryIO) -> tuple[Dataset, str]:
    try:
        read_preamble(stream, force=False)
    except InvalidDicomError:
        raise NotDicom("not a DICOM file (no DICM prefix)") from None
    start = stream.tell()
    meta = read_plain(stream, start, end_group=_META_GROUP)
    if meta is None:
        stream.seek(start)
        meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_meta)
    syntax = _transfer_syntax(meta)
    if not syntax:
        raise UnreadableDicom("the file meta information has no Transfer Syntax UID (0002,0010)")
    return meta, syntax


def _transfer_syntax(meta: Dataset) -> str:
    element = meta.get_item(_TRANSFER_SYNTAX) if _TRANSFER_SYNTAX in meta else None
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes) and element.value.isascii():
        return element.value.decode("ascii").strip("\0 ")
    return str(meta.get("TransferSyntaxUID", "")).strip("\0 ")


def _inflate(stream: BinaryIO) -> BinaryIO:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(stream.read(), MAX_INFLATED_BYTES)
    except zlib.error:
        raise UnreadableDicom("the deflated data set cannot be inflated") from None
    if inflater.unconsumed_tail:
        raise UnreadableDicom(f"the deflated data set is larger than {MAX_INFLATED_BYTES} bytes")
    return io.BytesIO(inflated)


def _after_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != _META_GROUP


def _at_pixel_data(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return (
        int(tag) in _FLOAT_OR_INTEGER_PIXELS
    )  # as a plain number: a tag compares itself in Python, for each element of each file


def is_encapsulated(transfer_syntax_uid: str) -> bool:
    """Whether pixel data come in items and fragments (PS3.5 A.4); true for a syntax that nobody here knows."""
    return transfer_syntax_uid not in _NATIVE_SYNTAXES
