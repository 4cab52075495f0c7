"""The answer to "what happened to this study?", in the shape of the outside contract."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.domain.errors import NothingToDo
from dicomnode.domain.states import JobEvent, SeriesState
from dicomnode.registry.announcements import announced_of
from dicomnode.registry.holdings import retrievals
from dicomnode.registry.in_short import in_short
from dicomnode.registry.judging import announced, open_associations
from dicomnode.registry.members import among_numbers
from dicomnode.registry.paragraph import paragraph
from dicomnode.registry.queries import description, find_study
from dicomnode.registry.tables import Association, AuditRow, Conflict, Delivery, Job, Result, Series, Study, Verdict


def explain(session: Session, text: str, now: datetime) -> dict[str, object]:
    """See `Registry.explain`."""
    study_id = find_study(session, text)
    if study_id is None:
        raise NothingToDo(
            f"no study is known as {text!r}",
            "give a Study Instance UID, a key such as S12 or an accession number; see `studies`",
        )
    study = session.execute(select(Study).where(Study.id == study_id)).scalar_one()
    series = session.scalars(select(Series).where(Series.study_id == study_id).order_by(Series.id)).all()
    answer: dict[str, object] = {
        "key": f"S{study.id}",
        "study_instance_uid": study.study_instance_uid,
        "accession_number": study.accession_number,
        "received_at": study.received_at.isoformat(),
        "last_arrival_at": study.last_arrival_at.isoformat(),
        "held": study.held,
        "purged_at": study.purged_at.isoformat() if study.purged_at else None,
        "waiting_for_images": study.unsettled,
        "conflicts": _conflicts(session, study_id),
        "retrievals": retrievals(session, study_id),
        "announcements": _announcements(session, study),
        "series": _all_series(session, study, series, now),
    }
    return {"paragraph": paragraph(answer), "in_short": in_short(answer), **answer}


def _conflicts(session: Session, study_id: int) -> list[dict[str, object]]:
    rows = session.scalars(select(Conflict).where(Conflict.study_id == study_id).order_by(Conflict.id))
    return [
        {
            "kind": row.kind,
            "series": f"E{row.series_id}" if row.series_id is not None else None,
            "sop_instance_uid": row.sop_instance_uid,
            "received_at": row.received_at.isoformat(),
            "decided_at": row.decided_at.isoformat() if row.decided_at else None,
        }
        for row in rows
    ]


def _announcements(session: Session, study: Study) -> list[Mapping[str, object]]:
    found = announced_of(session, {study.study_instance_uid: study.id})
    return list(found[study.id].said) if found else []


def _all_series(session: Session, study: Study, series: Sequence[Series], now: datetime) -> list[dict[str, object]]:
    ids = [row.id for row in series]
    verdicts = session.scalars(select(Verdict).where(among_numbers(Verdict.series_id, ids)).order_by(Verdict.id)).all()
    jobs = session.scalars(select(Job).where(Job.study_id == study.id).order_by(Job.id)).all()
    job_ids = [job.id for job in jobs]
    results = session.scalars(
        select(Result).where(among_numbers(Result.job_id, job_ids)).order_by(Result.job_id, Result.sending_order)
    ).all()
    deliveries = session.scalars(select(Delivery).where(among_numbers(Delivery.job_id, job_ids)).order_by(Delivery.id)).all()
    still_open = session.scalars(select(Association).where(Association.ended_at.is_(None))).all()
    home = {job.id: job.series_id if job.series_id is not None else (ids[0] if ids else None) for job in jobs}
    by_result = {row.id: row for row in results}
    superseded = _why_superseded(session, job_ids)
    return [
        {
            "key": f"E{row.id}",
            "series_instance_uid": row.series_instance_uid,
            "modality": row.modality,
            "description": description(row.attributes),
            "series_number": str(row.attributes.get("SeriesNumber", "")),
            "instances": row.instances,
            "state": row.state,
            "ours": row.ours,
            "held": row.held,
            "from": {"calling_ae": row.calling_ae, "called_ae": row.called_ae, "address": row.address},
            "also_called": list(row.also_called or {}),
            "evidence": _evidence(row, study, still_open),
            "routes": [
                {"route": one.route, "matched": one.matched, "chosen": one.chosen, "why": one.why}
                for one in verdicts
                if one.series_id == row.id
            ],
            "jobs": [_job(job, jobs, superseded, now) for job in jobs if home[job.id] == row.id],
            "results": [_result(one) for one in results if home[one.job_id] == row.id],
            "deliveries": [_delivery(one, by_result[one.result_id]) for one in deliveries if home[one.job_id] == row.id],
        }
        for row in series
    ]


def _evidence(row: Series, study: Study, still_open: Sequence[Association]) -> dict[str, object]:
    facts: dict[str, object] = {
        "first_arrival_at": row.received_at.isoformat(),
        "last_arrival_at": row.last_arrival_at.isoformat(),
        "instances": row.instances,
        "announced_instances": announced(row.attributes),
        "reopened": row.generation,
    }
    if row.state == SeriesState.ARRIVING.value:
        facts["associations_open"] = [one.key for one in open_associations([row], study.id, still_open)]
    else:
        facts |= {"completed_at": row.completed_at.isoformat() if row.completed_at else None, "forced": row.forced}
    return {**row.evidence, **facts}


def _why_superseded(session: Session, job_ids: Sequence[int]) -> dict[int, str]:
    statement = select(AuditRow.row_id, AuditRow.reason).where(
        AuditRow.kind == "job", among_numbers(AuditRow.row_id, job_ids), AuditRow.event == JobEvent.SUPERSEDED.value
    )
    return {row.row_id: row.reason for row in session.execute(statement)}


def _job(job: Job, jobs: Sequence[Job], superseded: Mapping[int, str], now: datetime) -> dict[str, object]:
    preset: Mapping[str, Any] = job.preset_refusal or {}
    newer = [one for one in jobs if _same_family(one, job) and one.version > job.version]
    return {
        "id": f"J{job.id}",
        "pipeline": job.pipeline,
        "version": job.version,
        "state": job.state,
        "reason": job.reason or str(preset.get("message", "")),
        "reason_code": job.reason_code or str(preset.get("code", "")),
        "remedy": job.remedy or str(preset.get("remedy", "")),
        "timings_s": job.timings_s,
        "route": job.route,
        "outcome": job.outcome,
        "attempt": job.attempt,
        "crashes": job.crashes,
        "held": job.held,
        "findings": job.findings,
        "notes": job.notes,
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "next_attempt_in_s": round(max((job.not_before - now).total_seconds(), 0.0), 1) if job.state == "queued" else None,
        "replaced_by": f"J{newer[0].id}" if newer else None,
        "superseded_because": superseded.get(job.id, ""),
    }


def _same_family(one: Job, other: Job) -> bool:
    return (one.study_id, one.pipeline, one.scope_series_id) == (other.study_id, other.pipeline, other.scope_series_id)


def _result(row: Result) -> dict[str, object]:
    return {
        "kind": row.kind,
        "sop_instance_uid": row.sop_instance_uid,
        "series_instance_uid": row.series_instance_uid,
        "job": f"J{row.job_id}",
        "size_bytes": row.size_bytes,
        "stale": row.stale,
        "purged_at": row.purged_at.isoformat() if row.purged_at else None,
    }


def _delivery(row: Delivery, result: Result) -> dict[str, object]:
    return {
        "id": f"D{row.id}",
        "destination": row.destination,
        "sop_instance_uid": result.sop_instance_uid,
        "state": row.state,
        "attempts": row.attempt,
        "last_error": row.last_error,
        "proof": row.proof,
        "kind": result.kind,
        "job": f"J{row.job_id}",
        "last_status": None if row.last_status is None else f"{row.last_status:04X}",
        "sent_at": row.sent_at.isoformat() if row.sent_at else None,
    }
