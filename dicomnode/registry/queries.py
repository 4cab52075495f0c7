"""Answers about many studies: `status` and `studies`, in the shapes of the outside contract."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from dicomnode.domain.errors import UsageError
from dicomnode.domain.states import DeliveryState, JobState
from dicomnode.registry import folding, keys
from dicomnode.registry.holdings import count_retrievals
from dicomnode.registry.members import among_numbers
from dicomnode.registry.records import Transition
from dicomnode.registry.tables import AuditRow, Delivery, Job, Series, Study
from dicomnode.registry.transitions import KINDS


def find_study(session: Session, text: str) -> int | None:
    """The id of the study with this UID, key or accession number; of several with one accession number the newest."""
    text = text.strip()
    parts = keys.split(text)
    if parts is not None and parts[0] == "S" and session.get(Study, parts[1]) is not None:
        return parts[1]
    by_uid = session.scalar(select(Study.id).where(Study.study_instance_uid == text))
    if by_uid is not None or not text:
        return by_uid
    return session.scalar(select(Study.id).where(Study.accession_number == text).order_by(Study.received_at.desc()).limit(1))


def status_counts(session: Session, now: datetime) -> dict[str, object]:
    """See `Registry.status_counts`. Every state is named, also those that no row has."""
    studies, unsettled, held = session.execute(
        select(
            func.count(Study.id),
            func.count().filter(Study.unsettled),
            func.count().filter(Study.held != ""),
        )
    ).one()
    series, instances = session.execute(select(func.count(Series.id), func.coalesce(func.sum(Series.instances), 0))).one()
    oldest = session.scalar(select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED.value))
    return {
        "counts": {
            "studies": studies,
            "series": series,
            "instances": int(instances),
            "jobs": _by_state(session, Job, list(JobState)),
            "deliveries": _by_state(session, Delivery, list(DeliveryState)),
            "retrievals": count_retrievals(session),
            "studies_receiving": unsettled,
            "studies_held": held,
        },
        "oldest_queued_s": None if oldest is None else round(max((now - oldest).total_seconds(), 0.0), 3),
    }


def _by_state(session: Session, row: type[Job | Delivery], states: Sequence[JobState | DeliveryState]) -> dict[str, int]:
    found = {
        one.state: one.number for one in session.execute(select(row.state, func.count().label("number")).group_by(row.state))
    }
    return {state.value: found.get(state.value, 0) for state in states}


def studies(session: Session, query: str, limit: int) -> list[dict[str, object]]:
    """See `Registry.studies`."""
    statement = select(Study).order_by(Study.received_at.desc(), Study.id.desc()).limit(limit)
    if query.strip():
        folding.provide(session)
        statement = statement.where(_matches(query.strip()))
    found = session.scalars(statement).all()
    ids = [study.id for study in found]
    series: dict[int, list[Series]] = defaultdict(list)
    for row in session.scalars(select(Series).where(among_numbers(Series.study_id, ids)).order_by(Series.id)):
        series[row.study_id].append(row)
    jobs: dict[int, list[Job]] = defaultdict(list)
    for job in session.scalars(select(Job).where(among_numbers(Job.study_id, ids)).order_by(Job.id)):
        jobs[job.study_id].append(job)
    return [
        {
            "key": f"S{study.id}",
            "study_instance_uid": study.study_instance_uid,
            "patient_id": study.patient_id,
            "patient_name": study.patient_name,
            "study_date": study.study_date,
            "accession_number": study.accession_number,
            "received_at": study.received_at.isoformat(),
            "held": study.held,
            "series": [_series(row, jobs[study.id]) for row in series[study.id]],
        }
        for study in found
    ]


def _matches(query: str) -> ColumnElement[bool]:
    parts = keys.split(query)
    if parts is not None and parts[0] == "S":
        return Study.id == parts[1]
    texts = (Study.patient_id, Study.accession_number, Study.study_date)
    return or_(
        Study.study_instance_uid == query,
        folding.names(Study.patient_name, query),
        *(folding.contains(column, query) for column in texts),
    )


def _series(row: Series, jobs: Sequence[Job]) -> dict[str, object]:
    return {
        "key": f"E{row.id}",
        "series_instance_uid": row.series_instance_uid,
        "modality": row.modality,
        "description": description(row.attributes),
        "instances": row.instances,
        "state": row.state,
        "ours": row.ours,
        "jobs": [
            {"id": f"J{job.id}", "pipeline": job.pipeline, "version": job.version, "state": job.state, "reason": job.reason}
            for job in jobs
            if job.series_id == row.id
        ],
    }


def description(attributes: Mapping[str, Any]) -> str:
    """What people call the series."""
    return str(attributes.get("SeriesDescription") or attributes.get("ProtocolName") or "").strip()


def audit(session: Session, key: str) -> list[Transition]:
    """See `Registry.audit`."""
    parts = keys.split(key)
    kind = next((kind for kind in KINDS if parts is not None and kind.letter == parts[0]), None)
    if parts is None or kind is None:
        raise UsageError(f"{key!r} has no audit trail", "give the key of a series (E12), a job (J12) or a delivery (D12)")
    rows = session.scalars(
        select(AuditRow).where(AuditRow.kind == kind.name, AuditRow.row_id == parts[1]).order_by(AuditRow.id)
    )
    return [
        Transition(
            kind=kind.name,
            key=key.strip().upper(),
            from_state=row.from_state,
            to_state=row.to_state,
            event=row.event,
            reason=row.reason,
            at=row.at,
            actor=row.actor,
        )
        for row in rows
    ]
