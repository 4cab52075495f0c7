"""A clock that was wrong and was put right: rows from a future that will not come for years would wait until then.

Nothing is put off for two hours (the longest pause is an hour and a fifth), and no lease lasts a day: what is further away was
written by a clock that was ahead, as one is by its zone's hours that takes local time for UTC.
"""

from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dicomnode.domain.states import DeliveryState, JobState
from dicomnode.registry.tables import Commitment, Delivery, Instance, Job, Mark

_LONGER_THAN_ANY_PAUSE, _LONGER_THAN_ANY_LEASE = timedelta(hours=2), timedelta(days=1)
_AT_ONCE = 500  # in one IN (…)
_SAME_PROMISE = timedelta(minutes=10)  # from the first of its instances to the decision
_LOOKED, _DOUBTED = "retention_looked", "retention_doubted"
_A_DAY = timedelta(days=1)
_LEASE = timedelta(minutes=15)  # who lives renews long before; who died is noticed then


def bring_back(session: Session, now: datetime) -> None:
    """What waits for a time that nothing is put off to waits no longer; leases that end so late end soon. No state changes."""
    future = now + _LONGER_THAN_ANY_PAUSE
    open_deliveries = (DeliveryState.WAITING.value, DeliveryState.SENT.value)
    session.execute(update(Job).where(Job.state == JobState.QUEUED.value, Job.not_before > future).values(not_before=now))
    session.execute(
        update(Delivery).where(Delivery.state.in_(open_deliveries), Delivery.not_before > future).values(not_before=now)
    )
    unreported = (Commitment.reported_at.is_(None), Commitment.not_before > future)
    session.execute(update(Commitment).where(*unreported).values(not_before=now))
    _bring_promises_back(session, future, now)
    future = now + _LONGER_THAN_ANY_LEASE
    # Of a failed job: whoever says "not run" for it.
    leased = ((Job, JobState.RUNNING), (Job, JobState.FAILED), (Delivery, DeliveryState.SENDING))
    for row, state in leased:
        session.execute(update(row).where(row.state == state.value, row.lease_until > future).values(lease_until=now + _LEASE))


def _bring_promises_back(session: Session, future: datetime, now: datetime) -> None:
    """What was committed by a clock that was ahead is kept for the stated time from now on, not for years beyond it.

    The stated time is that from the decision to the end of the promise. What an earlier promise keeps for longer stays.
    """
    for row in session.scalars(select(Commitment).where(Commitment.decided_at > future)).all():
        ahead = (row.decided_at or now) - now
        uids = [uid for _, uid in row.references]
        kept: dict[int, datetime] = {}
        for start in range(0, len(uids), _AT_ONCE):
            some = (Instance.sop_instance_uid.in_(uids[start : start + _AT_ONCE]), Instance.keep_until > row.decided_at)
            kept |= {
                found.id: found.keep_until for found in session.execute(select(Instance.id, Instance.keep_until).where(*some))
            }
        first = min(kept.values(), default=now)
        for instance_id, keep_until in kept.items():
            if keep_until - first < _SAME_PROMISE:
                values = {"keep_until": keep_until - ahead}
                session.execute(update(Instance).where(Instance.id == instance_id).values(**values))
        row.decided_at, row.received_at = now, min(row.received_at, now)


def believed(session: Session, now: datetime) -> datetime:
    """What retention may take the time to be: a clock that has moved by more than a day since its last look is doubted.

    For a day it goes on from the time that was believed before; then whoever set the clock ahead would have noticed, or the
    node was only off. Else a year too much, for five minutes, would purge all that was promised for a year.
    """
    marks = {mark.name: mark for mark in session.scalars(select(Mark).where(Mark.name.in_([_LOOKED, _DOUBTED])))}
    looked, doubted = marks.get(_LOOKED), marks.get(_DOUBTED)
    if looked is not None and now - looked.at > _A_DAY:
        if doubted is None or doubted.at > now:
            doubted = session.merge(Mark(name=_DOUBTED, at=now))
        if now - doubted.at < _A_DAY:
            return looked.at + (now - doubted.at)
    session.merge(Mark(name=_LOOKED, at=now))
    if doubted is not None:
        session.delete(doubted)
    return now
