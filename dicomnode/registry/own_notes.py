"""Rejection notes of ours: a newer version has arrived at a destination, and what it replaces there is to be withdrawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.domain.rejection import NamedInstance
from dicomnode.domain.results import ResultKind, ResultObject
from dicomnode.domain.states import DeliveryState, JobEvent, JobState
from dicomnode.registry.finishing import keep_delivery, keep_result
from dicomnode.registry.operator import BY_OPERATOR
from dicomnode.registry.queue import same_family
from dicomnode.registry.tables import AuditRow, Delivery, Job, Result

NOTE = "Rejection note"  # description of the result that is one; key object selections of ours have others
_ARRIVED = (DeliveryState.SENT.value, DeliveryState.CONFIRMED.value)


@dataclass(frozen=True, slots=True)
class DueNote:
    """What is to be withdrawn from one destination. example: a spooled object of the same patient and study, its path."""

    job_id: int
    job_key: str
    study_instance_uid: str
    named: tuple[NamedInstance, ...]
    example: Path
    finished_at: datetime


def due(session: Session, destination: str, youngest_result_after: datetime) -> list[DueNote]:
    """Newer versions that arrived whole at this destination, where older ones still stand.

    A version that ended before `youngest_result_after` is withdrawn only where an operator asked for the new one: a report that
    somebody has long since acted on does not vanish by itself.
    """
    newer = select(Job).where(Job.version > 1, Job.state == JobState.DONE.value).order_by(Job.id)
    found = (_due(session, job, destination, youngest_result_after) for job in session.scalars(newer).all())
    return [one for one in found if one is not None]


def _due(session: Session, job: Job, destination: str, youngest: datetime) -> DueNote | None:
    of_job = (Delivery.job_id == job.id, Delivery.destination == destination)
    states = set(session.scalars(select(Delivery.state).where(*of_job).distinct()))
    if not states or states - {*_ARRIVED, DeliveryState.CANCELLED.value}:
        return None
    already = set(_withdrawn(session, job, destination))
    named = tuple(
        NamedInstance(result.sop_class_uid, result.sop_instance_uid, result.series_instance_uid)
        for result in _standing(session, job, destination, youngest)
        if result.sop_instance_uid not in already
    )
    example = session.scalars(
        select(Result.path).where(Result.job_id == job.id, Result.path != "", Result.kind != ResultKind.FHIR.value).limit(1)
    ).one_or_none()
    study = session.scalar(select(Result.study_instance_uid).where(Result.job_id == job.id).limit(1))
    if not named or example is None or study is None or job.finished_at is None:
        return None
    return DueNote(job.id, f"J{job.id}", study, named, Path(example), job.finished_at)


def _standing(session: Session, job: Job, destination: str, youngest: datetime) -> Sequence[Result]:
    """Results of older versions that arrived there."""
    older = session.scalars(select(Job).where(*same_family(job), Job.version < job.version)).all()
    ids = [one.id for one in older if _may_be_withdrawn(session, one, youngest)]
    arrived = (Delivery.destination == destination, Delivery.state.in_(_ARRIVED))
    statement = select(Result).join(Delivery, Delivery.result_id == Result.id).where(Result.job_id.in_(ids), *arrived)
    dicom = (Result.description != NOTE, Result.kind != ResultKind.FHIR.value)
    return session.scalars(statement.where(*dicom).order_by(Result.job_id, Result.sending_order)).all()


def _may_be_withdrawn(session: Session, job: Job, youngest: datetime) -> bool:
    if job.finished_at is not None and job.finished_at >= youngest:
        return True
    superseded = (AuditRow.kind == "job", AuditRow.row_id == job.id, AuditRow.event == JobEvent.SUPERSEDED.value)
    return session.scalar(select(AuditRow.reason).where(*superseded).limit(1)) == BY_OPERATOR


def _withdrawn(session: Session, job: Job, destination: str) -> list[str]:
    """What notes to this destination name already, sent or waiting."""
    family = select(Job.id).where(*same_family(job)).scalar_subquery()
    notes = (Result.job_id.in_(family), Result.description == NOTE, Delivery.destination == destination)
    lists = session.scalars(select(Result.sources).join(Delivery, Delivery.result_id == Result.id).where(*notes)).all()
    return [uid for uids in lists for uid in uids]


def keep(session: Session, job_id: int, note: ResultObject, destination: str, now: datetime) -> None:
    """The note, and its delivery."""
    keep_delivery(session, job_id, keep_result(session, job_id, note, now), destination, now)
