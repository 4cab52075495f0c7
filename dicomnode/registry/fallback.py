"""A destination that takes no objects of a class: what its profile sends there instead, and what must not go there alone."""

from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session, aliased

from dicomnode.domain.results import ResultKind
from dicomnode.domain.states import DeliveryEvent, DeliveryState
from dicomnode.domain.statuses import SOP_CLASS_NOT_SUPPORTED
from dicomnode.registry.finishing import keep_delivery
from dicomnode.registry.records import ClaimedDelivery
from dicomnode.registry.tables import Delivery, Result
from dicomnode.registry.transitions import DELIVERY, change

# They name the SEG: a viewer that opens one whose SEG is missing shows nothing, or something wrong.
NAMES_THE_SEG = (ResultKind.SR, ResultKind.KOS, ResultKind.FHIR)
_ACCEPTED = (DeliveryState.SENT, DeliveryState.CONFIRMED)
_NOT_THERE = (DeliveryState.WAITING, DeliveryState.REJECTED, DeliveryState.HELD)


def may_go() -> ColumnElement[bool]:
    """Of a row (Delivery, Result): it is a SEG; or each SEG of its job was accepted by the same destination; or it names none,
    and the destination takes no SEG at all. A cancelled SEG counts only if none was accepted in its place.
    """
    accepted, cancelled = _some_seg(_ACCEPTED), _some_seg((DeliveryState.CANCELLED,))
    refused = _some_seg((DeliveryState.REJECTED,), refused_class=True)
    undecided = or_(
        _some_seg((DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.HELD)),
        _some_seg((DeliveryState.REJECTED,), refused_class=False),
    )
    names_none = Result.kind.not_in([kind.value for kind in NAMES_THE_SEG])
    all_there = and_(~undecided, ~refused, or_(accepted, ~cancelled))
    return or_(Result.kind == ResultKind.SEG.value, all_there, and_(~undecided, names_none, or_(refused, accepted)))


def _some_seg(states: tuple[DeliveryState, ...], *, refused_class: bool | None = None) -> ColumnElement[bool]:
    """Whether the job has a SEG for the same destination in one of these states; refused_class: how it was rejected."""
    other, other_result = aliased(Delivery), aliased(Result)
    conditions = [
        other.result_id == other_result.id,
        other_result.job_id == Result.job_id,
        other_result.kind == ResultKind.SEG.value,
        other.destination == Delivery.destination,
        other.state.in_([state.value for state in states]),
    ]
    if refused_class is not None:
        by_class = or_(other.last_status.is_(None), other.last_status == SOP_CLASS_NOT_SUPPORTED)
        conditions.append(by_class if refused_class else ~by_class)
    return exists().where(*conditions)


def after_refusal(session: Session, delivery: ClaimedDelivery, profile: str, now: datetime) -> list[str]:
    """The destination has refused this object's class: what its profile puts in its place begins to wait; its keys.

    Without a replacement for a SEG, what names the SEG stays here, and the rest goes alone.
    """
    at_destination = {
        result.sop_instance_uid: (row, result)
        for row, result in session.execute(
            select(Delivery, Result)
            .join(Result, Delivery.result_id == Result.id)
            .where(Result.job_id == _job_id(delivery), Delivery.destination == delivery.destination)
        ).tuples()
    }
    # What was replaced before leads nowhere any more: a report on a refused segmentation has substitutes of its own.
    standing = {uid for uid, (row, _) in at_destination.items() if row.state != DeliveryState.CANCELLED.value}
    substitutes = [
        result
        for result in session.scalars(select(Result).where(Result.job_id == _job_id(delivery)).order_by(Result.sending_order))
        if profile in (result.fallback_profiles or ())
        and result.when_refused == delivery.result.sop_class_uid
        and result.sop_instance_uid not in at_destination
        and standing.intersection(result.replaces or ())
    ]
    kind = delivery.result.kind.value
    if substitutes:
        reason = f"the destination takes no {kind} of this form; another goes in its place"
        for uid in {uid for result in substitutes for uid in result.replaces or ()} & set(at_destination):
            _cancel(session, at_destination[uid][0], reason, now)
        for result in substitutes:
            keep_delivery(session, result.job_id, result.id, delivery.destination, now)
        return [result.sop_instance_uid for result in substitutes]
    if delivery.result.kind is ResultKind.SEG:
        names = {one.value for one in NAMES_THE_SEG}
        for row, result in at_destination.values():
            if result.kind in names:
                _cancel(session, row, _ITS_SEG_WAS_REFUSED, now)
    return []


_ITS_SEG_WAS_REFUSED = "it names a SEG, and the destination takes none"


def with_its_seg(session: Session, seg: Delivery, now: datetime) -> list[str]:
    """An operator sends a refused SEG again: what was cancelled with it waits for it again; its keys."""
    rows = session.scalars(
        select(Delivery).where(
            Delivery.job_id == seg.job_id,
            Delivery.destination == seg.destination,
            Delivery.state == DeliveryState.CANCELLED.value,
            Delivery.last_error == _ITS_SEG_WAS_REFUSED,
        )
    ).all()
    for row in rows:
        values = {"last_error": "", "not_before": now, "tried_since": None}
        change(session, DELIVERY, row.id, row.state, DeliveryEvent.SEG_RETRIED, now=now, actor="operator", values=values)
    return [f"D{row.id}" for row in rows]


def _cancel(session: Session, row: Delivery, reason: str, now: datetime) -> None:
    if row.state in {state.value for state in _NOT_THERE}:
        values = {"last_error": reason}
        change(session, DELIVERY, row.id, row.state, DeliveryEvent.CANCELLED, now=now, reason=reason, values=values)


def _job_id(delivery: ClaimedDelivery) -> int:
    return int(delivery.job_key[1:])
