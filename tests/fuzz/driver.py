"""Runs cases of one target in this process, counts how they end, and saves those that end as nothing may."""

import resource
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.targets import Target

SLOWEST_CASE_S = 1.0  # of this thread's own time, whatever else the machine does; a case has 64 KB at most


@dataclass
class Outcome:
    """ends: how often which word. failures: one line each. worst_s: of one case."""

    cases: int = 0
    seconds: float = 0.0
    worst_s: float = 0.0
    grown_mb: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def peak_mb() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(name: str, target: Target, numbers: Iterable[int], seed: int, save_to: Path, *, most_failures: int = 20) -> Outcome:
    """Each number is one case. Ends early after `most_failures`."""
    outcome, before, began = Outcome(), peak_mb(), time.perf_counter()
    for number in numbers:
        data, sample, rng = target.case(seed, number)
        started = time.thread_time()
        try:
            outcome.ends[target.run(data, sample, rng)] += 1
            took_s = time.thread_time() - started
            outcome.worst_s = max(outcome.worst_s, took_s)
            if took_s > SLOWEST_CASE_S:
                outcome.failures.append(_saved(name, seed, number, data, save_to, f"took {took_s:.1f} s"))
        except Exception:  # noqa: BLE001 - whatever nobody declared is what we look for
            outcome.failures.append(_saved(name, seed, number, data, save_to, traceback.format_exc(limit=-3)))
        outcome.cases += 1
        if len(outcome.failures) >= most_failures:
            break
    outcome.seconds, outcome.grown_mb = time.perf_counter() - began, peak_mb() - before
    return outcome


def _saved(name: str, seed: int, number: int, data: bytes, folder: Path, why: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{seed}-{number}.bin"
    path.write_bytes(data)
    return f"{path}: {why.strip()}"
