"""What a compressed frame says about itself, read from its first marker segments, before any decoder allocates anything."""

import struct
from dataclasses import dataclass

_JPEG_START_OF_IMAGE = b"\xff\xd8"
_J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ (ISO/IEC 15444-1 A.4, A.5.1)
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_END_OF_CODESTREAM = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000

_NOT_FRAME_HEADERS = {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC lie between the SOF markers
_JPEG_LS_FRAME_HEADER = 0xF7  # SOF55, ISO/IEC 14495-1 C.1.1


class CorruptPixels(ValueError):
    """The encoded pixel data contradict the header or themselves. The text holds no patient data."""


@dataclass(frozen=True, slots=True)
class CodestreamHeader:
    """Size and precision that a JPEG, JPEG-LS or JPEG 2000 codestream declares."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False


def read_codestream_header(codestream: bytes) -> CodestreamHeader:
    """Size and precision of a JPEG, JPEG-LS or (HT)J2K codestream. Raises CorruptPixels when there is none."""
    try:
        if codestream.startswith(_JPEG_START_OF_IMAGE):
            return _read_jpeg_frame_header(codestream)
        if codestream.startswith(_J2K_START):
            return _read_j2k_size(codestream)
    except (struct.error, IndexError):
        raise CorruptPixels("a compressed frame ends inside its own header") from None
    raise CorruptPixels("a compressed frame does not begin as a JPEG, JPEG-LS or JPEG 2000 codestream")


def _read_jpeg_frame_header(codestream: bytes) -> CodestreamHeader:
    position = 2
    while True:
        if codestream[position] != 0xFF:
            raise CorruptPixels("a JPEG frame has no frame header")
        marker = codestream[position + 1]
        if marker == 0xFF:  # fill byte, ITU-T T.81 B.1.1.2
            position += 1
            continue
        (length,) = struct.unpack_from(">H", codestream, position + 2)
        if (0xC0 <= marker <= 0xCF and marker not in _NOT_FRAME_HEADERS) or marker == _JPEG_LS_FRAME_HEADER:
            precision, rows, columns, components = struct.unpack_from(">BHHB", codestream, position + 4)
            return CodestreamHeader(rows, columns, components, precision)
        position += 2 + length


def _read_j2k_size(codestream: bytes) -> CodestreamHeader:
    x_size, y_size, x_offset, y_offset = struct.unpack_from(">4I", codestream, 8)
    (components,) = struct.unpack_from(">H", codestream, 40)
    precisions = {codestream[42 + 3 * index] for index in range(components)}
    if len(precisions) != 1:
        raise CorruptPixels("the components of a JPEG 2000 frame differ in precision")
    (precision,) = precisions
    return CodestreamHeader(
        y_size - y_offset, x_size - x_offset, components, (precision & 0x7F) + 1, signed=bool(precision & 0x80)
    )


def strip_padding(frame: bytes) -> bytes:
    """The codestream of a frame, without JP2 boxes around it (met, though PS3.5 A.4.4 forbids them) and padding after it.

    Raises CorruptPixels if it does not end with its end marker: decoders of JPEG and HTJ2K return wrong pixels for a
    truncated frame without a word.
    """
    if frame.startswith(_JP2_SIGNATURE):
        start = frame.find(_J2K_START)
        if start < 0:
            raise CorruptPixels("a JP2 file without a codestream")
        frame = frame[start:]
    # Look before copying: most frames need no more than one byte cut off, which is not always zero (0x20 and 0xFF are met).
    if frame.endswith(_END_OF_CODESTREAM):
        return frame
    for candidate in (frame[:-1], frame.rstrip(b"\x00")):
        if candidate.endswith(_END_OF_CODESTREAM):
            return candidate
    raise CorruptPixels("a compressed frame stops before its end marker")
