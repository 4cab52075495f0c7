"""What may be removed, and that it was: bytes of sources and results first, their rows later, audit rows to an archive.

Nothing unsent is ever purged. A purge is told to the rows before the first file goes and again after the last one: whatever
falls in between is gone on with by the next sweep, and an instance that comes again meanwhile is simply stored again.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, literal_column, or_, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.states import DeliveryState, JobState
from dicomnode.registry.tables import Association, AuditRow, Conflict, Delivery, Instance, Job, Result, Series, Study

_UNDER_WAY = (JobState.QUEUED.value, JobState.RUNNING.value)
_NOT_SENT = tuple(
    state.value for state in (DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.HELD, DeliveryState.REJECTED)
)
_AT_ONCE = 500  # parameters of one statement
_GONE: ColumnElement[str] = literal_column("''")  # as the partial index has it; SQLite would not know a parameter again


def _on_its_way(status_is_proof: Collection[str]) -> ColumnElement[bool]:
    """Deliveries that were not sent, or may have to be sent again: the archive has not said that it has them.

    status_is_proof: the destinations whose answer is all the proof there is.
    """
    unproved = and_(Delivery.state == DeliveryState.SENT.value, Delivery.destination.not_in(list(status_is_proof)))
    return or_(Delivery.state.in_(_NOT_SENT), unproved)


def _nothing_under_way(status_is_proof: Collection[str], now: datetime) -> list[ColumnElement[bool]]:
    """Of a study: nothing arrives, runs, waits to be sent or to be decided, and nobody was promised to find it here.

    What is sent and not proved keeps the sources too: a result leaves only while the images that it names are here.
    """
    return [
        Study.purged_at.is_(None),
        ~Study.unsettled,
        Study.held == "",
        ~exists().where(Conflict.study_id == Study.id, Conflict.decided_at.is_(None)),
        ~exists().where(Job.study_id == Study.id, Job.state.in_(_UNDER_WAY)),
        ~exists().where(Job.study_id == Study.id, Delivery.job_id == Job.id, _on_its_way(status_is_proof)),
        ~exists().where(Series.study_id == Study.id, or_(Series.held != "", Series.state == "arriving")),
        ~exists().where(Series.study_id == Study.id, Instance.series_id == Series.id, Instance.keep_until > now),
    ]


def purgeable_studies(
    session: Session, before: datetime, status_is_proof: Collection[str], now: datetime, limit: int
) -> list[int]:
    """Studies to which nothing came since `before` and of which all is done and has arrived, the oldest first; their ids."""
    wanted = select(Study.id).where(Study.last_arrival_at < before, *_nothing_under_way(status_is_proof, now))
    return list(session.scalars(wanted.order_by(Study.last_arrival_at, Study.id).limit(limit)))


def begin_purge(session: Session, study_id: int, status_is_proof: Collection[str], now: datetime) -> bool:
    """The study's sources are no longer counted on, if nothing of it began meanwhile."""
    session.execute(select(Study.id).where(Study.id == study_id).with_for_update())
    fit = (
        update(Study)
        .where(Study.id == study_id, *_nothing_under_way(status_is_proof, now))
        .values(purged_at=now)
        .returning(Study.id)
    )
    if len(session.execute(fit, execution_options={"synchronize_session": False}).all()) != 1:
        return False
    of_study = select(Series.id).where(Series.study_id == study_id).scalar_subquery()
    # The headers go too: they are most of a row, and what is left is there to know the same instance again.
    gone = {"purged_at": now, "attributes": {}}
    session.execute(update(Instance).where(Instance.series_id.in_(of_study), Instance.path != "").values(**gone))
    return True


