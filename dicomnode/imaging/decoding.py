"""Frames of a stack → one array of their values. Uncompressed pixels are taken here, compressed ones in the decoding process.

No codec ever runs in the process that asks: codecs are C, and hostile bytes find what is wrong with it. A crash, a hang or
gigabytes end the decoding process, and the images at fault are refused by name.
"""

import os
from collections.abc import Sequence

import numpy as np

from dicomnode.domain.imaging import RefusalCode
from dicomnode.imaging import apart
from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.part10 import is_encapsulated
from dicomnode.imaging.refusing import SEND_AGAIN, Refused, count, names
from dicomnode.imaging.slices import fill_slices, reason_of, type_failures, type_volume_pixels
from dicomnode.imaging.stored import decode_stored, encoded_frames, type_stored
from dicomnode.imaging.values import DoesNotFit, are_integers

_THREADS_AT_MOST = 8


def decoding_threads(wanted: int | None = None) -> int:
    """How many decode: as many as are wanted, else one a processor, 8 at most."""
    return wanted or min(_THREADS_AT_MOST, len(os.sched_getaffinity(0)))


def decode_slices(
    frames: Sequence[Frame],
    *,
    threads: int | None = None,
    ahead: tuple[type_volume_pixels, type_failures] | None = None,
) -> type_volume_pixels:
    """(z, y, x) rescaled values, slice z from `frames[z]`: int16 where all values are whole and fit, else float32.

    ahead: what came of the same frames while headers were read. Raises Refused (corrupt), naming every image that cannot be
    decoded, and ResourceExhausted.
    """
    if ahead is not None:
        return _without_failures(frames, *ahead)
    workers = decoding_threads(threads)
    if all(are_integers(frame) for frame in frames):
        try:
            return _decoded(frames, np.dtype(np.int16), workers)
        except DoesNotFit:
            pass
    return _decoded(frames, np.dtype(np.float32), workers)


def decode_one(frame: Frame) -> type_stored:
    """Stored values of one frame, (y, x). Raises Refused (corrupt) and ResourceExhausted."""
    if is_encapsulated(frame.layout.transfer_syntax_uid):
        stored, failures = apart.decode_stored(frame)
        if stored is None:
            raise _corrupt([frame], failures)
        return stored
    try:
        return decode_stored(encoded_frames(frame.instance)[frame.frame_index], frame.layout)
    except (CorruptPixels, OSError) as error:
        raise _corrupt([frame], [(0, reason_of(error))]) from error


def _decoded(frames: Sequence[Frame], dtype: np.dtype[np.generic], workers: int) -> type_volume_pixels:
    if any(is_encapsulated(frame.layout.transfer_syntax_uid) for frame in frames):
        volume, failures = apart.decode_slices(frames, dtype, workers)
    else:
        size = frames[0].layout.frame_format
        volume = np.empty((len(frames), size.rows, size.columns), dtype)
        failures = fill_slices(volume.__getitem__, frames, workers)
    return _without_failures(frames, volume, failures)


def _without_failures(frames: Sequence[Frame], volume: type_volume_pixels, failures: type_failures) -> type_volume_pixels:
    if failures:
        raise _corrupt(frames, failures)
    return volume


def _corrupt(frames: Sequence[Frame], failures: type_failures) -> Refused:
    concerned = [frames[index] for index, _ in sorted(failures)]
    return Refused(
        RefusalCode.CORRUPT,
        f"{count(len(concerned), 'image')} cannot be decoded ({names(concerned)}): {failures[0][1]}",
        SEND_AGAIN,
        concerned,
    )
