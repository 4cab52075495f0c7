"""Whatever happens in whatever order: one set of results, over all images, and an audit without holes."""

import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomnode.domain.errors import StaleUpdate, UsageError
from dicomnode.domain.routes import Route
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import ClaimedDelivery, ClaimedJob, Registry
from dicomnode.registry.tables import AuditRow, Delivery, Job, Result, Series
from dicomnode.registry.transitions import DELIVERY, JOB, SERIES
from dicomnode.routing import PipelineFacts, sweep
from tests.registry.samples import Clock, Spool, received

ROUTE = Route("r", {"Modality": ("CT",)}, "p", "exact", "best", ("pacs",), ("SEG", "SR", "SC"), quiet_s=10, max_wait_s=120)
PIPELINES = {"p": PipelineFacts("p", "CT", min_slices=2)}

DAY = {
    "series": ("image 1 1", "image 1 2", "image 1 3"),
    "other series": ("image 2 1", "image 2 2"),
    "claimed": ("wait 31", "sweep", "claim"),
    "done": ("wait 31", "sweep", "claim", "finish"),
    "seg sent": ("send", "accept"),
    "all sent": ("send", "accept", "send", "accept", "send", "accept"),
}
TROUBLE = (
    "wait 1",
    "sweep",
    "claim",
    "finish",
    "refuse",
    "try again",
    "die",
    "restart",
    "rescue",
    "send",
    "accept",
    "lose link",
)
TROUBLE += ("reprocess", "retry", "cancel", *(f"image {series} {number}" for series in (1, 2) for number in (3, 4, 5, 6, 7, 8)))


def random_steps(seed: int) -> list[str]:
    """A series, then stretches of an ordinary day with trouble in between. (Hypothesis draws too few that get anywhere.)"""
    rng = random.Random(seed)  # noqa: S311
    steps = list(DAY["series"])
    for _ in range(14):
        steps += rng.choice(list(DAY.values()))
        steps += [rng.choice(TROUBLE) for _ in range(rng.choice((0, 1, 1, 2)))]
    return steps


