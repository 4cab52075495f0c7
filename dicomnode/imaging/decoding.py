"""Frames of a stack → one array, decoded by a few threads into the place where each slice belongs.

The one function through which pixels of a series are decoded: where a crash must not cost more than the job, it is this that
moves into another process.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.imaging import RefusalCode
from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.refusing import SEND_AGAIN, Refused, count, names
from dicomnode.imaging.stored import decode_stored, encoded_frames, type_stored
from dicomnode.imaging.values import DoesNotFit, are_integers, rescale_into

_THREADS_AT_MOST = 8

type_volume_pixels = NDArray[np.int16] | NDArray[np.float32]


def decode_slices(frames: Sequence[Frame], *, threads: int | None = None) -> type_volume_pixels:
    """(z, y, x) rescaled values, slice z from `frames[z]`: int16 where all values are whole and fit, else float32.

    Raises Refused (corrupt), naming every image that cannot be decoded.
    """
    size = frames[0].layout.frame_format
    shape = (len(frames), size.rows, size.columns)
    workers = threads or min(_THREADS_AT_MOST, len(os.sched_getaffinity(0)))
    if all(are_integers(frame) for frame in frames):
        try:
            return _decode_into(np.empty(shape, np.int16), frames, workers)
        except DoesNotFit:
            pass
    return _decode_into(np.empty(shape, np.float32), frames, workers)


def decode_one(frame: Frame) -> type_stored:
    """Stored values of one frame, (y, x). Raises Refused (corrupt)."""
    try:
        return decode_stored(encoded_frames(frame.instance)[frame.frame_index], frame.layout)
    except (CorruptPixels, OSError) as error:
        raise _corrupt([(frame, error)]) from error


def _decode_into(volume: type_volume_pixels, frames: Sequence[Frame], workers: int) -> type_volume_pixels:
    failures: list[tuple[Frame, Exception]] = []

    def run(task: tuple[int, Callable[[], bytes]]) -> None:
        index, encoded = task
        frame = frames[index]
        try:
            rescale_into(volume[index], decode_stored(encoded(), frame.layout), frame)
        except (CorruptPixels, OSError) as error:
            failures.append((frame, error))

    # The pool is closed before the loop over its results ends, so an exception (DoesNotFit) leaves no thread behind.
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for _ in pool.map(run, _tasks(frames, failures)):
            pass
    if failures:
        raise _corrupt(failures)
    return volume


def _tasks(frames: Sequence[Frame], failures: list[tuple[Frame, Exception]]) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """(slice, how to get its encoded bytes): single-frame files are read by the thread that decodes them, others once."""
    order = sorted(range(len(frames)), key=lambda index: (str(frames[index].instance.path), frames[index].frame_index))
    for _, members in groupby(order, key=lambda index: frames[index].instance.path):
        indices = list(members)
        frame = frames[indices[0]]
        if frame.layout.number_of_frames == 1:
            yield indices[0], lambda frame=frame: encoded_frames(frame.instance)[0]  # type: ignore[misc]
            continue
        try:
            encoded = encoded_frames(frame.instance)
        except (CorruptPixels, OSError) as error:
            failures.append((frame, error))
            continue
        yield from ((index, lambda value=encoded[frames[index].frame_index]: value) for index in indices)


def _corrupt(failures: Sequence[tuple[Frame, Exception]]) -> Refused:
    frames = [frame for frame, _ in failures]
    error = failures[0][1]
    reason = str(error) if isinstance(error, CorruptPixels) else f"the file cannot be read ({type(error).__name__})"
    return Refused(
        RefusalCode.CORRUPT,
        f"{count(len(frames), 'image')} cannot be decoded ({names(frames)}): {reason}",
        SEND_AGAIN,
        frames,
    )
