"""Who decodes in `bench decode`, as a process of its own: `python -m dicomnode.bench.decode_subject SUBJECT FOLDER`.

For each line on stdin it makes the volume of the series in FOLDER anew and says in a line of JSON what that took, or why it
cannot. The naive ways are what people write: read, decode, rescale, one file after the other, into one int16 array.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.int16]  # (z, y, x) HU, z towards the head
BARE = "bare-codec"
_BARE_THREADS = 2  # what the goals are written for


def naive(folder: Path, plugin: str) -> Volume:
    """pydicom, one by one; `plugin` empty: the decoder that pydicom takes by itself."""
    from pydicom import dcmread
    from pydicom.pixels.utils import pixel_array

    slices = sorted((dcmread(path) for path in folder.iterdir()), key=lambda one: float(one.ImagePositionPatient[2]))
    volume = np.empty((len(slices), slices[0].Rows, slices[0].Columns), np.int16)
    for index, one in enumerate(slices):
        volume[index] = pixel_array(one, decoding_plugin=plugin) if plugin else one.pixel_array
        volume[index] *= int(one.RescaleSlope)
        volume[index] += int(one.RescaleIntercept)
    return volume


def ours(folder: Path, threads: int | None) -> Callable[[], Volume]:
    """What a worker does with a series that its registry names: headers, geometry, decoding."""
    from dicomnode import imaging
    from dicomnode.domain import imaging as made

    (series,) = imaging.scan([folder]).series  # the naive ways are not asked either which files belong together

    def way() -> Volume:
        loaded = imaging.load(series, threads=threads)
        if not isinstance(loaded, made.Volume) or loaded.pixels.dtype != np.int16:
            raise TypeError(f"no volume of whole HU: {loaded}")
        return loaded.pixels.view(np.int16)

    return way


def bare(folder: Path) -> tuple[Callable[[], Any], Callable[[Any], Volume]]:
    """The floor: nothing but our codec's calls on frames that are in memory, by two threads; and the volume of what they give.

    No header, no file, no check, no rescaling, no volume: whoever uses these codecs cannot be faster.
    """
    import imagecodecs
    from pydicom import uid

    from dicomnode import imaging
    from dicomnode.imaging.codestreams import strip_padding
    from dicomnode.imaging.headers import read_frames
    from dicomnode.imaging.stored import encoded_frames

    codecs: dict[str, Callable[[bytes], Any]] = {
        uid.JPEG2000Lossless: partial(imagecodecs.jpeg2k_decode, numthreads=1),
        uid.HTJ2KLossless: imagecodecs.htj2k_decode,
        uid.JPEGLSLossless: imagecodecs.jpegls_decode,
        uid.JPEGLosslessSV1: imagecodecs.jpeg8_decode,
        uid.JPEGExtended12Bit: imagecodecs.jpeg8_decode,
    }
    (series,) = imaging.scan([folder]).series
    frames = [read_frames(one)[1][0] for one in series.instances]
    frames.sort(key=lambda one: 0.0 if one.position is None else float(one.position[2]))
    codestreams = [strip_padding(encoded_frames(one.instance)[0]) for one in frames]
    codec, intercept = codecs[frames[0].layout.transfer_syntax_uid], int(frames[0].intercept)
    threads = ThreadPoolExecutor(_BARE_THREADS)
    return (
        lambda: list(threads.map(codec, codestreams)),
        lambda decoded: np.stack(decoded).astype(np.int16) + np.int16(intercept),
    )


def way_of(subject: str, folder: Path) -> Callable[[], Volume]:
    """The way of this subject."""
    if subject.startswith("ours"):
        return ours(folder, 1 if subject.endswith("1-thread") else None)
    return lambda: naive(folder, "" if subject == "pydicom" else subject)


def _as_it_is(made: Volume) -> Volume:
    return made


def main(arguments: Sequence[str]) -> None:
    """Until stdin ends."""
    subject, folder = arguments
    way, finished = bare(Path(folder)) if subject == BARE else (way_of(subject, Path(folder)), _as_it_is)
    for _ in sys.stdin:
        began = time.perf_counter()
        try:
            made = way()
        except Exception as error:  # noqa: BLE001 - a peer that cannot is a finding, whatever it raises
            print(json.dumps({"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}), flush=True)  # noqa: T201
            continue
        took = time.perf_counter() - began
        volume = finished(made)
        sample = volume[:: max(1, len(volume) // 8), ::37, ::41].ravel().tolist()
        answer = {"seconds": took, "sample": sample, "sum": int(volume.sum(dtype=np.int64))}
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
