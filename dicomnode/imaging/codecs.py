"""Compressed frame in, array out: imagecodecs, held to what the DICOM header says.

One table says which codec reads which transfer syntax. `decode_frame` is used directly for volumes; `install_decoders` offers
the same codecs to pydicom as decoder plug-in "imagecodecs" for everybody else.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import decode_pixel_data
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

from dicomnode.imaging.codestreams import CorruptPixels, read_codestream_header, strip_padding

PLUGIN_LABEL = "imagecodecs"
type_frame = NDArray[Any]  # (rows, columns) or (rows, columns, samples), of the codec's integer type


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What the header says that a decoded frame is (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str

    @property
    def size_bytes(self) -> int:
        """Bytes of one decoded frame."""
        return self.rows * self.columns * self.samples * self.bits_allocated // 8


def _decode_jpeg(codestream: bytes, frame_format: FrameFormat) -> type_frame:
    if frame_format.samples == 1:
        return imagecodecs.jpeg8_decode(codestream)
    # libjpeg guesses the colour space from markers that DICOM does not ask for; the header knows (PS3.3 C.7.6.3.1.2).
    # Nothing is converted here: pydicom asks with the header of the frame before, which must still be true.
    colorspace = "YCBCR" if frame_format.photometric_interpretation.startswith("YBR_FULL") else "RGB"
    return imagecodecs.jpeg8_decode(codestream, colorspace=colorspace, outcolorspace=colorspace)


def _decode_jpeg_ls(codestream: bytes, _: FrameFormat) -> type_frame:
    return imagecodecs.jpegls_decode(codestream)


def _decode_j2k(codestream: bytes, _: FrameFormat) -> type_frame:
    if not imagecodecs.JPEG2K.available:
        return _decode_by_openjpeg(codestream)
    return imagecodecs.jpeg2k_decode(codestream, numthreads=1)


def _decode_htj2k_lossless(codestream: bytes, frame_format: FrameFormat) -> type_frame:
    if not imagecodecs.HTJ2K.available:
        return _decode_j2k(codestream, frame_format)
    return imagecodecs.htj2k_decode(codestream)


def _decode_by_openjpeg(codestream: bytes) -> type_frame:
    """The codec of pylibjpeg-openjpeg, for a build of imagecodecs without JPEG 2000."""
    size = read_codestream_header(codestream)
    raw = decode_pixel_data(codestream, version=2)
    sign, itemsize = ("i" if size.signed else "u"), (size.precision + 7) // 8
    array = np.frombuffer(raw, dtype=f"<{sign}{itemsize}")
    shape = (size.rows, size.columns) if size.components == 1 else (size.rows, size.columns, size.components)
    return array.reshape(shape)


_RETIRED = ("1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55")  # spectral selection, full progression (PS3.5-2004 annex F)

# Lossy HTJ2K (1.2.840.10008.1.2.4.203) comes out wrong from htj2k_decode (255 wrapped to 0 in a real file): OpenJPEG reads it.
_CODECS: dict[str, Callable[[bytes, FrameFormat], type_frame]] = {
    uid.JPEGBaseline8Bit: _decode_jpeg,
    uid.JPEGExtended12Bit: _decode_jpeg,
    **dict.fromkeys(_RETIRED, _decode_jpeg),
    uid.JPEGLossless: _decode_jpeg,
    uid.JPEGLosslessSV1: _decode_jpeg,
    uid.JPEGLSLossless: _decode_jpeg_ls,
    uid.JPEGLSNearLossless: _decode_jpeg_ls,
    uid.JPEG2000Lossless: _decode_j2k,
    uid.JPEG2000: _decode_j2k,
    uid.HTJ2KLossless: _decode_htj2k_lossless,
    uid.HTJ2KLosslessRPCL: _decode_htj2k_lossless,
    uid.HTJ2K: _decode_j2k,
}

DECODER_DEPENDENCIES = dict.fromkeys((*_CODECS, uid.RLELossless), ("imagecodecs>=2026.3",))  # asked for by pydicom


def is_available(transfer_syntax_uid: str) -> bool:
    """Whether this plug-in can decode the syntax (asked by pydicom)."""
    return transfer_syntax_uid in DECODER_DEPENDENCIES


def decode_frame(frame: bytes, transfer_syntax_uid: str, frame_format: FrameFormat) -> type_frame:
    """One decoded frame, (rows, columns) or (rows, columns, 3), in the codec's own integer type.

    Raises CorruptPixels when the bytes are cut off, or promise another size or precision than the header; both are looked at
    before a codec allocates anything.
    """
    try:
        if transfer_syntax_uid == uid.RLELossless:
            return _decode_rle(frame, frame_format)
        codestream = strip_padding(frame)
        _compare(codestream, frame_format)
        decoded = _CODECS[transfer_syntax_uid](codestream, frame_format)
    except (CorruptPixels, MemoryError):
        raise
    except Exception as error:
        # Every codec has an error class of its own, and hostile bytes find further ones: the frame is corrupt, whatever it was.
        raise CorruptPixels(f"a compressed frame cannot be decoded ({type(error).__name__})") from error
    expected = (frame_format.rows, frame_format.columns, frame_format.samples)
    if decoded.shape != (expected if frame_format.samples > 1 else expected[:2]):
        raise CorruptPixels(f"a decoded frame has the shape {decoded.shape}, the header says {expected}")
    return decoded


def _compare(codestream: bytes, frame_format: FrameFormat) -> None:
    said = read_codestream_header(codestream)
    size, wanted = (said.rows, said.columns, said.components), (frame_format.rows, frame_format.columns, frame_format.samples)
    if size != wanted:
        raise CorruptPixels(f"a compressed frame declares rows, columns, samples = {size}, the header {wanted}")
    # DCMTK writes JPEG-LS with the precision of Bits Allocated, others that of Bits Stored; an unsigned codestream of signed
    # values below Bits Stored would leave open which bit is the sign.
    if not frame_format.bits_stored <= said.precision <= frame_format.bits_allocated:
        raise CorruptPixels(
            f"a compressed frame has {said.precision} bits, the header says {frame_format.bits_stored} "
            f"of {frame_format.bits_allocated}"
        )


def _decode_rle(frame: bytes, frame_format: FrameFormat) -> type_frame:
    """RLE Lossless (PS3.5 annex G): one PackBits segment for each byte of each sample, most significant byte first."""
    itemsize = frame_format.bits_allocated // 8
    count = frame_format.samples * itemsize
    if len(frame) < 64 or struct.unpack_from("<I", frame)[0] != count:
        raise CorruptPixels(f"an RLE frame does not hold the {count} segments that its header asks for")
    offsets = (*struct.unpack_from(f"<{count}I", frame, 4), len(frame))
    if offsets[0] != 64 or any(first >= last for first, last in pairwise(offsets)):
        raise CorruptPixels("the segment offsets of an RLE frame are out of order")
    pixels = frame_format.rows * frame_format.columns
    planes = np.empty((frame_format.samples, pixels, itemsize), np.uint8)
    for index in range(count):
        segment = np.frombuffer(imagecodecs.packbits_decode(frame[offsets[index] : offsets[index + 1]]), np.uint8)
        # At most the byte that makes a segment even may follow; more would mean that Rows or Columns lie.
        if not pixels <= segment.size <= pixels + 1:
            raise CorruptPixels(f"an RLE segment holds {segment.size} bytes, the header asks for {pixels}")
        planes[index // itemsize, :, itemsize - 1 - index % itemsize] = segment[:pixels]
    samples = planes.reshape(frame_format.samples, -1).view(f"<u{itemsize}")
    images = samples.reshape(frame_format.samples, frame_format.rows, frame_format.columns)
    return images[0] if frame_format.samples == 1 else np.ascontiguousarray(images.transpose(1, 2, 0))


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """pydicom's plug-in interface: one decoded frame as bytes; tells `runner` what decoding has changed."""
    frame_format = FrameFormat(
        rows=runner.rows,
        columns=runner.columns,
        samples=runner.samples_per_pixel,
        bits_allocated=runner.bits_allocated,
        bits_stored=runner.bits_stored,
        signed=runner.pixel_representation == 1,
        photometric_interpretation=str(runner.photometric_interpretation),
    )
    decoded = decode_frame(src, runner.transfer_syntax, frame_format)
    runner.set_option("bits_allocated", 8 * decoded.dtype.itemsize)
    if frame_format.samples > 1:
        runner.set_option("planar_configuration", 0)
        if frame_format.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):  # JPEG 2000 codecs undo their own transform
            runner.set_option("photometric_interpretation", "RGB")
    return bytearray(np.ascontiguousarray(decoded).tobytes())


def install_decoders() -> None:
    """Offers these codecs to pydicom as plug-in "imagecodecs". Once per process, before threads start; again does nothing."""
    for transfer_syntax_uid in DECODER_DEPENDENCIES:
        if transfer_syntax_uid in _RETIRED:
            continue  # pydicom has no decoder to plug into
        decoder = get_decoder(transfer_syntax_uid)
        if PLUGIN_LABEL not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN_LABEL, (__name__, "_decode_frame"))
