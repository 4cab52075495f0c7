"""The process that `bench results` measures: a worker that is warm and holds volume and findings. One JSON line a round.

`python -m dicomnode.bench.results_run FOLDER ROUNDS CASE…`
"""

import ctypes
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from dicomnode import imaging, results
from dicomnode.bench.results_case import CASES, LABELS, Case, findings_of, request_for
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Volume

Made = TypeVar("Made")


def main(folder: Path, rounds: int, names: list[str]) -> None:
    """Says one line for every round of every case; cases take turns."""
    cases = [case for case in CASES if case.name in names]
    imaging.install_decoders()
    (series,) = imaging.scan([folder / "ct"]).series
    volume = imaging.load(series)
    if not isinstance(volume, Volume):
        raise TypeError(f"the phantom was refused: {volume}")
    paths = [one.path for one in series.instances]
    labels = np.load(folder / LABELS)
    findings = {heat: findings_of(volume, labels, heat=heat) for heat in {case.heat for case in cases}}
    del labels
    results.warm_up()
    for round_number in range(-1, rounds):  # the first round warms what `warm_up` leaves cold, and is not counted
        for case in cases:
            line = _measured(case, volume, findings[case.heat], paths, folder)
            if round_number >= 0 or rounds == 0:
                print(json.dumps({"case": case.name, **line}), flush=True)  # noqa: T201


def _measured(case: Case, volume: Volume, findings: Findings, paths: list[Path], folder: Path) -> dict[str, float]:
    request = request_for(case, paths)
    before = _forget_peak()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        built, build_s, build_cpu_s = _timed(lambda: results.build(findings, volume, paths, request, Path(place)))
        _, check_s, check_cpu_s = _timed(lambda: results.verify(built, findings, volume, paths))
    return {
        "build_s": build_s,
        "check_s": check_s,
        "cpu_s": build_cpu_s + check_cpu_s,
        "objects": len(built),
        "bytes": sum(one.size_bytes for one in built),
        "volumes": (_memory("VmHWM") - before) / volume.pixels.nbytes,
    }


def _timed(work: Callable[[], Made]) -> tuple[Made, float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, time.perf_counter() - began, time.process_time() - cpu


def _forget_peak() -> int:
    """From now on a new peak counts; resident bytes now. What earlier rounds left to malloc goes back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    return _memory("VmRSS")


def _memory(field: str) -> int:
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text().splitlines())
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
