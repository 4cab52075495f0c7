"""Who decodes in `bench decode`, as a process of its own: `python -m dicomnode.bench.decode_subject SUBJECT FOLDER`.

For each line on stdin it makes the volume of the series in FOLDER anew and says in a line of JSON what that took, or why it
cannot. The naive ways are what people write: read, decode, rescale, one file after the other, into one int16 array.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.int16]  # (z, y, x) HU, z towards the head


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


def way_of(subject: str, folder: Path) -> Callable[[], Volume]:
    """The way of this subject."""
    if subject.startswith("ours"):
        return ours(folder, 1 if subject.endswith("1-thread") else None)
    return lambda: naive(folder, "" if subject == "pydicom" else subject)


def main(arguments: Sequence[str]) -> None:
    """Until stdin ends."""
    subject, folder = arguments
    way = way_of(subject, Path(folder))
    for _ in sys.stdin:
        began = time.perf_counter()
        try:
            volume = way()
        except Exception as error:  # noqa: BLE001 - a peer that cannot is a finding, whatever it raises
            print(json.dumps({"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}), flush=True)  # noqa: T201
            continue
        took = time.perf_counter() - began
        sample = volume[:: max(1, len(volume) // 8), ::37, ::41].ravel().tolist()
        answer = {"seconds": took, "sample": sample, "sum": int(volume.sum(dtype=np.int64))}
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
