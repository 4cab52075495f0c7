"""Rejection notes that came in: the named images are left out, jobs on them end, results of them are stale."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, literal_column, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.rejection import KEY_OBJECT_SELECTION
from dicomnode.domain.states import DeliveryEvent, DeliveryState, JobEvent, JobState
from dicomnode.registry.queue import supersede_jobs_of_series
from dicomnode.registry.tables import Delivery, Instance, Job, Result, Series, Study
from dicomnode.registry.transitions import DELIVERY, JOB, change

REJECTED = "rejected"  # reason code of a job that a note ended
EXAMINED = ""  # in `Instance.rejected` of a key object selection that was looked at
_AT_ONCE = 500
# As the partial index has it: SQLite would not know a parameter again.
_SELECTION: ColumnElement[str] = literal_column(f"'{KEY_OBJECT_SELECTION}'")


@dataclass(frozen=True, slots=True)
class ReceivedNote:
    """A key object selection that nobody has looked at yet, and who sent it. path: relative to the store's root."""

    instance_id: int
    study_key: str
    path: Path
    calling_ae: str
    address: str


def unexamined(session: Session, limit: int) -> list[ReceivedNote]:
    """Key object selections from others, oldest first."""
    rows = session.execute(
        select(Instance.id, Instance.path, Series.study_id, Series.calling_ae, Series.address)
        .join(Series, Instance.series_id == Series.id)
        .where(Instance.sop_class_uid == _SELECTION, Instance.rejected.is_(None), ~Instance.ours, Instance.purged_at.is_(None))
        .order_by(Instance.id)
        .limit(limit)
    )
    return [ReceivedNote(row.id, f"S{row.study_id}", Path(row.path), row.calling_ae, row.address) for row in rows]


def examined(session: Session, instance_id: int) -> None:
    """It needs no second look."""
    session.execute(update(Instance).where(Instance.id == instance_id).values(rejected=EXAMINED))


def reject(session: Session, study_id: int, uids: Sequence[str], code: str, why: str, now: datetime) -> list[str]:
    """Leave these images of the study out and call their results stale; the keys of what changed."""
    session.execute(select(Study.id).where(Study.id == study_id).with_for_update())
    touched: dict[int, int] = {}
    for start in range(0, len(uids), _AT_ONCE):
        these = (Instance.sop_instance_uid.in_(uids[start : start + _AT_ONCE]), ~Instance.ours, Instance.rejected.is_(None))
        of_study = select(Series.id).where(Series.study_id == study_id).scalar_subquery()
        taken = update(Instance).where(*these, Instance.series_id.in_(of_study)).values(rejected=code)
        for (series_id,) in session.execute(taken.returning(Instance.series_id)):
            touched[series_id] = touched.get(series_id, 0) + 1
    changed = [f"E{series_id}" for series_id in touched]
    for series_id in touched:
        changed += _end_jobs(session, series_id, why, now)
    if touched:
        session.execute(update(Study).where(Study.id == study_id).values(arrivals=Study.arrivals + 1, unsettled=True))
    return changed + _reject_results(session, study_id, uids, why, now)


def _end_jobs(session: Session, series_id: int, why: str, now: datetime) -> list[str]:
    """Jobs on a series of which nothing is left are cancelled; where something is left they run anew on that."""
    jobs = session.scalars(select(Job).where(Job.series_id == series_id).with_for_update()).all()
    session.execute(update(Result).where(Result.job_id.in_([job.id for job in jobs])).values(stale=why))
    standing = (Instance.series_id == series_id, ~Instance.ours, Instance.rejected.is_(None))
    if session.scalar(select(Instance.id).where(*standing).limit(1)) is not None:
        supersede_jobs_of_series(session, series_id, why, now)
        return [f"J{job.id}" for job in jobs if job.state != JobState.SUPERSEDED.value]
    ended = []
    for job in jobs:
        if job.state in (JobState.QUEUED.value, JobState.RUNNING.value):
            values = {"lease_until": None, "finished_at": now, "reason_code": REJECTED, "reason": why}
            change(session, JOB, job.id, job.state, JobEvent.CANCELLED, now=now, reason=why, values=values)
            ended.append(f"J{job.id}")
        _cancel_deliveries(session, Delivery.job_id == job.id, why, now)
    return ended


def _reject_results(session: Session, study_id: int, uids: Sequence[str], why: str, now: datetime) -> list[str]:
    changed = []
    of_study = select(Job.id).where(Job.study_id == study_id).scalar_subquery()
    for start in range(0, len(uids), _AT_ONCE):
        named = (Result.sop_instance_uid.in_(uids[start : start + _AT_ONCE]), Result.job_id.in_(of_study))
        ids = [row.id for row in session.execute(update(Result).where(*named).values(stale=why).returning(Result.id))]
        changed += _cancel_deliveries(session, Delivery.result_id.in_(ids), why, now)
    return changed


def _cancel_deliveries(session: Session, condition: object, why: str, now: datetime) -> list[str]:
    waiting = DeliveryState.WAITING.value
    found = select(Delivery.id).where(condition, Delivery.state == waiting).with_for_update()  # type: ignore[arg-type]
    ids = session.scalars(found).all()
    for delivery_id in ids:
        change(session, DELIVERY, delivery_id, waiting, DeliveryEvent.CANCELLED, now=now, reason=why)
    return [f"D{delivery_id}" for delivery_id in ids]
