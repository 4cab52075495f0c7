"""An instance's pixel data → stored values: frames as integer arrays with the header's sign and bits, or CorruptPixels.

What a file says is checked against what it holds before anything is allocated: 65535 × 65535 pixels in 900 bytes end here.
"""

import struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from dicomnode.imaging.codecs import DECODER_DEPENDENCIES, decode_frame
from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.encapsulation import frames_of
from dicomnode.imaging.headers import Instance, PixelLayout
from dicomnode.imaging.part10 import UnreadableDicom, is_encapsulated, open_from

MAXIMUM_FRAME_PIXELS = 1 << 26  # 8192 × 8192; the largest radiographs have about half of it
_PIXEL_DATA = (0x7FE0, 0x0010)
_UNDEFINED_LENGTH = 0xFFFFFFFF

type_stored = NDArray[np.integer[Any]]


def is_decodable(layout: PixelLayout) -> bool:
    """Whether the transfer syntax is native or one that a codec here reads, and the pixels are of whole bytes."""
    known = not is_encapsulated(layout.transfer_syntax_uid) or layout.transfer_syntax_uid in DECODER_DEPENDENCIES
    return known and layout.frame_format.bits_allocated in (8, 16, 32)


def demand_plausible(instance: Instance) -> None:
    """Raises CorruptPixels where the header promises what the file cannot hold or nobody would believe."""
    layout = instance.layout
    if layout is None:
        return
    frame_format, size = layout.frame_format, layout.frame_format.size_bytes * layout.number_of_frames
    if frame_format.rows * frame_format.columns > MAXIMUM_FRAME_PIXELS:
        raise CorruptPixels(f"{frame_format.rows} x {frame_format.columns} pixels a frame are more than is believed")
    if not is_encapsulated(layout.transfer_syntax_uid) and size > layout.bytes_held:
        raise CorruptPixels(f"the header promises {size} bytes of pixel data, the file holds fewer than {layout.bytes_held}")


def encoded_frames(instance: Instance) -> list[bytes]:
    """The bytes of each frame as they stand in the file: one read of the file.

    Raises CorruptPixels where the file holds less than its header promises, or so much more that the header must be wrong.
    """
    layout = instance.layout
    if layout is None:
        raise CorruptPixels("no pixel data")
    demand_plausible(instance)
    try:
        with open_from(instance.path, layout.transfer_syntax_uid, layout.element_offset) as stream:
            vr, length = _read_element_header(stream, layout.transfer_syntax_uid)
            if is_encapsulated(layout.transfer_syntax_uid):
                if length != _UNDEFINED_LENGTH:
                    raise CorruptPixels("a compressed transfer syntax, but the pixel data are not encapsulated")
                return frames_of(stream.read(), layout.number_of_frames, layout.extended_offsets)
            return _native_frames(stream, vr, length, layout)
    except (UnreadableDicom, struct.error) as error:
        raise CorruptPixels("the pixel data cannot be reached") from error


def decode_stored(encoded: bytes, layout: PixelLayout) -> type_stored:
    """Stored values of one monochrome frame, (rows, columns), sign and unused bits put right (PS3.5 8.1.1)."""
    frame_format = layout.frame_format
    if is_encapsulated(layout.transfer_syntax_uid):
        array: NDArray[Any] = decode_frame(encoded, layout.transfer_syntax_uid, frame_format)
    else:
        order = ">" if layout.transfer_syntax_uid == uid.ExplicitVRBigEndian else "<"
        array = np.frombuffer(encoded, f"{order}u{frame_format.bits_allocated // 8}")
        array = array.astype(array.dtype.newbyteorder("="), copy=False).reshape(frame_format.rows, frame_format.columns)
    return _with_sign(array, frame_format.bits_stored, layout.high_bit, frame_format.signed)


def _with_sign(array: NDArray[Any], bits_stored: int, high_bit: int, signed: bool) -> type_stored:
    bits = 8 * array.dtype.itemsize
    values: type_stored = array.view(f"u{array.dtype.itemsize}")
    below = high_bit + 1 - bits_stored
    if 0 < below <= bits - bits_stored:
        values = values >> below
    spare = bits - bits_stored
    if spare <= 0:
        return values.view(f"i{array.dtype.itemsize}") if signed else values
    if signed:
        shifted: type_stored = (values << spare).view(f"i{array.dtype.itemsize}")
        return shifted >> spare
    # Overlays of old files live in the bits above; mostly there is nothing, and to look is half as dear as to take it out.
    highest = (1 << bits_stored) - 1
    return values if int(values.max()) <= highest else values & values.dtype.type(highest)


def _read_element_header(stream: BinaryIO, transfer_syntax_uid: str) -> tuple[str, int]:
    """VR ("" when implicit) and length of the PixelData element at the stream's position (PS3.5 7.1)."""
    order = ">" if transfer_syntax_uid == uid.ExplicitVRBigEndian else "<"
    if struct.unpack(f"{order}HH", stream.read(4)) != _PIXEL_DATA:
        raise CorruptPixels("the pixel data are not integers (float pixel data)")
    if transfer_syntax_uid == uid.ImplicitVRLittleEndian:
        (length,) = struct.unpack("<I", stream.read(4))
        return "", length
    vr, _, length = struct.unpack(f"{order}2sHI", stream.read(8))
    return vr.decode("ascii", "replace"), length


def _native_frames(stream: BinaryIO, vr: str, length: int, layout: PixelLayout) -> list[bytes]:
    frame_format, size = layout.frame_format, layout.frame_format.size_bytes
    promised = size * layout.number_of_frames
    position = stream.tell()
    held = stream.seek(0, 2) - position
    if length == _UNDEFINED_LENGTH:
        raise CorruptPixels("an uncompressed transfer syntax, but the pixel data are encapsulated")
    if min(length, held) < promised:
        raise CorruptPixels(f"the header promises {promised} bytes of pixel data, the file holds {min(length, held)}")
    # Some writers pad to 4 bytes or more; a row too many means that Rows is wrong.
    if length - promised >= max(2, promised // frame_format.rows // layout.number_of_frames):
        raise CorruptPixels(f"the header promises {promised} bytes of pixel data, the element holds {length}")
    stream.seek(position)
    value = stream.read(promised + promised % 2)
    if vr == "OW" and frame_format.bits_allocated == 8 and layout.transfer_syntax_uid == uid.ExplicitVRBigEndian:
        value = np.frombuffer(value, ">u2").astype("<u2").tobytes()  # PS3.5 8.1.2: bytes go in pairs
    return [value[index * size : (index + 1) * size] for index in range(layout.number_of_frames)]
