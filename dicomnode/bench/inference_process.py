"""A subject of `bench inference` from outside: started, told which folder to read, asked what it took."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dicomnode.bench.inference_subject import NAIVE
from dicomnode.bench.processes import MeasurementFailed
from dicomnode.roles.supervisor import MALLOC

OURS_AT = ("exact", "fast")
_CORES = 2  # what the goals are written for


@dataclass(frozen=True, slots=True)
class Told:
    """One run. steps_s: seconds by step; cpu_s: of all threads; peak_mb: resident, since the process was warm."""

    steps_s: Mapping[str, float]
    cpu_s: float
    peak_mb: float
    run: Mapping[str, str]


class Subject:
    """One process, on two cores where it computes on a CPU."""

    def __init__(self, name: str, bundle: Path, device: str) -> None:
        self.name = name
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dicomnode.bench.inference_subject", name, str(bundle), device, str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            pass_fds=(writing,),
            text=True,
            env={**os.environ, **({} if name == NAIVE else MALLOC)},  # of our service; nobody sets it for a script
        )
        os.close(writing)
        self._answers = os.fdopen(reading)
        if device == "cpu":
            os.sched_setaffinity(self._process.pid, sorted(os.sched_getaffinity(0))[:_CORES])

    def __enter__(self) -> Self:
        self._answer()  # loaded
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._answers, self._process.stdin, self._said):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def warm(self, folder: Path, lungs: Path | None) -> None:
        """One run that does not count; its lungs are kept in `lungs`."""
        self._ask(folder, lungs)
        with suppress(OSError):
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM

    def run(self, folder: Path) -> Told:
        """One run. Raises MeasurementFailed where the process ended."""
        told = self._ask(folder, None)
        return Told(told["steps"], told["cpu_s"], told["peak_mb"], told["run"])

    def _ask(self, folder: Path, lungs: Path | None) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101 - said for the type checker
        with suppress(BrokenPipeError):  # why is in the answer that does not come
            self._process.stdin.write(f"{folder}\t{lungs or ''}\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            self._said.seek(0)
            said = self._said.read().strip().splitlines()
            raise MeasurementFailed(f"{self.name} ended: {said[-1] if said else 'it said nothing'}", "run it by hand")
        answer: dict[str, Any] = json.loads(line)
        return answer
