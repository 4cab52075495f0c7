"""The queue of jobs: claim, lease, finish, rescue."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, String, cast, exists, func, literal, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from dicomnode.domain.errors import StaleUpdate
from dicomnode.domain.imaging import InstanceRef, Refusal, RefusalCode, SeriesRef
from dicomnode.domain.results import Predecessor, ResultKind
from dicomnode.domain.states import DeliveryEvent, DeliveryState, JobEvent, JobState, SeriesState
from dicomnode.registry.records import MAX_JOB_ATTEMPTS, MAX_JOB_CRASHES, MAX_JOB_STARTS, ClaimedJob, JobInput
from dicomnode.registry.tables import Delivery, Instance, Job, Result, Series, Study
from dicomnode.registry.transitions import DELIVERY, JOB, change, remarked

_FIRST_BACKOFF_S = 10.0
_LONGEST_BACKOFF_S = 3600.0
# What one step of priority is worth: a job that has waited so much longer goes first all the same, so none waits for ever.
PRIORITY_STEP_S = 600.0

# States in which a late image supersedes a job. A cancelled one stays what the operator made it.
REPLACED_BY_LATE_IMAGE = (JobState.QUEUED, JobState.RUNNING, JobState.DONE, JobState.REFUSED, JobState.FAILED)
# The object is in the destination, or may be: its answer was not seen.
ARRIVED = (DeliveryState.SENDING, DeliveryState.SENT, DeliveryState.CONFIRMED)


def backoff_s(attempt: int) -> float:
    """Seconds until the next attempt: doubling from 10 s to an hour, ± 20 % so that many do not come back together."""
    doublings = min(max(attempt - 1, 0), 16)
    return min(_FIRST_BACKOFF_S * float(2**doublings), _LONGEST_BACKOFF_S) * random.uniform(0.8, 1.2)  # noqa: S311


def rank(created_at: datetime, priority: int) -> datetime:
    """When a job without priority would have come, to stand where this one stands. It never changes: all grow old alike."""
    return created_at - timedelta(seconds=PRIORITY_STEP_S * priority)


def claimable(now: datetime) -> list[ColumnElement[bool]]:
    """Queued, due, held by nobody, its series complete.

    A preset "not run" waits while its study still receives: a better series may come.
    """
    # Correlated, so that they look at the few queued jobs' studies, not at ten thousand others.
    held_study = exists().where(Study.id == Job.study_id, Study.held != "")
    arriving = Series.state == SeriesState.ARRIVING.value
    unfit_series = exists().where(Series.id == Job.series_id, or_(Series.held != "", arriving))
    unfit_input = exists().where(Series.study_id == Job.study_id, _is_read_besides(), or_(Series.held != "", arriving))
    receiving = exists().where(Study.id == Job.study_id, Study.unsettled)
    return [
        Job.state == JobState.QUEUED.value,
        Job.not_before <= now,
        Job.held == "",
        ~held_study,
        ~unfit_series,
        or_(Job.others.is_(None), ~unfit_input),
        or_(Job.preset_refusal.is_(None), ~receiving),
    ]


def _is_read_besides() -> ColumnElement[bool]:
    """Whether the series is one of the job's further ones: as `inputs_as_json` wrote it, since the two databases agree on text
    and not on how to look into JSON. A quote within a role's name is escaped there, so no name can look like a key.
    """
    return cast(Job.others, String).like(literal('%"series_id": ') + cast(Series.id, String) + literal(",%"))


def anything_claimable(session: Session, now: datetime) -> bool:
    """Whether a claim has a chance. Reads only."""
    return session.scalar(select(Job.id).where(*claimable(now)).limit(1)) is not None


def claim(session: Session, worker: str, lease_s: float, now: datetime) -> ClaimedJob | None:
    """The next job by priority and age. Other claimers skip the row (PostgreSQL) or wait for this transaction (SQLite)."""
    job = session.scalars(
        select(Job)
        .where(*claimable(now))
        .order_by(func.coalesce(Job.rank_at, Job.created_at), Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if job is None:
        return None
    attempt, starts = job.attempt + 1, job.starts + 1
    values = {
        "worker": worker,
        "attempt": attempt,
        "starts": starts,
        "started_at": now,
        "finished_at": None,
        "lease_until": now + timedelta(seconds=lease_s),
        "reason_code": "",
        "reason": "",
        "remedy": "",
    }
    change(
        session, JOB, job.id, job.state, JobEvent.CLAIMED, now=now, actor=worker, fence={"starts": job.starts}, values=values
    )
    return claimed_as(session, job, worker, attempt, starts, lease_s, refusal_from(job.preset_refusal))


def claimed_as(
    session: Session, job: Job, worker: str, attempt: int, starts: int, lease_s: float, refusal: Refusal | None
) -> ClaimedJob:
    """The job as its new owner gets it."""
    study_uid = session.execute(select(Study.study_instance_uid).where(Study.id == job.study_id)).scalar_one()
    series, digests = series_ref(session, study_uid, job.series_id)
    others = {}
    for one in inputs_from(job.others):
        found, of_these = series_ref(session, study_uid, one.series_id)
        if found is not None:
            others[one.role] = found
            digests = {**digests, **of_these}
    return ClaimedJob(
        id=job.id,
        key=f"J{job.id}",
        study_key=f"S{job.study_id}",
        series_key=f"E{job.series_id}" if job.series_id is not None else "",
        study_instance_uid=study_uid,
        route=job.route,
        pipeline=job.pipeline,
        version=job.version,
        attempt=attempt,
        starts=starts,
        worker=worker,
        lease_s=lease_s,
        content_time=job.created_at,
        series=series,
        source_digests=digests,
        refusal=refusal,
        predecessor=_predecessor(session, job),
        others=others,
    )


def series_ref(session: Session, study_uid: str, series_id: int | None) -> tuple[SeriesRef | None, Mapping[str, str]]:
    """What a job reads of a series, and SOP Instance UID → SHA-256 of it; what a note rejected is left out."""
    if series_id is None:
        return None, {}
    series_uid = session.execute(select(Series.series_instance_uid).where(Series.id == series_id)).scalar_one()
    columns = (Instance.sop_instance_uid, Instance.sop_class_uid, Instance.path, Instance.number_of_frames, Instance.sha256)
    standing = (Instance.series_id == series_id, ~Instance.ours, Instance.rejected.is_(None))
    rows = session.execute(select(*columns).where(*standing).order_by(Instance.id)).all()
    refs = tuple(InstanceRef(row.sop_instance_uid, row.sop_class_uid, Path(row.path), row.number_of_frames) for row in rows)
    return SeriesRef(study_uid, series_uid, refs), {row.sop_instance_uid: row.sha256 for row in rows}


def refusal_as_json(refusal: Refusal | None) -> dict[str, Any] | None:
    """A refusal as a column holds it."""
    if refusal is None:
        return None
    return {
        "code": refusal.code.value,
        "message": refusal.message,
        "remedy": refusal.remedy,
        "instances": list(refusal.instances),
    }


def refusal_from(stored: Mapping[str, Any] | None) -> Refusal | None:
    """The refusal that a column holds."""
    if stored is None:
        return None
    return Refusal(RefusalCode(stored["code"]), stored["message"], stored["remedy"], tuple(stored["instances"]))


def inputs_as_json(inputs: Iterable[JobInput]) -> list[dict[str, object]] | None:
    """The further series of a job as a column holds them; None where it reads one series."""
    return [{"role": one.role, "series_id": one.series_id, "generation": one.generation} for one in inputs] or None


def inputs_from(stored: Iterable[Mapping[str, Any]] | None) -> tuple[JobInput, ...]:
    """The further series that a column holds."""
    return tuple(JobInput(one["role"], one["series_id"], one["generation"]) for one in stored or ())


def newest_inputs(session: Session, inputs: Iterable[JobInput]) -> tuple[JobInput, ...]:
    """The same series as they are now."""
    return tuple(replace(one, generation=generation_of(session, one.series_id)) for one in inputs)


def _predecessor(session: Session, job: Job) -> Predecessor | None:
    """The newest earlier version whose SR reached some destination, or may have."""
    row = session.execute(
        select(Job.version, Result.sop_class_uid, Result.sop_instance_uid, Result.series_instance_uid)
        .join(Result, Result.job_id == Job.id)
        .join(Delivery, Delivery.result_id == Result.id)
        .where(*same_family(job), Job.version < job.version)
        .where(Result.kind == ResultKind.SR.value, Delivery.state.in_(ARRIVED))
        .order_by(Job.version.desc(), Result.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else Predecessor(*row)


def generation_of(session: Session, series_id: int | None) -> int:
    """How often the series was reopened by now."""
    return session.scalar(select(Series.generation).where(Series.id == series_id)) or 0


def same_family(job: Job) -> list[ColumnElement[bool]]:
    """The versions of one set of results: same study, pipeline and scope."""
    return [Job.study_id == job.study_id, Job.pipeline == job.pipeline, Job.scope_series_id == job.scope_series_id]


def fence_of(job: ClaimedJob) -> dict[str, object]:
    """What must still hold when a worker comes back with its claim."""
    return {"worker": job.worker, "attempt": job.attempt, "starts": job.starts}


def renew(session: Session, job: ClaimedJob, now: datetime) -> None:
    """Own the job for another lease. No transition: the state stays running."""
    conditions = [Job.id == job.id, Job.state == JobState.RUNNING.value]
    conditions += [Job.worker == job.worker, Job.attempt == job.attempt, Job.starts == job.starts]
    renewed = session.execute(
        update(Job).where(*conditions).values(lease_until=now + timedelta(seconds=job.lease_s)).returning(Job.id),
        execution_options={"synchronize_session": False},
    ).all()
    if len(renewed) != 1:
        raise StaleUpdate(f"{job.key} is no longer in the hands of this worker", "stop working on it and drop its outcome")


def requeue_lost(session: Session, ended_before: datetime, now: datetime) -> int:
    """Running jobs whose lease ended: queued again after a pause, or failed when no attempt is left."""
    ended = (Job.state == JobState.RUNNING.value, Job.lease_until < ended_before)
    lost = session.scalars(select(Job).where(*ended).with_for_update(skip_locked=True)).all()
    for job in lost:
        reason = f"the worker was not heard of for {job.attempt} of {MAX_JOB_ATTEMPTS} attempts"
        if job.attempt >= MAX_JOB_ATTEMPTS:
            _fail(session, job, "lease_lost", reason, now)
        else:
            pause = timedelta(seconds=backoff_s(job.attempt))
            _requeue(session, job, JobEvent.LEASE_LOST, now, reason=reason, not_before=now + pause)
    return len(lost)


def worker_died(session: Session, worker: str, now: datetime) -> int:
    """Jobs of a worker that died while its supervisor lived: a crash counts; the third is poison. The attempt is given back."""
    jobs = session.scalars(select(Job).where(Job.state == JobState.RUNNING.value, Job.worker == worker).with_for_update()).all()
    for job in jobs:
        crashes = job.crashes + 1
        if crashes >= MAX_JOB_CRASHES:
            reason = f"its worker died {crashes} times while running it; it is set aside so that it harms nobody else"
            _fail(session, job, "poison", reason, now, crashes=crashes)
        else:
            pause = timedelta(seconds=backoff_s(crashes))
            reason = f"the worker died while running it ({crashes} of {MAX_JOB_CRASHES})"
            values = {"crashes": crashes, "attempt": job.attempt - 1}
            _requeue(session, job, JobEvent.WORKER_DIED, now, reason=reason, not_before=now + pause, **values)
    return len(jobs)


def held_by_node(worker: InstrumentedAttribute[str], node: str) -> list[ColumnElement[bool]]:
    """What a process of this node holds; "": whosever it is."""
    return [worker.startswith(f"{node}:", autoescape=True)] if node else []


def worker_ended(session: Session, worker: str, now: datetime) -> int:
    """A worker ended in order: its running jobs are queued, their attempt given back."""
    return _given_back(session, now, Job.worker == worker)


def node_ended(session: Session, now: datetime, *, node: str) -> int:
    """The same for every worker of this node, which was restarted."""
    return _given_back(session, now, *held_by_node(Job.worker, node))


def _given_back(session: Session, now: datetime, *mine: ColumnElement[bool]) -> int:
    """At 20 starts an operator is waited for."""
    jobs = session.scalars(select(Job).where(Job.state == JobState.RUNNING.value, *mine).with_for_update()).all()
    for job in jobs:
        exhausted = job.starts - job.starts_forgiven >= MAX_JOB_STARTS
        held = f"it was found running after {MAX_JOB_STARTS} starts" if exhausted else ""
        _requeue(session, job, JobEvent.NODE_RESTARTED, now, not_before=now, attempt=job.attempt - 1, held=held)
        if held:
            remarked(session, JOB, job.id, JobState.QUEUED.value, "held", now=now, reason=held)
    return len(jobs)


def _requeue(session: Session, job: Job, event: JobEvent, now: datetime, *, reason: str = "", **values: object) -> None:
    fence = {"starts": job.starts}
    values = {"worker": "", "lease_until": None, **values}
    change(session, JOB, job.id, job.state, event, now=now, reason=reason, actor=job.worker, fence=fence, values=values)


def _fail(session: Session, job: Job, code: str, reason: str, now: datetime, **values: object) -> None:
    fence = {"starts": job.starts}
    values = {"lease_until": None, "finished_at": now, "reason_code": code, "reason": reason, **values}
    change(session, JOB, job.id, job.state, JobEvent.FAILED, now=now, reason=code, actor=job.worker, fence=fence, values=values)


def supersede_jobs_of_series(session: Session, series_id: int, reason: str, now: datetime) -> None:
    """What ran over this series ran over something else than what is there now. A preset "not run" is judged anew instead."""
    jobs = session.scalars(
        select(Job).where(
            Job.study_id == select(Series.study_id).where(Series.id == series_id).scalar_subquery(),
            or_(Job.series_id == series_id, Job.others.is_not(None)),
            Job.state.in_([state.value for state in REPLACED_BY_LATE_IMAGE]),
            Job.preset_refusal.is_(None),
        )
    ).all()
    readers = [job for job in jobs if series_id in {job.series_id, *(one.series_id for one in inputs_from(job.others))}]
    supersede(session, readers, reason, now)


def supersede(session: Session, jobs: Iterable[Job], reason: str, now: datetime) -> None:
    """A newer version takes over; what of the old one has not left stays here."""
    for job in jobs:
        session.refresh(job, with_for_update=True)  # on a server its worker may just have ended it
        if job.state == JobState.SUPERSEDED.value:
            continue
        values = {"lease_until": None}
        change(session, JOB, job.id, job.state, JobEvent.SUPERSEDED, now=now, reason=reason, values=values)
        cancel_waiting(session, job.id, reason, now)


def cancel_waiting(session: Session, job_id: int, reason: str, now: datetime, *, but: Iterable[int] = ()) -> None:
    """Cancel the job's deliveries that wait, save those of the results `but`."""
    waiting = select(Delivery.id).where(
        Delivery.job_id == job_id, Delivery.state == DeliveryState.WAITING.value, Delivery.result_id.not_in(list(but))
    )
    for delivery_id in session.scalars(waiting.with_for_update()).all():
        change(session, DELIVERY, delivery_id, DeliveryState.WAITING.value, DeliveryEvent.CANCELLED, now=now, reason=reason)
