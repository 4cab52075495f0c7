"""The node's own phantom studies, known by the AE title that only it may send under, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.domain.canary import CANARY, CANARY_AE_TITLE
from dicomnode.domain.states import DeliveryState, JobState
from dicomnode.registry.tables import Delivery, Job, Mark, Result, Series, Study

SENT, ANSWERED = "canary_sent", "canary_answered"
_ARRIVED = (DeliveryState.SENT.value, DeliveryState.CONFIRMED.value)
_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CanaryAnswer:
    """What the newest canary gave. files: (path below its folder, SHA-256); why: what is missing, "" when all came out."""

    study_key: str
    at: datetime | None
    files: Sequence[tuple[Path, str]]
    why: str


def marks(session: Session, now: datetime) -> tuple[datetime | None, datetime | None]:
    """When the last canary was sent, and when one last came out whole; a time to come, from a clock that was ahead, is none."""
    said = (Mark.name.in_([SENT, ANSWERED]), Mark.at <= now + _SKEW)
    found = {mark.name: mark.at for mark in session.scalars(select(Mark).where(*said))}
    return found.get(SENT), found.get(ANSWERED)


def remember(session: Session, name: str, at: datetime) -> None:
    """Keep one of the two times."""
    session.merge(Mark(name=name, at=at))


def studies(session: Session) -> list[str]:
    """The keys of all canaries whose images are still there, oldest first."""
    ours = select(Series.study_id).where(Series.calling_ae == CANARY_AE_TITLE).distinct().scalar_subquery()
    kept = select(Study.id).where(Study.id.in_(ours), Study.purged_at.is_(None)).order_by(Study.id)
    return [f"S{study_id}" for study_id in session.scalars(kept)]


def answer(session: Session, study_instance_uid: str) -> CanaryAnswer | None:
    """What became of this canary; None if it never arrived."""
    study_id = session.scalar(select(Study.id).where(Study.study_instance_uid == study_instance_uid))
    if study_id is None:
        return None
    key = f"S{study_id}"
    job = session.scalars(select(Job).where(Job.study_id == study_id).order_by(Job.id.desc()).limit(1)).one_or_none()
    if job is None:
        return CanaryAnswer(key, None, (), "no job was made of it")
    if job.state != JobState.DONE.value:
        return CanaryAnswer(key, None, (), f"its job J{job.id} is {job.state}")
    here = (Delivery.job_id == job.id, Delivery.destination == CANARY)
    rows = session.execute(select(Delivery, Result).join(Result, Delivery.result_id == Result.id).where(*here)).all()
    late = [f"D{row.Delivery.id} is {row.Delivery.state}" for row in rows if row.Delivery.state not in _ARRIVED]
    if late or not rows:
        return CanaryAnswer(key, None, (), late[0] if late else f"J{job.id} sent nothing")
    files = [
        (Path(one.study_instance_uid, one.series_instance_uid, f"{one.sop_instance_uid}.dcm"), one.sha256) for _, one in rows
    ]
    at = max(row.Delivery.sent_at for row in rows if row.Delivery.sent_at is not None)
    return CanaryAnswer(key, at, files, "")
