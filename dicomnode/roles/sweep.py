"""The only clock of the node: completeness and routing, lost leases, leftovers, each on its own interval."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.schedulers.background import BackgroundScheduler

from dicomnode import routing
from dicomnode.domain.clock import utc_now
from dicomnode.domain.errors import DatabaseUnreachable, StorageError, UnreachableError
from dicomnode.domain.routes import InputRole, Route
from dicomnode.registry import Registry
from dicomnode.roles import leftovers, wiring
from dicomnode.roles.alarms import AlarmWatch
from dicomnode.roles.canary import Canary
from dicomnode.roles.counts import Counts
from dicomnode.roles.lifeline import Lifeline
from dicomnode.roles.rejections import RejectionNotes
from dicomnode.roles.retention import Retention
from dicomnode.roles.space import ReserveKeeper
from dicomnode.roles.withdrawals import Withdrawals
from dicomnode.settings import Settings
from dicomnode.storage import Store

LEASES_EVERY_S = 10.0
LEFTOVERS_EVERY_S = 3600.0
RESERVE_EVERY_S = 5.0
RETENTION_EVERY_S = 600.0
CANARY_LOOK_EVERY_S = 5.0
ALARMS_EVERY_S = 20.0
REJECTIONS_EVERY_S = 5.0
LATE_AFTER_S = 60.0  # no sweep for this long beyond its interval: the scheduler's clock is lost

_log = structlog.get_logger()


class Sweeper:
    """What is done on a clock. Each method is idempotent and can be called at any time."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        routes: tuple[Route, ...],
        facts: Mapping[str, routing.PipelineFacts],
        retention: Retention,
        count: routing.type_count,
        rejections: RejectionNotes,
        withdrawals: Withdrawals,
        canary: Canary | None = None,
    ) -> None:
        self._registry, self._store, self._routes, self._facts = registry, store, routes, facts
        self._retention, self._canary, self._count = retention, canary, count
        self._rejections, self._withdrawals = rejections, withdrawals
        self._watch = routing.Watch()  # the receiver starts with this role
        self.last_sweep_at = time.monotonic()

    def completeness(self) -> None:
        """Which series are complete, which route takes them: jobs."""
        try:
            report = routing.sweep(
                self._registry,
                self._routes,
                utc_now(),
                pipelines=self._facts,
                watch=self._watch,
                count=self._count,
            )
        except DatabaseUnreachable:
            # The clock goes on. A fresh process would know neither since when the database is away nor how long it was silent.
            self.last_sweep_at = time.monotonic()
            raise
        self.last_sweep_at = time.monotonic()
        for key in report.series_completed:
            _log.info("series complete", series=key, how="forced" if key in report.series_forced else "quiet")
        for key in report.jobs_created:
            _log.info("job queued", job=key)
        for key, error in report.studies_failed:
            _log.error("a study cannot be judged", study=key, exc_info=error)

    def leases(self) -> None:
        """Jobs and deliveries of workers that are gone go back to their queue."""
        if rescued := self._registry.requeue_lost(utc_now()):
            _log.warning("leases ran out", count=rescued)

    def leftovers(self) -> None:
        """Files that no row names and nobody works on any more."""
        if removed := leftovers.sweep_spool(self._store, self._registry):
            _log.info("leftovers removed", count=removed)

    def retention(self) -> None:
        """What has been kept long enough."""
        purged = self._retention.sweep(self._registry.keeping.believed_time())
        if purged.studies or purged.jobs:
            _log.info("kept long enough and removed", count=purged.studies, jobs=purged.jobs, images=purged.files)

    def rejections(self) -> None:
        """What peers no longer want to be used, and what newer versions of ours replaced."""
        self._rejections.sweep()
        self._withdrawals.sweep(utc_now())

    def canary(self) -> None:
        """Whether results still come out."""
        if self._canary is not None:
            self._canary.tick(utc_now())

    def after_a_start(self) -> None:
        """If the last run ended without order, look at what arrived in it."""
        if damaged := leftovers.damaged_since_clean_stop(self._store, self._registry):
            _log.error("stored instances are missing or damaged: run dicomnode fsck", instances=damaged)


