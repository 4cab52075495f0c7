"""The files of `bench decode`: one synthetic chest CT, the same pixels in every transfer syntax."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from struct import pack
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate

from dicomnode.phantom import ThoraxSpec, thorax, write_study

Slice = NDArray[np.uint16]  # (rows, columns), 12 bits stored


def uncompressed(folder: Path, images: int, size: int) -> list[Path]:
    """`images` slices of `size` × `size` in Explicit VR Little Endian."""
    return write_study(thorax(ThoraxSpec(seed=12, slices=images, size=size, slice_spacing_mm=250 / images)), folder)


def in_syntax(paths: Sequence[Path], transfer_syntax_uid: str, folder: Path) -> list[Path]:
    """The same slices in another syntax."""
    folder.mkdir()

    def one(path: Path) -> Path:
        data_set = pydicom.dcmread(path)
        stored = np.frombuffer(data_set.PixelData, "<u2").reshape(data_set.Rows, data_set.Columns)
        frame = _ENCODERS[transfer_syntax_uid](stored)
        data_set.file_meta.TransferSyntaxUID = uid.UID(transfer_syntax_uid)
        data_set.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
        data_set["PixelData"].VR = "OB"
        data_set.save_as(folder / path.name, enforce_file_format=True)
        return folder / path.name

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, paths))


def _rle(stored: Slice) -> bytes:
    """PS3.5 annex G: a header of 64 bytes, the high bytes, the low bytes; rows are coded one by one (G.3.1)."""
    planes = stored.astype(">u2").view(np.uint8).reshape(*stored.shape, 2)
    segments = []
    for index in range(2):
        segment = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in planes[..., index])
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = [first for first, _ in pairwise(_running(64, segments))]
    return pack("<I15I", len(segments), *offsets, *[0] * (15 - len(offsets))) + b"".join(segments)


def _running(start: int, segments: Sequence[bytes]) -> Iterator[int]:
    yield start
    for segment in segments:
        start += len(segment)
        yield start


_ENCODERS: dict[str, Callable[[Slice], Any]] = {
    uid.RLELossless: _rle,
    uid.JPEG2000Lossless: lambda stored: imagecodecs.jpeg2k_encode(
        stored, codecformat="j2k", reversible=True, bitspersample=12
    ),
    uid.HTJ2KLossless: lambda stored: imagecodecs.htj2k_encode(stored, reversible=True),
    uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    uid.JPEGLosslessSV1: lambda stored: imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=12),
    uid.JPEGExtended12Bit: lambda stored: imagecodecs.jpeg8_encode(stored, level=95, bitspersample=12),
}
