"""The subject `queue`: claims by several processes at once, and what is asked of the rows of 10,000 studies."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path

from sqlalchemy.engine import make_url

from dicomnode.bench.measuring import Goal, Rounds, Row
from dicomnode.bench.processes import MeasurementFailed
from dicomnode.bench.queue_looks import looks
from dicomnode.bench.queue_rows import STUDIES, fill, fill_queue
from dicomnode.bench.report import LeftOut, Report, machine
from dicomnode.bench.servers import MISSING, installed, postgresql
from dicomnode.domain.clock import utc_now
from dicomnode.domain.errors import UsageError
from dicomnode.registry import Registry
from dicomnode.registry.engine import Database

SQLITE, POSTGRESQL = "sqlite", "postgresql"
CLAIMS = "claims"
GOAL_CLAIM_MS, GOAL_LOOK_MS = 300.0, 100.0
MEDIAN, P99, WORST, RATE, LOOK = "ms, median", "ms, p99", "ms, worst", "jobs/s", "ms"
Say = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """What to measure. `folder` is on the disk in question; `databases` empty: both, the server where one is installed."""

    folder: Path
    rounds: int = 5
    databases: tuple[str, ...] = ()
    processes: int = 4
    jobs: int = 400
    looks: bool = True

    def chosen(self) -> list[str]:
        """Names of the databases. Raises UsageError for one that is none."""
        if unknown := [name for name in self.databases if name not in (SQLITE, POSTGRESQL)]:
            raise UsageError(f"there is no database {unknown[0]!r}", f"take {SQLITE} or {POSTGRESQL}")
        return [name for name in (SQLITE, POSTGRESQL) if not self.databases or name in self.databases]


def queue(plan: QueuePlan, tell: Say) -> Report:
    """Measures, databases in turn. Raises MeasurementFailed, UsageError."""
    chosen, left_out = plan.chosen(), []
    if POSTGRESQL in chosen and installed() is None:
        chosen.remove(POSTGRESQL)
        left_out.append(LeftOut("all", POSTGRESQL, MISSING))
    began, state, rounds = time.time(), machine(plan.folder), Rounds()
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-", dir=plan.folder) as place, ExitStack() as stack:
        Path(place).chmod(0o711)  # the server's user must get through
        new_url = {}
        for name in chosen:
            new_url[name] = stack.enter_context(_databases(name, Path(place)))
        for number in range(plan.rounds):
            for name in chosen:
                tell(f"claims, {name}", number / (plan.rounds + plan.looks))
                _claims(plan, name, new_url[name](f"claims_{number}"), rounds)
        if plan.looks:
            for name in chosen:
                tell(f"{STUDIES} studies, {name}", plan.rounds / (plan.rounds + 1))
                _looks(plan, name, new_url[name]("studies"), Path(place) / f"store-{name}", rounds)
    rows = rounds.rows()
    return Report(
        subject="queue",
        machine=state,
        versions={name: metadata.version(name) for name in ("dicomnode-ai", "sqlalchemy")} | _versions(chosen),
        began=began,
        seconds=time.time() - began,
        rows=rows,
        ratios={},
        goals=_goals(rows),
        left_out=tuple(left_out),
        notes={"processes": plan.processes, "jobs": plan.jobs, "studies": STUDIES},
    )


@contextmanager
def _databases(name: str, place: Path) -> Iterator[Callable[[str], str]]:
    """What makes another prepared database of this kind; gives its URL."""
    if name == SQLITE:
        yield lambda each: _prepared(f"sqlite:///{place / each}.db")
        return
    with postgresql(place / "server") as url:
        yield lambda each: _prepared(_created(url, each))


def _created(url: str, name: str) -> str:
    import psycopg  # of the extra `postgresql`

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _prepared(url: str) -> str:
    registry = Registry(url)
    registry.prepare()
    registry.close()
    return url


def _claims(plan: QueuePlan, name: str, url: str, rounds: Rounds) -> None:
    """All processes claim and finish until nothing is left."""
    database = Database(url)
    fill_queue(database, plan.jobs, utc_now() - timedelta(seconds=1))
    database.close()
    command = [sys.executable, "-m", "dicomnode.bench.queue_worker", url]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        workers = [
            stack.enter_context(subprocess.Popen([*command, f"w:{number}"], stdin=pipe, stdout=pipe, text=True))
            for number in range(plan.processes)
        ]
        for worker in workers:
            assert worker.stdout is not None  # noqa: S101 - PIPE
            worker.stdout.readline()
        began = time.perf_counter()
        said = []
        for worker in workers:
            assert worker.stdin is not None  # noqa: S101 - PIPE
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            assert worker.stdout is not None  # noqa: S101 - PIPE
            said.append(worker.stdout.readline())
        seconds = time.perf_counter() - began
    if any(worker.returncode for worker in workers):
        raise MeasurementFailed("a process that claims jobs failed", "its message stands above")
    took = sorted(ms for line in said for ms in json.loads(line))
    if len(took) != plan.jobs:
        raise MeasurementFailed(f"{len(took)} of {plan.jobs} jobs were claimed", "report this")
    rounds.add(CLAIMS, name, MEDIAN, took[len(took) // 2])
    rounds.add(CLAIMS, name, P99, took[min(int(len(took) * 0.99), len(took) - 1)])
    rounds.add(CLAIMS, name, WORST, took[-1])
    rounds.add(CLAIMS, name, RATE, plan.jobs / seconds)


def _looks(plan: QueuePlan, name: str, url: str, folder: Path, rounds: Rounds) -> None:
    now = utc_now()
    database = Database(url)
    fill(database, now)
    database.close()
    registry = Registry(url, clock=lambda: now)
    tasks = looks(registry, folder, now)
    for _ in range(max(plan.rounds, 3)):
        for task, do in tasks.items():
            began = time.perf_counter()
            do()
            rounds.add(task, name, LOOK, (time.perf_counter() - began) * 1000)
    registry.close()


def _goals(rows: tuple[Row, ...]) -> tuple[Goal, ...]:
    claims = next((row.median for row in rows if (row.case, row.subject, row.unit) == (CLAIMS, SQLITE, P99)), None)
    looked = [row for row in rows if row.unit == LOOK]
    goals = [Goal(CLAIMS, "99 of 100 claims on SQLite", GOAL_CLAIM_MS, claims, at_most=True, gate=True, unit="ms")]
    for name in sorted({row.subject for row in looked}):
        slowest = max((row for row in looked if row.subject == name), key=lambda row: row.median)
        what = f"the slowest look at {STUDIES:,} studies ({slowest.case}), {name}"
        goals.append(Goal(slowest.case, what, GOAL_LOOK_MS, slowest.median, at_most=True, gate=True, unit="ms"))
    return tuple(goals)


def _versions(chosen: list[str]) -> dict[str, str]:
    import sqlite3

    found = {SQLITE: sqlite3.sqlite_version}
    if POSTGRESQL in chosen and (programs := installed()) is not None:
        found[POSTGRESQL] = programs.parent.name
    return found