def schedule(tasks: Mapping[str, tuple[Callable[[], None], float]]) -> BackgroundScheduler:
    """A scheduler of `name: (task, interval in seconds)`. Late runs merge into one, none is dropped, none overlaps itself."""
    scheduler = BackgroundScheduler(
        timezone=UTC, job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
    )
    for name, (task, seconds) in tasks.items():
        scheduler.add_job(task, "interval", seconds=seconds, id=name, next_run_time=utc_now())
    counts: Counter[str] = Counter()
    away: set[str] = set()  # tasks whose last run found no database: an alarm says so, and each of them once

    def noticed(event: JobEvent) -> None:
        counts[event.job_id] += 1
        error = getattr(event, "exception", None)
        if isinstance(error, UnreachableError):
            if event.job_id in away:
                return
            away.add(event.job_id)
        _log.warning("sweep missed or failed", task=event.job_id, count=counts[event.job_id], exc_info=error)

    # What its loggers say, the listener says in our own words.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    scheduler.add_listener(lambda event: away.discard(event.job_id), EVENT_JOB_EXECUTED)
    scheduler.add_listener(noticed, EVENT_JOB_MISSED | EVENT_JOB_ERROR | EVENT_JOB_MAX_INSTANCES)
    return scheduler


class ClockJumps:
    """A clock that is set back stops the scheduler until it has caught up: then everything is due at once."""

    def __init__(
        self,
        scheduler: BackgroundScheduler,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler, self._wall, self._monotonic = scheduler, wall, monotonic
        self._offset = wall() - monotonic()

    def look(self) -> None:
        """Every second or so."""
        before, self._offset = self._offset, self._wall() - self._monotonic()
        if abs(self._offset - before) > routing.JUMP_S:
            _log.warning("the clock of the machine was set", elapsed_s=round(self._offset - before, 1))
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=utc_now())


def pipeline_facts(settings: Settings) -> dict[str, routing.PipelineFacts]:
    """What routing must know of each pipeline; no model is loaded for that."""
    from dicomnode import engines
    from dicomnode.engines.sidecar import read_sidecar

    facts = {}
    for info in engines.find_pipelines(settings.pipeline_folders):
        sidecar = read_sidecar(info.folder)
        roles = tuple(InputRole(one.name, one.match, one.derived) for one in sidecar.roles)
        needs = sidecar.input.min_slices
        facts[info.name] = routing.PipelineFacts(info.name, modality=info.modality, min_slices=needs, inputs=roles)
    return facts


def main(settings: Settings, lifeline: Lifeline) -> None:
    """The process."""
    registry = wiring.open_registry(settings)
    store = wiring.open_store(settings)
    retention = Retention(registry, store, settings)
    rejections = RejectionNotes(registry, store, settings)
    withdrawals = Withdrawals(registry, store, settings, wiring.destinations(settings))
    canary = Canary(settings, registry) if settings.canary.every_h else None
    count = Counts(wiring.peers(settings), settings.node.ae_title)
    watch = AlarmWatch(settings, registry)
    facts = pipeline_facts(settings)
    sweeper = Sweeper(registry, store, wiring.routes(settings), facts, retention, count, rejections, withdrawals, canary)
    scheduler = schedule(
        {
            "completeness": (sweeper.completeness, settings.sweep.interval_s),
            "leases": (sweeper.leases, LEASES_EVERY_S),
            "leftovers": (sweeper.leftovers, LEFTOVERS_EVERY_S),
            "retention": (sweeper.retention, RETENTION_EVERY_S),
            "rejections": (sweeper.rejections, REJECTIONS_EVERY_S),
            "canary": (sweeper.canary, CANARY_LOOK_EVERY_S),
            "alarms": (lambda: watch.look(utc_now()), ALARMS_EVERY_S),
            "reserve": (ReserveKeeper(wiring.open_reserve(settings)).tend, RESERVE_EVERY_S),
        }
    )
    scheduler.add_job(sweeper.after_a_start, id="after_a_start")
    scheduler.start()
    clock = ClockJumps(scheduler)
    lifeline.ready()
    try:
        while not lifeline.stop.wait(1.0):
            clock.look()
            if time.monotonic() - sweeper.last_sweep_at > settings.sweep.interval_s + LATE_AFTER_S:
                raise StorageError("no sweep ran for a minute", "look at the machine's clock and at the database")
            lifeline.alive()
    finally:
        scheduler.shutdown(wait=True)
        registry.close()
