"""The subject `results`: how long a worker that is warm takes to build and check what leaves the node, and its memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dicomnode.bench.measuring import OURS, Goal, Rounds
from dicomnode.bench.processes import MeasurementFailed
from dicomnode.bench.report import Report, machine
from dicomnode.bench.results_case import CASES, DEFAULT, prepare

GOAL_S = 3.0
GOAL_VOLUMES = 4.0
SECONDS, CPU_SECONDS, VOLUMES, MEGABYTES = "s", "s CPU", "× volume", "MB"
Say = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class ResultsPlan:
    """What to measure. `folder` is on the disk in question; `cases` empty: all. The goals are for 300 slices of 512 × 512."""

    folder: Path
    rounds: int = 5
    cases: tuple[str, ...] = ()
    slices: int = 300
    size: int = 512

    def chosen(self) -> list[str]:
        """Names of the cases. Raises UsageError for one that is none."""
        from dicomnode.domain.errors import UsageError

        names = [case.name for case in CASES]
        unknown = [name for name in self.cases if name not in names]
        if unknown:
            raise UsageError(f"there is no case {unknown[0]!r}", f"take one of {', '.join(names)}")
        return [name for name in names if not self.cases or name in self.cases]


def results(plan: ResultsPlan, tell: Say) -> Report:
    """Measures in a process of its own, cases in turn. Raises MeasurementFailed, UsageError."""
    chosen = plan.chosen()
    began = time.time()
    state = machine(plan.folder)
    rounds = Rounds()
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-", dir=plan.folder) as place:
        tell("drawing the CT", 0.0)
        prepare(Path(place), plan.slices, plan.size)
        command = [sys.executable, "-m", "dicomnode.bench.results_run", place, str(plan.rounds), *chosen]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"}
        ) as process:
            assert process.stdout is not None  # noqa: S101 - PIPE
            for number, line in enumerate(process.stdout, start=1):
                one = json.loads(line)
                _add(rounds, one)
                tell(one["case"], number / (plan.rounds * len(chosen)))
        if process.returncode:
            raise MeasurementFailed("the process that builds results failed", "its message stands above")
    rows = rounds.rows()
    return Report(
        subject="results",
        machine=state,
        versions={name: metadata.version(name) for name in ("dicomnode-ai", "highdicom", "pydicom", "numpy", "pillow")},
        began=began,
        seconds=time.time() - began,
        rows=rows,
        ratios={},
        goals=_goals(plan, rows),
        notes={"slices": plan.slices, "size": plan.size, "segments": 3},
    )


def _add(rounds: Rounds, one: dict[str, Any]) -> None:
    case = one["case"]
    rounds.add(case, OURS, SECONDS, one["build_s"] + one["check_s"])
    rounds.add(f"{case}, build", OURS, SECONDS, one["build_s"])
    rounds.add(f"{case}, check", OURS, SECONDS, one["check_s"])
    rounds.add(case, OURS, CPU_SECONDS, one["cpu_s"])
    rounds.add(case, OURS, VOLUMES, one["volumes"])
    rounds.add(case, OURS, MEGABYTES, one["bytes"] / 1e6)


def _goals(plan: ResultsPlan, rows: tuple[Any, ...]) -> tuple[Goal, ...]:
    """The time of the default set and the memory of the hungriest; only the agreed case can meet them."""
    applies = (plan.slices, plan.size) == (300, 512)
    medians = {(row.case, row.unit): row.median for row in rows}
    hungriest = max((row.median for row in rows if row.unit == VOLUMES), default=None)
    return (
        Goal(
            DEFAULT, f"{DEFAULT} built and checked", GOAL_S, medians.get((DEFAULT, SECONDS)),
            at_most=True, gate=True, applies=applies, unit="s",
        ),
        Goal("all", "memory over the input, the hungriest case", GOAL_VOLUMES, hungriest,
             at_most=True, gate=True, applies=applies, unit=VOLUMES),
    )  # fmt: skip
