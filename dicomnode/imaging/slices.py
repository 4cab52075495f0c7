"""Frames → slices of an array that is there already, decoded by a few threads, each into the place where it belongs.

Runs in the process that asks (uncompressed pixels) or in the decoding process (compressed ones).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from dicomnode.imaging.codestreams import CorruptPixels
from dicomnode.imaging.headers import Frame
from dicomnode.imaging.stored import decode_stored, encoded_frames
from dicomnode.imaging.values import rescale_into

type_volume_pixels = NDArray[np.int16] | NDArray[np.float32]
type_failures = list[tuple[int, str]]  # which frame, and why in words without patient data
type_slice = NDArray[np.int16] | NDArray[np.float32]  # (y, x)
type_place = Callable[[int], type_slice]
type_tell = Callable[[int], None]
type_task = tuple[int, Frame, Callable[[], bytes]]  # which slice, of which frame, and how to get its encoded bytes


def reason_of(error: CorruptPixels | OSError) -> str:
    """Why pixels could not be had, without a path."""
    return str(error) if isinstance(error, CorruptPixels) else f"the file cannot be read ({type(error).__name__})"


def _nobody(_index: int) -> None:
    pass


def fill_slices(
    place: type_place,
    frames: Sequence[Frame],
    workers: int,
    *,
    ended: type_tell = _nobody,
) -> type_failures:
    """The array (y, x) that `place` gives for z becomes the rescaled values of `frames[z]`; gives those that cannot be decoded.

    `place` is asked when a slice is begun, `ended` is told of its end, both by the thread that decodes it.
    Raises DoesNotFit where a value does not fit the array's type.
    """
    failures: type_failures = []
    _fill(place, _tasks(frames, failures), workers, failures, ended)
    return failures


def fill_as_they_come(
    place: type_place,
    coming: Iterable[tuple[int, Frame]],
    workers: int,
    *,
    ended: type_tell = _nobody,
) -> type_failures:
    """As `fill_slices`, of single-frame images whose headers are still being read: (slice, frame) by and by."""
    failures: type_failures = []
    _fill(place, ((index, frame, _reading(frame)) for index, frame in coming), workers, failures, ended)
    return failures


def _fill(place: type_place, tasks: Iterable[type_task], workers: int, failures: type_failures, ended: type_tell) -> None:
    def run(task: type_task) -> None:
        index, frame, encoded = task
        out = place(index)
        try:
            rescale_into(out, decode_stored(encoded(), frame.layout), frame)
        except (CorruptPixels, OSError) as error:
            failures.append((index, reason_of(error)))
        ended(index)

    # The pool is closed before the loop over its results ends, so an exception (DoesNotFit) leaves no thread behind.
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for _ in pool.map(run, tasks):
            pass


def _reading(frame: Frame) -> Callable[[], bytes]:
    return lambda: encoded_frames(frame.instance)[0]


def _tasks(frames: Sequence[Frame], failures: type_failures) -> Iterator[type_task]:
    """Single-frame files are read by the thread that decodes them, others once."""
    order = sorted(range(len(frames)), key=lambda index: (str(frames[index].instance.path), frames[index].frame_index))
    for _, members in groupby(order, key=lambda index: frames[index].instance.path):
        indices = list(members)
        frame = frames[indices[0]]
        if frame.layout.number_of_frames == 1:
            yield indices[0], frame, _reading(frame)
            continue
        try:
            encoded = encoded_frames(frame.instance)
        except (CorruptPixels, OSError) as error:
            failures.append((indices[0], reason_of(error)))
            continue
        yield from ((index, frames[index], _held(encoded[frames[index].frame_index])) for index in indices)


def _held(encoded: bytes) -> Callable[[], bytes]:
    return lambda: encoded