def purgeable_jobs(session: Session, before: datetime, status_is_proof: Collection[str], limit: int) -> list[int]:
    """Jobs that ended before, whose results have all arrived for good or were called off; their ids."""
    wanted = select(Job.id).where(
        Job.finished_at < before,
        Job.state.not_in(_UNDER_WAY),
        exists().where(Result.job_id == Job.id, Result.purged_at.is_(None)),
        ~exists().where(Delivery.job_id == Job.id, _on_its_way(status_is_proof)),
        ~exists().where(Study.id == Job.study_id, or_(Study.held != "", Study.unsettled)),
    )
    return list(session.scalars(wanted.order_by(Job.finished_at, Job.id).limit(limit)))


def begin_purge_of_results(session: Session, job_ids: Sequence[int], now: datetime) -> None:
    """These jobs' spooled objects are no longer counted on."""
    session.execute(update(Result).where(Result.job_id.in_(job_ids), Result.path != "").values(purged_at=now))


def files_to_remove(session: Session, limit: int) -> list[Path]:
    """Files that nobody counts on any more, also those that an earlier sweep did not come to."""
    found: list[Path] = []
    for row in (Instance, Result):
        columns = row.__table__.c
        wanted = select(columns.path).where(columns.purged_at.is_not(None), columns.path != _GONE).limit(limit - len(found))
        found += [Path(path) for path in session.scalars(wanted)]
    # What contradicted a purged study and was decided has nothing left to contradict.
    decided = and_(
        Conflict.decided_at.is_not(None), exists().where(Study.id == Conflict.study_id, Study.purged_at.is_not(None))
    )
    wanted = select(Conflict.path).where(decided, Conflict.path != "").limit(limit - len(found))
    return found + [Path(path) for path in session.scalars(wanted)]


def removed(session: Session, paths: Sequence[Path]) -> None:
    """These files are gone."""
    names = [path.as_posix() for path in paths]
    for start in range(0, len(names), _AT_ONCE):
        these = names[start : start + _AT_ONCE]
        session.execute(update(Instance).where(Instance.path.in_(these), Instance.purged_at.is_not(None)).values(path=""))
        session.execute(update(Result).where(Result.path.in_(these), Result.purged_at.is_not(None)).values(path=""))
        session.execute(update(Conflict).where(Conflict.path.in_(these), Conflict.decided_at.is_not(None)).values(path=""))


def forget_instances_purged(session: Session, before: datetime, limit: int) -> int:
    """Remove the rows of instances whose bytes went before; how many. From then on the same instance is a new one."""
    old = select(Instance.id).where(Instance.purged_at < before, Instance.path == "").limit(limit).scalar_subquery()
    return len(session.execute(delete(Instance).where(Instance.id.in_(old)).returning(Instance.id)).all())


def forget_associations(session: Session, before: datetime, limit: int) -> int:
    """Remove the rows of associations that ended before; how many. Their instances stay."""
    old = select(Association.id).where(Association.ended_at < before).limit(limit).scalar_subquery()
    return len(session.execute(delete(Association).where(Association.id.in_(old)).returning(Association.id)).all())


def audit_before(session: Session, before: datetime, limit: int) -> list[Mapping[str, Any]]:
    """The oldest audit rows from before, as the archive holds them."""
    rows = session.scalars(select(AuditRow).where(AuditRow.at < before).order_by(AuditRow.id).limit(limit))
    columns = AuditRow.__table__.c.keys()
    return [{name: getattr(row, name) for name in columns} for row in rows]


def forget_audit(session: Session, ids: Sequence[int]) -> None:
    """Remove rows that the archive holds."""
    for start in range(0, len(ids), _AT_ONCE):
        session.execute(delete(AuditRow).where(AuditRow.id.in_(ids[start : start + _AT_ONCE])))


def is_purged(session: Session, study_id: int) -> bool:
    """Whether images of the study lack their bytes."""
    of_study = select(Series.id).where(Series.study_id == study_id).scalar_subquery()
    lacking = select(func.count()).where(Instance.series_id.in_(of_study), Instance.purged_at.is_not(None), ~Instance.ours)
    return bool(session.scalar(lacking))
