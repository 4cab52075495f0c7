"""An operator's hand: again, never mind, anew."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.errors import NothingToDo, UsageError
from dicomnode.domain.results import ResultKind
from dicomnode.domain.states import DeliveryEvent, DeliveryState, ImpossibleTransition, JobEvent, JobState
from dicomnode.registry import decisions, keys, retention
from dicomnode.registry.fallback import with_its_seg
from dicomnode.registry.queries import find_study
from dicomnode.registry.queue import (
    generation_of,
    inputs_as_json,
    inputs_from,
    newest_inputs,
    rank,
    same_family,
    supersede,
)
from dicomnode.registry.tables import Delivery, Job, Result, Series, Study
from dicomnode.registry.transitions import DELIVERY, JOB, began, change, remarked

BY_OPERATOR = "the operator asked for a new version"
_SHOWN_BY = "`dicomnode studies` and `dicomnode explain STUDY` show keys"


def retry(session: Session, key: str, now: datetime) -> list[str]:
    """See `Registry.retry`."""
    letter, row_id = _parts(key, "JDES")
    if letter == "J":
        return _retry_job(session, _job(session, row_id), now)
    if letter == "D":
        delivery = _delivery(session, row_id)
        if _job(session, delivery.job_id).state == JobState.SUPERSEDED.value:
            raise NothingToDo(f"a newer version replaced the job of D{row_id}", f"nothing of it is sent; cancel it: D{row_id}")
        values = {"not_before": now, "created_at": now, "tried_since": None}
        _change_or_explain(session, delivery, DeliveryEvent.OPERATOR_RETRY, now, values)
        return [f"D{row_id}", *with_its_seg(session, delivery, now)]
    if letter == "E":
        if session.get(Series, row_id) is None:
            raise _unknown(key)
        return decisions.release_series(session, row_id, now)
    if session.get(Study, row_id) is None:
        raise _unknown(key)
    return decisions.accept_newest(session, row_id, now)


def _retry_job(session: Session, job: Job, now: datetime) -> list[str]:
    _refuse_purged(session, job.study_id)
    afresh = {
        "attempt": 0,
        "crashes": 0,
        "notices": 0,
        "lease_until": None,
        "starts_forgiven": job.starts,
        "not_before": now,
        "held": "",
        # It runs over what is there now, also over what came while it was cancelled.
        "series_generation": generation_of(session, job.series_id),
        "others": inputs_as_json(newest_inputs(session, inputs_from(job.others))),
    }
    if job.state == JobState.QUEUED.value and job.held:
        session.execute(update(Job).where(Job.id == job.id).values(**afresh))
        remarked(session, JOB, job.id, job.state, "released", now=now, reason="operator")
    else:
        _change_or_explain(session, job, JobEvent.OPERATOR_RETRY, now, afresh)
    return [f"J{job.id}"]


def cancel(session: Session, key: str, now: datetime) -> list[str]:
    """See `Registry.cancel`. With a SEG go the SR and SC that would name it."""
    letter, row_id = _parts(key, "JDS")
    if letter == "S":
        if session.get(Study, row_id) is None:
            raise _unknown(key)
        return decisions.keep_stored(session, row_id, now)
    if letter == "J":
        _change_or_explain(session, _job(session, row_id), JobEvent.CANCELLED, now, {"lease_until": None, "finished_at": now})
        return [f"J{row_id}"]
    delivery = _delivery(session, row_id)
    _change_or_explain(session, delivery, DeliveryEvent.CANCELLED, now, {})
    changed = [f"D{row_id}"]
    kind = session.scalar(select(Result.kind).where(Result.id == delivery.result_id))
    if kind == ResultKind.SEG.value:
        waiting = DeliveryState.WAITING.value
        dependents = select(Delivery.id).where(
            Delivery.job_id == delivery.job_id, Delivery.destination == delivery.destination, Delivery.state == waiting
        )
        for dependent in session.scalars(dependents).all():
            reason = f"its SEG D{row_id} was cancelled"
            change(session, DELIVERY, dependent, waiting, DeliveryEvent.CANCELLED, now=now, reason=reason, actor="operator")
            changed.append(f"D{dependent}")
    return changed


def reprocess(session: Session, study_or_key: str, now: datetime) -> list[str]:
    """See `Registry.reprocess`."""
    parts = keys.split(study_or_key)
    if parts is not None and parts[0] == "J":
        return [_next_version(session, _job(session, parts[1]), now)]
    study_id = find_study(session, study_or_key)
    if study_id is None:
        raise _unknown(study_or_key)
    _refuse_purged(session, study_id)
    standing = Job.state != JobState.SUPERSEDED.value
    jobs = session.scalars(select(Job).where(Job.study_id == study_id, standing).order_by(Job.id)).all()
    supersede(session, jobs, BY_OPERATOR, now)
    session.execute(update(Study).where(Study.id == study_id).values(arrivals=Study.arrivals + 1, unsettled=True))
    return [f"S{study_id}", *(f"J{job.id}" for job in jobs)]


def _refuse_purged(session: Session, study_id: int) -> None:
    session.execute(select(Study.id).where(Study.id == study_id).with_for_update())
    if retention.is_purged(session, study_id):
        raise NothingToDo(f"the images of S{study_id} were purged", "let the PACS send the study again, then do this again")


def _next_version(session: Session, job: Job, now: datetime) -> str:
    _refuse_purged(session, job.study_id)  # also locks the study: versions are counted
    standing = session.scalars(select(Job).where(*same_family(job), Job.state != JobState.SUPERSEDED.value)).all()
    supersede(session, standing, BY_OPERATOR, now)
    row = new_job(
        session,
        study_id=job.study_id,
        series_id=job.series_id,
        series_generation=generation_of(session, job.series_id),
        scope_series_id=job.scope_series_id,
        route=job.route,
        pipeline=job.pipeline,
        preset_refusal=job.preset_refusal,
        others=inputs_as_json(newest_inputs(session, inputs_from(job.others))),
        priority=job.priority,
        now=now,
    )
    return f"J{row}"


def new_job(
    session: Session,
    *,
    study_id: int,
    series_id: int | None,
    series_generation: int,
    scope_series_id: int,
    route: str,
    pipeline: str,
    preset_refusal: dict[str, object] | None,
    now: datetime,
    others: list[dict[str, object]] | None = None,
    priority: int = 0,
) -> int:
    """A queued job, as the next version of its study, pipeline and scope; its id."""
    row = Job(
        study_id=study_id,
        series_id=series_id,
        series_generation=series_generation,
        scope_series_id=scope_series_id,
        route=route,
        pipeline=pipeline,
        version=0,
        state=JobState.QUEUED.value,
        not_before=now,
        created_at=now,
        preset_refusal=preset_refusal,
        others=others,
        priority=priority,
        rank_at=rank(now, priority),
    )
    row.version = (session.scalar(select(func.max(Job.version)).where(*same_family(row))) or 0) + 1
    session.add(row)
    session.flush()
    began(session, JOB, row.id, JobState.QUEUED, now=now)
    return row.id


def _change_or_explain(
    session: Session, row: Job | Delivery, event: JobEvent | DeliveryEvent, now: datetime, values: Mapping[str, object]
) -> None:
    kind = JOB if isinstance(row, Job) else DELIVERY
    fence = {"starts": row.starts}
    try:
        change(
            session, kind, row.id, row.state, event, now=now, reason="operator", actor="operator", fence=fence, values=values
        )
    except ImpossibleTransition:
        wanted = [state.value for state, known in kind.transitions if known is event]
        raise NothingToDo(
            f"{kind.letter}{row.id} is {row.state}", f"this works on a {kind.name} that is {' or '.join(wanted)}"
        ) from None


def _parts(key: str, letters: Sequence[str]) -> tuple[str, int]:
    parts = keys.split(key)
    if parts is None or parts[0] not in letters:
        raise UsageError(f"{key!r} is no key of a kind that this works on ({', '.join(letters)})", _SHOWN_BY)
    return parts


def _job(session: Session, row_id: int) -> Job:
    job = session.get(Job, row_id, with_for_update=True)
    if job is None:
        raise _unknown(f"J{row_id}")
    return job


def _delivery(session: Session, row_id: int) -> Delivery:
    delivery = session.get(Delivery, row_id, with_for_update=True)
    if delivery is None:
        raise _unknown(f"D{row_id}")
    return delivery


def _unknown(text: str) -> NothingToDo:
    return NothingToDo(f"nothing is known as {text!r}", _SHOWN_BY)
