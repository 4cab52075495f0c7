"""The worker: claims jobs, makes findings of images and result objects of findings. The only role that loads torch."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from dicomnode import imaging, logs
from dicomnode.domain.errors import (
    DatabaseUnreachable,
    DicomNodeError,
    OutOfSpace,
    PipelineError,
    ResourceExhausted,
    StaleUpdate,
)
from dicomnode.domain.findings import Findings, ModelIdentity
from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, SeriesRef, Volume
from dicomnode.domain.profiles import SHIPPED, Profile
from dicomnode.domain.results import ResultKind, ResultObject, ResultRequest
from dicomnode.domain.routes import Destination, Route
from dicomnode.domain.states import JobEvent
from dicomnode.registry import OUT_OF_SPACE, ClaimedJob, Registry
from dicomnode.roles import confinement, wiring
from dicomnode.roles.ahead import Ahead, Wish
from dicomnode.roles.analysis import Analysis, analyse, build_results, findings_summary
from dicomnode.roles.endings import NOBODYS_FAULT, Ending, code_of, disk_trouble
from dicomnode.roles.leases import HeldLease
from dicomnode.roles.lifeline import Lifeline
from dicomnode.settings import Settings
from dicomnode.storage import Store
from dicomnode.storage.durable import storage_error

if TYPE_CHECKING:
    from dicomnode.engines import Pipeline, PipelineInfo

IDLE_S = 0.5
DATABASE_AWAY_S = 1.0
FIRST_RETRY_S = 10.0
NOTICE_AGAIN_S = 60.0

_log = structlog.get_logger()


class Worker:
    """Runs jobs one after the other. One process, one device."""

    def __init__(self, settings: Settings, registry: Registry, store: Store, lifeline: Lifeline) -> None:
        self._settings, self._registry, self._store, self._lifeline = settings, registry, store, lifeline
        self._name = wiring.worker_name(settings)
        self._routes = {route.name: route for route in wiring.routes(settings)}
        self._destinations = {one.name: one for one in wiring.destinations(settings)}
        self._pipelines: dict[str, Pipeline] = {}
        self._ahead = Ahead(self._next)
        self._worn = False  # memory ran out in this process: it may not have all of it back

    def warm_up(self) -> None:
        """Load what the first job would otherwise wait for: decoders, result building, the routes' models."""
        from dicomnode import results

        imaging.install_decoders()
        results.warm_up()
        for name, speed in sorted({(route.pipeline, route.speed) for route in self._routes.values()}):
            try:
                self.pipeline(name).warm_up(speed)
            except DicomNodeError as error:  # its jobs will say so; the others go on
                _log.error("pipeline cannot be loaded", pipeline=name, exc_info=error)
        logs.take_over_libraries()  # MONAI and ignite bring handlers of their own

    def loop(self) -> None:
        """Until told to stop, or until memory ran out: then a fresh process takes this one's place."""
        while not self._lifeline.stop.is_set():
            if self._worn:
                _log.warning("memory ran out: a fresh worker takes over")
                self._lifeline.replace()
                return
            self._lifeline.alive()
            try:
                job = self._registry.claim_job(self._name, self._settings.work.lease_s)
                notice = None if job is not None else self._registry.claim_notice(self._name)
            except DicomNodeError as error:
                _log.error("no job could be claimed", exc_info=error)
                self._begin_anew()
                continue
            if job is not None:
                self.attempt(job)
            elif notice is not None:
                self.say_not_run(notice)
            else:
                self._lifeline.stop.wait(IDLE_S)

    def _begin_anew(self) -> None:
        """Once the database answers: a claim may have been kept although its answer was lost, and we know of no job."""
        while not self._lifeline.stop.wait(DATABASE_AWAY_S):
            self._lifeline.alive()
            with suppress(DicomNodeError):
                self._registry.worker_ended(self._name)
                return

    def attempt(self, job: ClaimedJob) -> None:
        """One attempt at one job, its lease held, every ending written down."""
        limits = self._settings.work
        _log.info("job started", job=job.key, study=job.study_key, pipeline=job.pipeline, attempt=job.attempt)
        try:
            with HeldLease(self._registry, job, self._lifeline, job_timeout_s=limits.job_timeout_s, drain_s=limits.drain_s):
                try:
                    ending = self.run(job)
                except Exception as error:  # noqa: BLE001 - the boundary of a job: it must never take the worker with it
                    ending = self._failed(job, error)
            # What is left of the lease is enough, and nobody renews what has ended.
            self._written_down(job, lambda: self._finish(job, ending))
        except StaleUpdate:
            _log.warning("result dropped: the job belongs to somebody else now", job=job.key)
        except DicomNodeError as error:  # the lease runs out and the job is tried again
            _log.error("the end of a job could not be written", job=job.key, exc_info=error)

    def say_not_run(self, job: ClaimedJob) -> None:
        """Say it for a job whose own workers could not: they died, or were not heard of any more."""
        try:
            route, refusal = self._route(job), job.refusal
            if refusal is None or not route.send_not_run:
                self._registry.say_not_run(job, (), (), {})
                return
            objects, _ = self._saved(job, route, self._located(job), Analysis(None, refusal))
            open_to, _ = self._open_to(job, [self._destinations[name] for name in route.send_to])
            kinds = {one.name: one.profile.kinds for one in open_to}
            profiles = {one.name: one.profile.name for one in open_to}
            names = [one.name for one in open_to]
            self._written_down(job, lambda: self._registry.say_not_run(job, objects, names, kinds, profiles))
            _log.info("not run was said for a job whose workers died", job=job.key, results=len(objects))
        except Exception as error:  # noqa: BLE001 - the boundary of a notice: the job's row says what happened all the same
            _log.error("the notice of a failed job could not be made", job=job.key, exc_info=error)
            disk = disk_trouble(error)
            if isinstance(error, OutOfSpace | DatabaseUnreachable) or (disk is not None and disk.errno in NOBODYS_FAULT):
                with suppress(DicomNodeError):  # else it is claimed again once this claim has run out
                    self._registry.put_off_notice(job, NOTICE_AGAIN_S)

    def run(self, job: ClaimedJob) -> Ending:
        """Load → check → infer → build results → verify → save. The one path of every job."""
        route = self._route(job)
        series = self._located(job)
        if job.refusal is not None:
            analysis = Analysis(None, job.refusal)
        else:
            analysis = analyse(
                series,
                lambda: self.pipeline(job.pipeline),
                speed=route.speed,
                allow_many_frames_of_reference=route.allow_many_frames_of_reference,
                others={role: self._absolute(one) for role, one in job.others.items()},
                load=lambda one: self._loaded(one, route),
            )
            self._worn |= isinstance(analysis.outcome, Findings) and "fell back" in analysis.outcome.run
        if isinstance(analysis.outcome, Refusal):
            return self._refused(job, route, series, analysis)
        objects, results_s = self._saved(job, route, series, analysis)
        return Ending(
            JobEvent.FINISHED,
            findings_summary=findings_summary(analysis.outcome),
            results=objects,
            timings_s={**analysis.timings_s, "results": results_s},
        )

    # --- the steps

    def _route(self, job: ClaimedJob) -> Route:
        if job.route not in self._routes:
            raise PipelineError(f"route {job.route!r} is no longer in the settings", "add it again, or cancel the job")
        return self._routes[job.route]

    def _loaded(self, series: SeriesRef, route: Route) -> Volume | Image2D | Refusal:
        """The series, decoded now or while the last job ran; then the one after it is begun."""
        loaded = self._ahead.load(Wish(series, route.allow_many_frames_of_reference))
        self._ahead.begin()
        return loaded

    def _next(self) -> Wish | None:
        """What the job after this one would load."""
        found = self._registry.lookahead.next_series()
        if found is None or found[0] not in self._routes:
            return None
        return Wish(self._absolute(found[1]), self._routes[found[0]].allow_many_frames_of_reference)

    def _located(self, job: ClaimedJob) -> SeriesRef:
        """The job's series with absolute paths."""
        if job.series is None:
            raise PipelineError("nothing of the study is left", "send the study again")
        return self._absolute(job.series)

    def _absolute(self, series: SeriesRef) -> SeriesRef:
        instances = tuple(replace(one, path=self._store.absolute(one.path)) for one in series.instances)
        return replace(series, instances=instances)

    def pipeline(self, name: str) -> "Pipeline":
        """The loaded pipeline of this name. Raises PipelineError."""
        if name not in self._pipelines:
            from dicomnode import engines

            info = self._info(name)
            if info is None:
                raise PipelineError(f"pipeline {name!r} does not exist", "dicomnode pipelines list names those that do")
            trusted = frozenset(self._settings.pipelines.trusted)
            self._pipelines[name] = engines.load_pipeline(
                info.folder,
                device=self._settings.work.device,
                trusted_digests=trusted,
                proofs=self._settings.data_dir / "selftests",
                folders=self._settings.pipeline_folders,
            )
        return self._pipelines[name]

    def _info(self, name: str) -> "PipelineInfo | None":
        from dicomnode import engines

        found = engines.find_pipelines(self._settings.pipeline_folders)
        return next((info for info in found if info.name == name), None)

    def _identity(self, name: str) -> ModelIdentity:
        """Whose word it is, also where the model cannot be loaded; what is not known counts as a demonstration."""
        if name in self._pipelines:
            return self._pipelines[name].identity
        info = self._info(name)
        if info is None:
            return ModelIdentity(name, "unknown", "", "", "", demonstration=True)
        return info.identity

    def _refused(self, job: ClaimedJob, route: Route, series: SeriesRef, analysis: Analysis) -> Ending:
        """Say "AI not run" in the PACS, unless the image shows another region: then nobody expected a result."""
        refusal = analysis.outcome
        assert isinstance(refusal, Refusal)  # noqa: S101 - the caller looked
        ending = Ending(
            JobEvent.REFUSED, refusal.code.value, refusal.message, refusal.remedy, timings_s=dict(analysis.timings_s)
        )
        if route.send_not_run and refusal.code is not RefusalCode.NOT_THIS_REGION:
            ending.results, results_s = self._saved(job, route, series, analysis)
            ending.timings_s = {**ending.timings_s, "results": results_s}
        return ending

    def _saved(
        self, job: ClaimedJob, route: Route, series: SeriesRef, analysis: Analysis
    ) -> tuple[tuple[ResultObject, ...], float]:
        """Objects built in the job's spool folder, verified and made durable; paths count from the store's root."""
        # A folder for each start: rows may name what an earlier end of this job left, such as a "not run" that still waits.
        folder = self._store.spool_dir(f"{job.key}-{job.starts}")
        for leftover in folder.iterdir():  # of a first try in this attempt: no row names these files
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        request = self._request(job, route, analysis)
        objects, results_s = build_results(analysis, [one.path for one in series.instances], request, folder, hold=True)
        for one in objects:
            self._store.seal(one.path)
        if any(one.held for one in objects):
            _log.error("results are held: a check before sending failed", job=job.key)
        return tuple(replace(one, path=self._store.relative(one.path)) for one in objects), results_s

    def _request(self, job: ClaimedJob, route: Route, analysis: Analysis) -> ResultRequest:
        model = analysis.outcome.model if isinstance(analysis.outcome, Findings) else self._identity(job.pipeline)
        wanted: dict[str, Profile] = {}
        for one in map(self._destinations.__getitem__, route.send_to):
            if one.kind != "folder":
                wanted[one.profile.name] = one.profile
            else:  # it refuses nothing
                wanted.setdefault(one.profile.name, one.profile.without_fallbacks())
        return ResultRequest(
            pipeline=job.pipeline,
            pipeline_version=model.version,
            version=job.version,
            content_time=job.content_time,
            node_timezone=self._settings.timezone,
            source_digests=job.source_digests,
            uid_root=self._settings.node.uid_root,
            kinds=tuple(kind for kind in ResultKind if kind.value in route.results),
            predecessor=job.predecessor,
            demonstration=model.demonstration,
            model=model,
            profiles=tuple(wanted.values()) or (SHIPPED["ohif"],),
            draw_identity=route.draw_identity,
        )

    # --- the endings

    def _failed(self, job: ClaimedJob, error: Exception) -> Ending:
        """Another try for what may pass, an end for what will not; the last one is said in the PACS too."""
        known = error if isinstance(error, DicomNodeError) else None
        self._worn |= isinstance(error, MemoryError | ResourceExhausted)
        if isinstance(error, MemoryError):
            known = ResourceExhausted("memory ran out", "give the machine more memory, or use a smaller pipeline")
        disk = disk_trouble(error)
        if disk is not None:
            known = error = storage_error(disk)
        _log.error("job attempt failed", job=job.key, attempt=job.attempt, exc_info=error)
        reason = (
            str(known) if known else f"an error inside the node ({type(error).__name__}, {logs.frames(error.__traceback__)})"
        )
        code = code_of(error)
        # An error that nobody foresaw may come from the machine's state: it is tried again like a known passing one.
        # A disk that is full or read-only is nobody's fault and costs no attempt.
        passes = isinstance(known, OutOfSpace) or (disk is not None and disk.errno in NOBODYS_FAULT)
        code = OUT_OF_SPACE if passes else code
        if passes or ((known is None or known.retryable or disk is not None) and not job.last_attempt):
            return Ending(JobEvent.TRY_AGAIN, code, reason, retry_after_s=FIRST_RETRY_S * 6 ** (job.attempt - 1))
        ending = Ending(JobEvent.FAILED, code, reason)
        try:
            route, series = self._route(job), self._located(job)
            if route.send_not_run:
                refusal = Refusal(RefusalCode.PROCESSING_FAILED, reason, "look at the node's logs", ())
                ending.results, _ = self._saved(job, route, series, Analysis(None, refusal))
        except Exception as second:  # noqa: BLE001 - what breaks the work may break its report; the job's row still says it
            _log.error("the notice of a failed job could not be made", job=job.key, exc_info=second)
        return ending

    def _written_down(self, job: ClaimedJob, write: Callable[[], None]) -> None:
        """`write`, as often as the database is away: what was computed is not computed again, or left unsaid, for that."""
        said = False
        while True:
            try:
                return write()
            except DatabaseUnreachable as error:
                if not said:
                    _log.warning("the end of a job cannot be written yet", job=job.key, exc_info=error)
                said = True
                self._lifeline.alive()
                if self._lifeline.stop.wait(DATABASE_AWAY_S):
                    raise

    def _finish(self, job: ClaimedJob, ending: Ending) -> None:
        """State, results and deliveries in one transaction."""
        route = self._routes.get(job.route)
        send_to = [self._destinations[name] for name in (route.send_to if route else ())]
        open_to, notes = self._open_to(job, send_to) if ending.results else ((), [])
        self._registry.finish_job(
            job,
            ending.event,
            reason_code=ending.reason_code,
            reason=ending.reason,
            remedy=ending.remedy,
            findings_summary=ending.findings_summary,
            results=ending.results,
            destinations=[one.name for one in open_to],
            notes=notes,
            timings_s=ending.timings_s,
            retry_after_s=ending.retry_after_s,
            kinds_by_destination={one.name: one.profile.kinds for one in open_to},
            profile_by_destination={one.name: one.profile.name for one in open_to},
        )
        took = {f"{name}_s": round(seconds, 3) for name, seconds in ending.timings_s.items()}
        _log.info(
            "job ended", job=job.key, how=ending.event.value, code=ending.reason_code, results=len(ending.results), **took
        )

    def _open_to(self, job: ClaimedJob, send_to: list[Destination]) -> tuple[tuple[Destination, ...], list[str]]:
        """The destinations that may get this model's results, and a note on each that may not."""
        if not self._identity(job.pipeline).demonstration:
            return tuple(send_to), []
        closed = [one.name for one in send_to if not one.accept_demonstration]
        notes = [f"withheld: destination {name} does not accept demonstration models" for name in closed]
        return tuple(one for one in send_to if one.accept_demonstration), notes


def confine(settings: Settings) -> None:
    """The limits that this process sets itself, before it opens anything."""
    given_mb = settings.work.memory_mb
    if given_mb or settings.work.device == "cpu" or not Path("/dev/nvidiactl").exists():
        confinement.limit_memory(given_mb << 20 if given_mb else confinement.memory_given())
    by_network = confinement.reached_by_network(settings.database_url)
    if not confinement.refuse_network(database_by_network=by_network):
        _log.info("the worker is kept off the network in Python only")


def main(settings: Settings, lifeline: Lifeline) -> None:
    """The process."""
    confine(settings)
    registry, store = wiring.open_registry(settings), wiring.open_store(settings)
    worker = Worker(settings, registry, store, lifeline)
    worker.warm_up()
    lifeline.ready()
    try:
        worker.loop()
    finally:
        registry.close()
