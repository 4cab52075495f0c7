"""One subject of `bench inference` as a process: loads its model once, then runs the series it is told, one a line.

`python -m dicomnode.bench.inference_subject SUBJECT BUNDLE DEVICE FD`: folders come on stdin, a JSON line for each goes
to FD; what libraries print goes nowhere.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dicomnode.imaging.resampling import Grid

NAIVE = "naive"
LUNGS = "lungs.npz"


class _Subject(Protocol):
    def run(self, folder: Path) -> Mapping[str, float]: ...

    def lungs(self) -> NDArray[np.bool_]: ...


class _Ours:
    """The shipped path: imaging, then the engine, warm, at one speed."""

    def __init__(self, bundle: Path, device: str, speed: Any) -> None:
        from dicomnode import engines, imaging

        imaging.install_decoders()
        self._pipeline, self._speed = engines.load_pipeline(bundle, device=device), speed
        self._pipeline.warm_up(speed)
        self._last: tuple[NDArray[np.integer], Grid] | None = None

    def run(self, folder: Path) -> Mapping[str, float]:
        from dicomnode import imaging
        from dicomnode.domain.imaging import Refusal, Volume
        from dicomnode.imaging.resampling import Grid

        self._last = None  # an earlier result is no part of what the next series needs
        (series,) = imaging.scan([folder]).series  # in the node the registry knows them
        began = time.perf_counter()
        image = imaging.load(series)
        decoded = time.perf_counter()
        if not isinstance(image, Volume):
            raise TypeError("the phantom gave no volume")
        findings = self._pipeline.run(image, speed=self._speed)
        if isinstance(findings, Refusal):
            raise TypeError(f"the phantom was refused: {findings.message}")
        self._last = findings.label_maps[0].labels, Grid(image.shape, image.affine)
        self.told = findings.run
        return {"decode": decoded - began, **findings.timings_s}

    def lungs(self) -> NDArray[np.bool_]:
        from dicomnode.imaging.resampling import canonical

        if self._last is None:
            raise TypeError("nothing was run")
        labels, grid = self._last
        return canonical(labels > 0, grid)[0]


def _made(name: str, bundle: Path, device: str) -> _Subject:
    if name != NAIVE:
        return _Ours(bundle, device, name)
    from dicomnode.bench.inference_naive import NaiveScript

    return NaiveScript(bundle, device)


def _peak_mb() -> float:
    """Most resident memory of this process so far."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main(arguments: list[str]) -> None:
    """Until stdin ends."""
    name, bundle, device, descriptor = arguments
    warnings.simplefilter("ignore")
    told = os.fdopen(int(descriptor), "w")
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    subject = _made(name, Path(bundle), device)
    print("{}", file=told, flush=True)
    for line in sys.stdin:
        folder, _, lungs = line.rstrip("\n").partition("\t")
        cpu_began, began = time.process_time(), time.perf_counter()
        steps = subject.run(Path(folder))
        record = {"steps": dict(steps), "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu_began}
        record |= {"peak_mb": _peak_mb(), "run": dict(getattr(subject, "told", {}))}
        if lungs:
            np.savez_compressed(lungs, lungs=subject.lungs())
        print(json.dumps(record), file=told, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