class World:
    """One node's registry with one worker and one sender, driven step by step."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.registry, self.clock = registry, clock
        self.jobs: list[ClaimedJob] = []  # every claim ever made: a late worker may come back with any of them
        self.deliveries: list[ClaimedDelivery] = []
        self.sent: Counter[str] = Counter()
        self.images: set[str] = set()

    def step(self, step: str) -> None:
        what, *numbers = re.split(r" (?=\d)", step)
        with suppress(StaleUpdate, UsageError):  # of late workers and of operators who come too late
            self._step(what, *map(int, numbers))

    def _step(self, what: str, one: int = 0, two: int = 0) -> None:  # noqa: C901 - one branch a thing that can happen
        registry = self.registry
        job = self.jobs[-1] if self.jobs else None
        delivery = self.deliveries[-1] if self.deliveries else None
        if what == "image":
            kernel = {1: "B30f", 2: "B70f"}[one]
            uid = f"1.2.3.{one}.{two}"
            registry.add_instance(received(uid, series=f"1.2.3.{one}", at=self.clock.now, ConvolutionKernel=kernel), ours=False)
            self.images.add(uid)
        elif what == "wait":
            self.clock.forward(one)
        elif what == "sweep":
            sweep(registry, (ROUTE,), self.clock.now, pipelines=PIPELINES)
        elif what == "claim":
            if (claimed := registry.claim_job("w", 30)) is not None:
                self.jobs.append(claimed)
        elif what == "finish" and job is not None:
            results = Spool().objects(job) if job.refusal is None else Spool().objects(job, ("SR", "SC"), "not run")
            event = JobEvent.FINISHED if job.refusal is None else JobEvent.REFUSED
            registry.finish_job(job, event, results=results, destinations=["pacs"], findings_summary={})
        elif what == "refuse" and job is not None:
            registry.finish_job(
                job, JobEvent.REFUSED, reason_code="gap", results=Spool().objects(job, ("SR",), "no"), destinations=["pacs"]
            )
        elif what == "try again" and job is not None:
            registry.finish_job(job, JobEvent.TRY_AGAIN, retry_after_s=1)
        elif what == "die":
            registry.worker_died("w")
        elif what == "restart":
            registry.node_restarted()
        elif what == "rescue":
            registry.requeue_lost()
        elif what == "send":
            if (taken := registry.claim_delivery("d", "pacs", 30)) is not None:
                self.deliveries.append(taken)
        elif what in ("accept", "lose link") and delivery is not None:
            event = DeliveryEvent.ACCEPTED if what == "accept" else DeliveryEvent.TRY_AGAIN
            registry.finish_delivery(delivery, event, status=0, retry_after_s=0)
            self.sent[delivery.result.sop_instance_uid] += event is DeliveryEvent.ACCEPTED
        elif what == "reprocess":
            registry.reprocess("1.2.3")
        elif what in ("retry", "cancel") and job is not None:
            getattr(registry, what)(job.key)

    def drain(self) -> None:
        """Let everything come to its end: no image comes any more, everybody works."""
        with self.registry._database.read() as session:
            stuck = session.scalars(select(Job.id).where(Job.state.in_(["cancelled", "failed"]))).all()
        for job_id in stuck:
            self.step_retry(job_id)
        for _ in range(4):
            self.clock.forward(4000)
            self.registry.requeue_lost()
            sweep(self.registry, (ROUTE,), self.clock.now, pipelines=PIPELINES)
            while (job := self.registry.claim_job("w", 30)) is not None:
                self.jobs.append(job)
                self.step("finish")
            while (delivery := self.registry.claim_delivery("d", "pacs", 30)) is not None:
                self.deliveries.append(delivery)
                self.step("accept")

    def step_retry(self, job_id: int) -> None:
        with suppress(UsageError):
            self.registry.retry(f"J{job_id}")

    def check(self) -> None:
        """What must hold at every moment."""
        with self.registry._database.read() as session:
            jobs = session.scalars(select(Job)).all()
            standing = [job for job in jobs if job.state != "superseded"]
            assert len(standing) <= 1
            assert sorted(job.version for job in jobs) == list(range(1, len(jobs) + 1))
            generations = {row.id: row.generation for row in session.execute(select(Series.id, Series.generation))}
            for job in standing:
                if job.preset_refusal is None and job.state != "cancelled":
                    assert job.series_generation == generations[job.series_id]  # nothing stands over images that changed since
            states = {
                kind.name: {row.id: row.state for row in session.execute(select(table.id, table.state))}
                for kind, table in ((SERIES, Series), (JOB, Job), (DELIVERY, Delivery))
            }
            told: dict[tuple[str, int], str] = {}
            for row in session.scalars(select(AuditRow).order_by(AuditRow.id)):
                assert row.from_state == told.get((row.kind, row.row_id), "")
                told[row.kind, row.row_id] = row.to_state
            assert told == {(kind, row_id): state for kind, rows in states.items() for row_id, state in rows.items()}
            superseded = [job.id for job in jobs if job.state == "superseded"]
            waiting = select(Delivery.id).where(Delivery.job_id.in_(superseded), Delivery.state == "waiting")
            assert session.scalars(waiting).all() == []
        assert all(count == 1 for count in self.sent.values())

    def check_end(self) -> None:
        """What must hold when all has come to its end: one standing job over all images of the best series, all of it sent."""
        with self.registry._database.read() as session:
            standing = session.scalars(select(Job).where(Job.state != "superseded")).all()
            by_series = Counter(uid.split(".")[3] for uid in self.images)
            if not by_series:
                assert standing == []
                return
            (job,) = standing
            if job.outcome == "refused":
                return
            best = "1" if by_series["1"] >= 2 else "2"
            result = session.scalars(select(Result).where(Result.job_id == job.id, Result.kind == "SEG")).one()
            assert set(result.sources) == {uid for uid in self.images if uid.split(".")[3] == best}
            states = session.execute(select(Delivery.state).where(Delivery.job_id == job.id, Delivery.state != "cancelled"))
            assert {row.state for row in states} == {"sent"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a place: these databases live for milliseconds and are synced a hundred times each."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.mark.parametrize("seed", range(8))
def test_one_set_of_results_whatever_happens(fresh_sqlite: Path, folder: Path, seed: int) -> None:
    path = folder / f"{seed}.db"
    shutil.copyfile(fresh_sqlite, path)
    clock = Clock()
    registry = Registry(f"sqlite:///{path}", clock=clock)
    try:
        world = World(registry, clock)
        for step in random_steps(seed):
            world.step(step)
            world.check()
        world.drain()
        world.check()
        world.check_end()
    finally:
        registry.close()
