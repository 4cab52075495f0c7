"""The outbox: what waits to be sent, in which order, and what proof there is."""

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, Select, and_, exists, func, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.results import ResultKind, ResultObject
from dicomnode.domain.states import DeliveryEvent, DeliveryState, JobState
from dicomnode.registry.fallback import after_refusal, may_go
from dicomnode.registry.queue import backoff_s, held_by_node
from dicomnode.registry.records import ClaimedDelivery
from dicomnode.registry.tables import Delivery, Job, Result, Study
from dicomnode.registry.transitions import DELIVERY, change

_FIRST_PROOF_AFTER_S = 1.0


def _rows() -> "Select[Delivery, Result, Job]":
    return select(Delivery, Result, Job).join(Result, Delivery.result_id == Result.id).join(Job, Delivery.job_id == Job.id)


def anything_due(session: Session, destination: str, now: datetime) -> bool:
    """Whether a claim has a chance. Reads only."""
    due = (Delivery.state == DeliveryState.WAITING.value, Delivery.destination == destination, Delivery.not_before <= now)
    return session.scalar(select(Delivery.id).where(*due).limit(1)) is not None


def claim(session: Session, worker: str, destination: str, lease_s: float, now: datetime) -> ClaimedDelivery | None:
    """The next object for this destination.

    What names the SEG of its job waits until it was accepted at the same destination (`fallback.may_go`). Nothing leaves for a
    study that is held.
    """
    row = session.execute(
        _rows()
        .where(Delivery.state == DeliveryState.WAITING.value, Delivery.destination == destination, Delivery.not_before <= now)
        .where(Job.state != JobState.SUPERSEDED.value, ~exists().where(Study.id == Job.study_id, Study.held != ""))
        .where(may_go())
        .order_by(Delivery.created_at, Job.id, Result.sending_order, Delivery.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Delivery)
    ).one_or_none()
    if row is None:
        return None
    delivery, result, job = row
    attempt, starts = delivery.attempt + 1, delivery.starts + 1
    values = {
        "worker": worker,
        "attempt": attempt,
        "starts": starts,
        "tried_since": delivery.tried_since or now,
        "lease_until": now + timedelta(seconds=lease_s),
    }
    fence = {"starts": delivery.starts}
    waiting = delivery.state
    change(session, DELIVERY, delivery.id, waiting, DeliveryEvent.CLAIMED, now=now, actor=worker, fence=fence, values=values)
    return _claimed(delivery, result, job, DeliveryState.SENDING, worker, attempt, starts)


def _claimed(
    delivery: Delivery, result: Result, job: Job, state: DeliveryState, worker: str, attempt: int, starts: int
) -> ClaimedDelivery:
    return ClaimedDelivery(
        id=delivery.id,
        key=f"D{delivery.id}",
        destination=delivery.destination,
        state=state,
        attempt=attempt,
        starts=starts,
        worker=worker,
        result=ResultObject(
            kind=ResultKind(result.kind),
            sop_class_uid=result.sop_class_uid,
            sop_instance_uid=result.sop_instance_uid,
            series_instance_uid=result.series_instance_uid,
            study_instance_uid=result.study_instance_uid,
            transfer_syntax_uid=result.transfer_syntax_uid,
            path=Path(result.path),
            sha256=result.sha256,
            size_bytes=result.size_bytes,
            source_sop_instance_uids=tuple(result.sources),
            order=result.sending_order,
            description=result.description,
        ),
        job_key=f"J{job.id}",
        study_key=f"S{job.study_id}",
        pipeline=job.pipeline,
        created_at=delivery.created_at,
        tried_since=delivery.tried_since,
        sent_at=delivery.sent_at,
        last_status=delivery.last_status,
    )


