"""Alarms that the rows themselves show, and since when the others stand.

What rows show needs no row of its own: it stands as long as they stand so, over every restart, and goes with them.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, String, and_, delete, func, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from dicomnode.domain.alarms import OF_A_MACHINE, Alarm, AlarmKind
from dicomnode.domain.clock import type_clock
from dicomnode.domain.states import DeliveryState, JobState
from dicomnode.registry import canary, keys
from dicomnode.registry.damage import HOLD_REASON
from dicomnode.registry.engine import Database
from dicomnode.registry.queue import claimable
from dicomnode.registry.tables import AuditRow, Base, Conflict, Delivery, Job, Series, Study
from dicomnode.registry.trouble import begun_anew

_MOST = 500  # rows that one kind looks at: who has more of them knows enough
_STOPPED = {
    DeliveryState.HELD.value: AlarmKind.DELIVERY_HELD,
    DeliveryState.REJECTED.value: AlarmKind.DELIVERY_REJECTED,
}


class AlarmRow(Base):
    """An alarm as the last look of the sweep found it. The row goes with its cause."""

    __tablename__ = "alarms"

    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    count: Mapped[int]
    node: Mapped[str | None]  # which of those that share the rows saw it first


type_name = tuple[str, str]  # kind, subject
# These stand by what a node's own settings say of the rows, and those of another node may say otherwise.
_BY_SETTINGS = frozenset({AlarmKind.QUEUE_DEEP, AlarmKind.JOB_FAILED, AlarmKind.CANARY_LATE})


@begun_anew
class Alarms:
    """The registry's part for alarms. Each call is one transaction."""

    def __init__(self, database: Database, clock: type_clock) -> None:
        self._database, self._clock = database, clock

    def standing(self, *, queue_longer_than: timedelta, failed_within: timedelta) -> list[Alarm]:
        """What the rows show now."""
        now = self._clock()
        with self._database.read() as session:
            return [
                *_queue(session, now, queue_longer_than),
                *_destinations(session),
                *_stopped_deliveries(session),
                *_contradictions(session),
                *_jobs(session, now - failed_within),
            ]

    def known_since(self) -> dict[type_name, datetime]:
        """Since when the alarms stand that the last look found."""
        with self._database.read() as session:
            return {(row.kind, row.subject): row.since for row in session.scalars(select(AlarmRow))}

    def keep(self, standing: Iterable[Alarm], node: str = "") -> tuple[list[type_name], list[type_name]]:
        """These stand now and no others; names of those that are new, and of those that went.

        node: who looks, where several share the rows: what another one sees of its own machine stays, and so does what it
        saw by its own settings as long as the cause is there.
        """
        now, alarms = self._clock(), {(one.kind.value, one.subject): one for one in standing}
        with self._database.read() as session:
            rows = session.scalars(select(AlarmRow)).all()
            known = {
                (row.kind, row.subject): row.count
                for row in rows
                if (row.kind, row.subject) in alarms or _is_for(session, node, row, now)
            }
        raised, cleared = [name for name in alarms if name not in known], [name for name in known if name not in alarms]
        changed = [name for name, one in alarms.items() if name in known and known[name] != one.count]
        if raised or cleared or changed:
            with self._database.write() as session:
                for name in cleared:
                    session.execute(delete(AlarmRow).where(*_named(name)))
                for name in changed:
                    session.execute(update(AlarmRow).where(*_named(name)).values(count=alarms[name].count))
                for kind, subject in raised:
                    one = alarms[kind, subject]
                    row = {"kind": kind, "subject": subject, "since": one.since or now, "count": one.count, "node": node}
                    session.execute(delete(AlarmRow).where(*_named((kind, subject))))  # another node's sweep may be as quick
                    session.execute(insert(AlarmRow).values(row))
        return raised, cleared


def _is_for(session: Session, node: str, row: AlarmRow, now: datetime) -> bool:
    """Whether this node may say that it is over."""
    if not node or row.node == node:
        return True
    if row.kind in OF_A_MACHINE:
        return row.subject.endswith(f"@{node}")
    return row.kind not in _BY_SETTINGS or not row.node or not _cause_is_there(session, row, now)


def _cause_is_there(session: Session, row: AlarmRow, now: datetime) -> bool:
    """Whatever anybody's settings say."""
    if row.kind == AlarmKind.QUEUE_DEEP:
        return bool(_queue(session, now, timedelta()))
    if row.kind == AlarmKind.JOB_FAILED:
        job = session.get(Job, keys.row_id(row.subject, "J"))
        return job is not None and job.state == JobState.FAILED.value
    sent_at, answered_at = canary.marks(session, now)
    return sent_at is not None and (answered_at is None or answered_at < sent_at)


def _named(name: type_name) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (AlarmRow.kind == name[0], AlarmRow.subject == name[1])


