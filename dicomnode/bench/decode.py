"""The subject `decode`: how fast a series' files become a volume, against pydicom one by one with its own plug-ins."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import numpy as np

from dicomnode.bench import decode_files, decode_subject
from dicomnode.bench.decode_cases import CASES, Case, ceilings, goals
from dicomnode.bench.decode_subject import BARE
from dicomnode.bench.measuring import OURS, Rounds, Row, ratios, rotated
from dicomnode.bench.processes import MeasurementFailed
from dicomnode.bench.report import LeftOut, Report, machine
from dicomnode.domain.errors import UsageError

IMAGE, CPU = "ms/image", "ms CPU/image"
_LOSSY_TOLERANCE = 4  # stored values: inverse transforms round differently
# glibc's settings of our service unit (deploy/systemd); nobody sets them for a script.
_OUR_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
_PACKAGES = (
    "pydicom",
    "numpy",
    "imagecodecs",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-libjpeg",
    "pyjpegls",
    "python-gdcm",
)
_NO_GPL = (
    "; pylibjpeg-libjpeg (GPL-3) is never installed with the node — pip install --no-deps --target DIR pylibjpeg-libjpeg, "
    "then PYTHONPATH=DIR dicomnode bench decode"
)
Say = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What to measure; `cases` and `subjects` empty: all. `size`: rows and columns of a slice."""

    rounds: int = 5
    full: bool = False
    cases: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    images: int = 100
    size: int = 512
    most_s: float | None = None

    def chosen(self) -> list[Case]:
        """The cases by name. Raises UsageError for unknown ones."""
        known = {case.name for case in CASES}
        if unknown := [name for name in self.cases if name not in known]:
            raise UsageError(f"there is no case {unknown[0]!r}", f"the cases are {', '.join(case.name for case in CASES)}")
        return [case for case in CASES if not self.cases or case.name in self.cases]


def decode(plan: DecodePlan, say: Say) -> Report:
    """Measures the plan. Raises MeasurementFailed where we ourselves fail or a peer gets other pixels."""
    cases, began = plan.chosen(), time.time()
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as scratch:
        bench = _Bench(plan, Path(scratch), say)
        for place, case in enumerate(cases):
            bench.measure(case, place / len(cases), most_s=None if plan.most_s is None else plan.most_s / len(cases))
        host = machine(Path(scratch))
    rows = bench.rounds.rows()
    told = ratios(rows)
    rows += tuple(Row(name.partition("/")[0], BARE, f"{name} at most", (most,)) for name, most in ceilings(told).items())
    return Report(
        subject="decode",
        machine=host,
        versions=_versions(),
        began=began,
        seconds=time.time() - began,
        rows=rows,
        ratios=told,
        best_ratios=ratios(rows, best=True),
        goals=tuple(goals(told, cases, cores=len(os.sched_getaffinity(0)))),
        left_out=tuple(bench.left_out),
        notes={"images": plan.images, "size": plan.size, "cpu_ratios": _cpu_ratios(rows)},
    )


def _cpu_ratios(rows: Sequence[Row]) -> dict[str, float]:
    """CPU(peer)/CPU(ours): what remains of a ratio when all cores are busy with other work."""
    return ratios(Row(row.case, row.subject, IMAGE, row.rounds) for row in rows if row.unit == CPU)


def _versions() -> Mapping[str, str | None]:
    from dicomnode import __version__

    found: dict[str, str | None] = {"dicomnode": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


class _Subject:
    """One way to decode, as a process that waits for its turn."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", decode_subject.__name__, name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # DCMTK-like chatter of codecs
            text=True,
            env={**os.environ, **(_OUR_ENVIRONMENT if name.startswith(OURS) or name == BARE else {})},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def take_turn(self) -> dict[str, Any]:
        """`seconds`, `cpu_s`, `sample`, `sum`; or `failed`."""
        before = cpu_s(self._process.pid)
        assert self._process.stdin is not None  # noqa: S101 - piped above
        assert self._process.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError):
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            return {"failed": f"its process ended with {self._process.wait()}"}
        return {**json.loads(line), "cpu_s": cpu_s(self._process.pid) - before}


def cpu_s(pid: int) -> float:
    """User and system time of a process and of its living descendants."""
    ticks = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(words[11]) + int(words[12])  # proc(5): utime, stime
        children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return ticks / os.sysconf("SC_CLK_TCK") + sum(cpu_s(int(child)) for one in children for child in one)
    return ticks / os.sysconf("SC_CLK_TCK")


class _Bench:
    """One bench under way."""

    def __init__(self, plan: DecodePlan, scratch: Path, say: Say) -> None:
        self._plan, self._scratch, self._say = plan, scratch, say
        self._plain: list[Path] = []
        self.rounds = Rounds()
        self.left_out: list[LeftOut] = []

    def measure(self, case: Case, share: float, *, most_s: float | None) -> None:
        """All rounds of one case: everybody waits while one has the machine."""
        self._say(f"{case.name}: files", share)
        folder = self._files(case)
        names = [name for name in case.chosen(full=self._plan.full) if not self._plan.subjects or name in self._plan.subjects]
        self._say(f"{case.name}: {', '.join(names)}", share)
        with ExitStack() as ended:
            subjects = [ended.enter_context(_Subject(name, folder)) for name in names]
            self._rounds(case, self._able(case, subjects), most_s)

    def _files(self, case: Case) -> Path:
        if not self._plain:
            self._plain = decode_files.uncompressed(self._scratch / CASES[0].name, self._plan.images, self._plan.size)
        folder = self._scratch / case.name
        if not folder.exists():
            decode_files.in_syntax(self._plain, case.transfer_syntax_uid, folder)
        return folder

    def _able(self, case: Case, subjects: Sequence[_Subject]) -> list[_Subject]:
        """Those that can, after one turn that does not count: imports, page cache, decoding process."""
        able, reference = [], None
        for one in subjects:
            answer = one.take_turn()
            if "failed" in answer:
                self._leave_out(case, one.name, answer["failed"])
                continue
            reference = reference or answer
            self._compare(case, one.name, answer, reference)
            able.append(one)
        return able

    def _leave_out(self, case: Case, name: str, why: str) -> None:
        if name.startswith(OURS):
            raise MeasurementFailed(f"{case.name}, {name}: {why}", "report this")
        if name in ("pylibjpeg", "pydicom") and not _versions()["pylibjpeg-libjpeg"]:
            why += _NO_GPL
        self.left_out.append(LeftOut(case.name, name, why))

    def _compare(self, case: Case, name: str, answer: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """A ratio between different pixels is worth nothing."""
        off = np.abs(np.subtract(answer["sample"], reference["sample"])).max()
        if off > (_LOSSY_TOLERANCE if case.lossy else 0) or (not case.lossy and answer["sum"] != reference["sum"]):
            raise MeasurementFailed(f"{case.name}: {name} decodes other pixels (by up to {off})", "find out who is right")

    def _rounds(self, case: Case, subjects: Sequence[_Subject], most_s: float | None) -> None:
        began = time.monotonic()
        for number in range(self._plan.rounds):
            started = time.monotonic()
            for one in rotated(subjects, number):
                answer = one.take_turn()
                if "failed" in answer:
                    raise MeasurementFailed(f"{case.name}, {one.name}: {answer['failed']}", "it could a moment ago")
                self.rounds.add(case.name, one.name, IMAGE, answer["seconds"] / self._plan.images * 1000)
                self.rounds.add(case.name, one.name, CPU, answer["cpu_s"] / self._plan.images * 1000)
            now = time.monotonic()
            if most_s is not None and now - began + (now - started) > most_s:
                break