def finish(
    session: Session,
    delivery: ClaimedDelivery,
    event: DeliveryEvent,
    now: datetime,
    *,
    status: int | None,
    error: str,
    retry_after_s: float | None,
    proof: str,
    refused_by: str,
) -> None:
    """See `Registry.finish_delivery`."""
    pause = backoff_s(delivery.attempt) if retry_after_s is None else retry_after_s
    # A warning is kept beside a success; a success clears what an earlier attempt complained of.
    values: dict[str, object] = {"last_error": error, "lease_until": None}
    if status is not None or event is DeliveryEvent.REJECTED:  # without a status: refused in negotiation
        values["last_status"] = status
    if proof:
        values["proof"] = proof
    if event in (DeliveryEvent.TRY_AGAIN, DeliveryEvent.LEASE_LOST):
        values["not_before"] = now + timedelta(seconds=pause)
    elif event is DeliveryEvent.PROOF_SAYS_MISSING:
        values |= {"not_before": now + timedelta(seconds=pause), "sent_at": None, "proof": proof}
    elif event is DeliveryEvent.ACCEPTED:
        values |= {"sent_at": now, "not_before": now + timedelta(seconds=_FIRST_PROOF_AFTER_S)}
        values |= {"commitment_uid": None, "earlier_commitment_uid": None}  # of an earlier sending
    fence = {"worker": delivery.worker, "attempt": delivery.attempt, "starts": delivery.starts}
    reason = error if status is None else f"status {status:04X}"
    state = change(
        session,
        DELIVERY,
        delivery.id,
        delivery.state.value,
        event,
        now=now,
        reason=reason,
        actor=delivery.worker,
        fence=fence,
        values=values,
    )
    if state == DeliveryState.WAITING.value:
        _cancel_if_superseded(session, delivery.id, now)
    if refused_by and event is DeliveryEvent.REJECTED:
        after_refusal(session, delivery, refused_by, now)


def _cancel_if_superseded(session: Session, delivery_id: int, now: datetime) -> None:
    """A newer version replaced the job while its object was on the way: it is not tried again."""
    of_delivery = select(Delivery.job_id).where(Delivery.id == delivery_id).scalar_subquery()
    # On a server the job may be on its way to being superseded: waited for, or the delivery would wait for ever.
    job_state = session.scalar(select(Job.state).where(Job.id == of_delivery).with_for_update(read=True))
    if job_state == JobState.SUPERSEDED.value:
        waiting = DeliveryState.WAITING.value
        change(session, DELIVERY, delivery_id, waiting, DeliveryEvent.CANCELLED, now=now, reason="a newer version replaced it")


def to_prove(session: Session, destination: str, limit: int, now: datetime) -> list[ClaimedDelivery]:
    """Sent deliveries whose proof is due."""
    rows = session.execute(
        _rows()
        .where(Delivery.state == DeliveryState.SENT.value, Delivery.destination == destination, Delivery.not_before <= now)
        .order_by(Delivery.not_before, Delivery.id)
        .limit(limit)
    )
    return [
        _claimed(delivery, result, job, DeliveryState.SENT, delivery.worker, delivery.attempt, delivery.starts)
        for delivery, result, job in rows
    ]


def postpone_proof(session: Session, delivery: ClaimedDelivery, retry_after_s: float, error: str, now: datetime) -> None:
    """Ask for this proof later."""
    still = and_(Delivery.id == delivery.id, Delivery.state == DeliveryState.SENT.value, Delivery.starts == delivery.starts)
    values = {"not_before": now + timedelta(seconds=retry_after_s), "last_error": error}
    session.execute(update(Delivery).where(still).values(**values))


def requeue_lost(session: Session, ended_before: datetime, now: datetime, *, reason: str) -> int:
    """Deliveries whose lease ended: their outcome is unknown, so the same bytes go again under the same UID."""
    return _send_again(session, now, reason, Delivery.lease_until < ended_before)


def sender_ended(session: Session, now: datetime, *, worker: str, reason: str, destination: str | None = None) -> int:
    """The same for what a process that has ended was sending; to one destination, if it is named."""
    there = [] if destination is None else [Delivery.destination == destination]
    return _send_again(session, now, reason, Delivery.worker == worker, *there)


def senders_ended(session: Session, now: datetime, *, node: str, reason: str) -> int:
    """The same for every process of this node."""
    return _send_again(session, now, reason, *held_by_node(Delivery.worker, node))


def _send_again(session: Session, now: datetime, reason: str, *conditions: ColumnElement[bool]) -> int:
    sending = DeliveryState.SENDING.value
    lost = session.scalars(
        select(Delivery).where(Delivery.state == sending, *conditions).with_for_update(skip_locked=True)
    ).all()
    for delivery in lost:
        values = {"worker": "", "lease_until": None, "not_before": now}
        fence = {"starts": delivery.starts}
        event = DeliveryEvent.LEASE_LOST
        change(session, DELIVERY, delivery.id, sending, event, now=now, reason=reason, fence=fence, values=values)
        _cancel_if_superseded(session, delivery.id, now)
    return len(lost)


def unfinished(session: Session) -> dict[str, int]:
    """Destination → how many objects have still to be sent there."""
    states = [DeliveryState.WAITING.value, DeliveryState.SENDING.value]
    counted = select(Delivery.destination, func.count(Delivery.id).label("number"))
    rows = session.execute(counted.where(Delivery.state.in_(states)).group_by(Delivery.destination)).all()
    return {row.destination: row.number for row in rows}
