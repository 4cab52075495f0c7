"""Frames → slices of an array that is there already, decoded by a few threads, each into the place where it belongs.

Runs in the process that asks (uncompressed pixels) or in the decoding process (compressed ones).
"""

from collections.abc import Callable, Iterator, Sequence
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
type_tell = Callable[[int], None]


def reason_of(error: CorruptPixels | OSError) -> str:
    """Why pixels could not be had, without a path."""
    return str(error) if isinstance(error, CorruptPixels) else f"the file cannot be read ({type(error).__name__})"


def _nobody(_index: int) -> None:
    pass


def fill_slices(
    volume: type_volume_pixels,
    frames: Sequence[Frame],
    workers: int,
    *,
    begun: type_tell = _nobody,
    ended: type_tell = _nobody,
) -> type_failures:
    """Slice z of `volume` (z, y, x) becomes the rescaled values of `frames[z]`; gives the frames that cannot be decoded.

    `begun` and `ended` are told of each frame, from several threads.
    Raises DoesNotFit where a value does not fit the array's type.
    """
    failures: type_failures = []

    def run(task: tuple[int, Callable[[], bytes]]) -> None:
        index, encoded = task
        frame = frames[index]
        begun(index)
        try:
            rescale_into(volume[index], decode_stored(encoded(), frame.layout), frame)
        except (CorruptPixels, OSError) as error:
            failures.append((index, reason_of(error)))
        ended(index)

    # The pool is closed before the loop over its results ends, so an exception (DoesNotFit) leaves no thread behind.
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for _ in pool.map(run, _tasks(frames, failures)):
            pass
    return failures


def _tasks(frames: Sequence[Frame], failures: type_failures) -> Iterator[tuple[int, Callable[[], bytes]]]:
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
            failures.append((indices[0], reason_of(error)))
            continue
        yield from ((index, lambda value=encoded[frames[index].frame_index]: value) for index in indices)
