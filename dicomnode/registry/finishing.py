"""The end of a job's attempt: state, results and deliveries in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.results import ResultObject
from dicomnode.domain.states import DeliveryEvent, DeliveryState, JobEvent, JobState
from dicomnode.registry.queue import ARRIVED, backoff_s, cancel_waiting, fence_of, same_family
from dicomnode.registry.records import OUT_OF_SPACE, ClaimedJob
from dicomnode.registry.tables import Delivery, Job, Result
from dicomnode.registry.transitions import DELIVERY, JOB, began, change


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who gets what: kinds and profile by destination; a destination that is named in neither gets all."""

    destinations: Sequence[str]
    kinds: Mapping[str, Sequence[str]]
    profile: Mapping[str, str]

    def at_once(self, destination: str, result: ResultObject) -> bool:
        """Whether the destination gets this object without having refused another one."""
        kinds, profile = self.kinds.get(destination), self.profile.get(destination)
        if kinds is not None and result.kind.value not in kinds:
            return False
        return result.profiles is None or profile is None or profile in result.profiles


_NOT_RUN = (JobEvent.REFUSED, JobEvent.FAILED)


def finish(
    session: Session,
    job: ClaimedJob,
    event: JobEvent,
    now: datetime,
    *,
    reason_code: str,
    reason: str,
    remedy: str,
    findings_summary: Mapping[str, object] | None,
    results: Sequence[ResultObject],
    destinations: Sequence[str],
    notes: Sequence[str],
    timings_s: Mapping[str, float],
    retry_after_s: float | None,
    kinds_by_destination: Mapping[str, Sequence[str]],
    profile_by_destination: Mapping[str, str],
) -> None:
    """See `Registry.finish_job`."""
    values: dict[str, object] = {
        "lease_until": None,
        "reason_code": reason_code,
        "reason": reason,
        "remedy": remedy,
        "findings": None if findings_summary is None else dict(findings_summary),
        "notes": list(notes),
        "timings_s": dict(timings_s),
    }
    if event is JobEvent.TRY_AGAIN:
        pause = backoff_s(job.attempt) if retry_after_s is None else retry_after_s
        values |= {"worker": "", "not_before": now + timedelta(seconds=pause)}
        if reason_code == OUT_OF_SPACE:
            values["attempt"] = job.attempt - 1
    else:
        values |= {"finished_at": now, "outcome": event.value}
    running = JobState.RUNNING.value
    change(
        session, JOB, job.id, running, event, now=now, reason=reason_code, actor=job.worker, fence=fence_of(job), values=values
    )
    if event is JobEvent.TRY_AGAIN:
        return
    kept = [(keep_result(session, job.id, result, now), result) for result in results]
    # Only after an operator's retry is there anything older: "not run" objects that wait beside the results of this attempt.
    cancel_waiting(session, job.id, "another attempt gave other results", now, but=[result_id for result_id, _ in kept])
    wanted = Wanted(destinations, kinds_by_destination, profile_by_destination)
    _keep_deliveries(session, job, kept, wanted, now, not_run=event in _NOT_RUN)


def keep_results(
    session: Session,
    job: ClaimedJob,
    results: Sequence[ResultObject],
    wanted: Wanted,
    now: datetime,
    *,
    not_run: bool,
) -> None:
    """Result objects and their deliveries. not_run: they say "not run", which is said once."""
    kept = [(keep_result(session, job.id, result, now), result) for result in results]
    _keep_deliveries(session, job, kept, wanted, now, not_run=not_run)


def _keep_deliveries(
    session: Session,
    job: ClaimedJob,
    kept: Sequence[tuple[int, ResultObject]],
    wanted: Wanted,
    now: datetime,
    *,
    not_run: bool,
) -> None:
    for destination in wanted.destinations:
        if not_run and (
            _not_run_already_said(session, job, destination)
            or _said_at_an_earlier_end(session, job, destination, [result_id for result_id, _ in kept])
        ):
            continue
        for result_id, result in kept:
            if wanted.at_once(destination, result):
                keep_delivery(session, job.id, result_id, destination, now, held=result.held)


def keep_result(session: Session, job_id: int, result: ResultObject, now: datetime) -> int:
    """A result object of the job; its id. The same again is the same row, other bytes under its UID are refused."""
    existing = session.scalars(select(Result).where(Result.sop_instance_uid == result.sop_instance_uid)).one_or_none()
    if existing is not None:
        # An operator's retry that comes to the same end makes the same bytes again, and they may have left already.
        if existing.sha256 != result.sha256 or existing.job_id != job_id:
            raise ResultCheckFailed(
                f"a {result.kind.value} of J{job_id} has a UID under which other bytes are kept",
                "report this; use `dicomnode reprocess` to make a new version under new UIDs",
            )
        existing.path = result.path.as_posix()
        return existing.id
    row = Result(
        job_id=job_id,
        kind=result.kind.value,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        series_instance_uid=result.series_instance_uid,
        study_instance_uid=result.study_instance_uid,
        transfer_syntax_uid=result.transfer_syntax_uid,
        path=result.path.as_posix(),
        sha256=result.sha256,
        size_bytes=result.size_bytes,
        sources=list(result.source_sop_instance_uids),
        sending_order=result.order,
        description=result.description,
        profiles=None if result.profiles is None else list(result.profiles),
        fallback_profiles=list(result.fallback_profiles),
        replaces=list(result.replaces),
        when_refused=result.when_refused,
        created_at=now,
    )
    session.add(row)
    session.flush()
    return row.id


def keep_delivery(session: Session, job_id: int, result_id: int, destination: str, now: datetime, *, held: str = "") -> None:
    """One result on its way to one destination, if it is not yet known there. held: why it must not leave."""
    known = select(Delivery.id).where(Delivery.result_id == result_id, Delivery.destination == destination)
    if session.scalar(known) is not None:
        return
    state = DeliveryState.WAITING
    row = Delivery(
        result_id=result_id,
        job_id=job_id,
        destination=destination,
        state=state.value,
        not_before=now,
        created_at=now,
    )
    session.add(row)
    session.flush()
    began(session, DELIVERY, row.id, state, now=now)
    if held:
        event, values = DeliveryEvent.HELD, {"last_error": held}
        change(session, DELIVERY, row.id, state.value, event, now=now, reason=held, values=values)


def _not_run_already_said(session: Session, claimed: ClaimedJob, destination: str) -> bool:
    """Whether the newest earlier version that reached this destination said "not run" too: once is enough (DESIGN 6)."""
    job = session.execute(select(Job).where(Job.id == claimed.id)).scalar_one()
    newest = session.scalars(
        select(Job)
        .join(Delivery, Delivery.job_id == Job.id)
        .where(*same_family(job), Job.version < job.version)
        .where(Delivery.destination == destination, Delivery.state.in_(ARRIVED))
        .order_by(Job.version.desc())
        .limit(1)
    ).one_or_none()
    return newest is not None and newest.outcome in _NOT_RUN


def _said_at_an_earlier_end(session: Session, job: ClaimedJob, destination: str, now_made: Sequence[int]) -> bool:
    """Whether other objects of this very job went there or wait: an operator had it tried again, and it ended without a result
    again, for another reason or after an update of the node (other words or another writer, other UIDs).
    """
    gone = (DeliveryState.CANCELLED.value, DeliveryState.REJECTED.value)
    others = select(Delivery.id).where(
        Delivery.job_id == job.id,
        Delivery.destination == destination,
        Delivery.state.not_in(gone),
        Delivery.result_id.not_in(now_made),
    )
    return session.scalars(others.limit(1)).one_or_none() is not None