def _queue(session: Session, now: datetime, longer_than: timedelta) -> list[Alarm]:
    # Not its creation: one that an operator retried waits since then.
    waits = select(func.count(Job.id), func.min(Job.not_before)).where(*claimable(now))
    count, oldest = session.execute(waits).one()
    if oldest is None or now - oldest <= longer_than:
        return []
    return [Alarm(AlarmKind.QUEUE_DEEP, "queue", count, oldest)]


def _destinations(session: Session) -> list[Alarm]:
    """Those where something was tried, did not arrive and waits for its next try."""
    failed = and_(Delivery.state == DeliveryState.WAITING.value, Delivery.attempt > 0, Delivery.last_error != "")
    columns = (Delivery.destination, func.count(), func.min(Delivery.tried_since), func.max(Delivery.id))
    rows = session.execute(select(*columns).where(failed).group_by(Delivery.destination).order_by(Delivery.destination)).all()
    errors = {
        row.id: row.last_error
        for row in session.execute(
            select(Delivery.id, Delivery.last_error).where(Delivery.id.in_([newest for *_, newest in rows]))
        )
    }
    return [
        Alarm(AlarmKind.DESTINATION_FAILING, destination, count, since, errors.get(newest, ""))
        for destination, count, since, newest in rows
    ]


def _stopped_deliveries(session: Session) -> list[Alarm]:
    """By study: `explain` of it is where an administrator looks next."""
    columns = (Delivery.id, Delivery.state, Delivery.last_error, Job.study_id)
    stopped = (Delivery.state.in_(_STOPPED), Job.state != JobState.SUPERSEDED.value)
    wanted = select(*columns).join(Job, Delivery.job_id == Job.id).where(*stopped).order_by(Delivery.id).limit(_MOST)
    rows = session.execute(wanted).all()
    since = _entered(session, [row.id for row in rows])
    found: dict[tuple[AlarmKind, int], list[tuple[datetime | None, str]]] = {}
    for row in rows:
        found.setdefault((_STOPPED[row.state], row.study_id), []).append((since.get((row.id, row.state)), row.last_error))
    return [
        Alarm(kind, f"S{study_id}", len(those), min((at for at, _ in those if at is not None), default=None), those[0][1])
        for (kind, study_id), those in found.items()
    ]


def _entered(session: Session, ids: Sequence[int]) -> dict[tuple[int, str], datetime]:
    """When these deliveries came into their state last, as far as the audit goes back."""
    audited = (AuditRow.kind == "delivery", AuditRow.row_id.in_(ids), AuditRow.to_state.in_(_STOPPED))
    wanted = select(AuditRow.row_id, AuditRow.to_state, func.max(AuditRow.at)).where(*audited)
    rows = session.execute(wanted.group_by(AuditRow.row_id, AuditRow.to_state))
    return {(row_id, state): at for row_id, state, at in rows}


def _contradictions(session: Session) -> list[Alarm]:
    undecided = Conflict.decided_at.is_(None)
    by_study = select(Conflict.study_id, func.min(Conflict.received_at)).where(undecided).group_by(Conflict.study_id)
    since = {study_id: at for study_id, at in session.execute(by_study)}  # noqa: C416 - of rows
    studies = session.execute(select(Study.id, Study.held).where(Study.held != "").order_by(Study.id).limit(_MOST))
    found = [Alarm(AlarmKind.STUDY_HELD, f"S{row.id}", 1, since.get(row.id), row.held) for row in studies]
    columns = (Series.id, Series.held, func.count(Conflict.id), func.min(Conflict.received_at))
    of_series = and_(Conflict.series_id == Series.id, undecided)
    held = select(*columns).outerjoin(Conflict, of_series).where(Series.held != "").group_by(Series.id, Series.held)
    for series_id, why, count, at in session.execute(held.order_by(Series.id).limit(_MOST)):
        kind = AlarmKind.SERIES_DAMAGED if why == HOLD_REASON else AlarmKind.CONTENT_QUARANTINED
        found.append(Alarm(kind, f"E{series_id}", count or 1, at, why))
    return found


def _jobs(session: Session, failed_since: datetime) -> list[Alarm]:
    held = select(Job).where(Job.state == JobState.QUEUED.value, Job.held != "").order_by(Job.id).limit(_MOST)
    failed = select(Job).where(Job.state == JobState.FAILED.value, Job.finished_at >= failed_since).order_by(Job.id)
    return [
        *(
            Alarm(AlarmKind.JOB_HELD, f"J{job.id}", 1, job.created_at, f"of S{job.study_id}: {job.held}")
            for job in session.scalars(held)
        ),
        *(
            Alarm(AlarmKind.JOB_FAILED, f"J{job.id}", 1, job.finished_at, f"of S{job.study_id}: {job.reason}")
            for job in session.scalars(failed.limit(_MOST))
        ),
    ]
