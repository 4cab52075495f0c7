"""Acknowledged instances whose bytes the disk has lost: whose they are, and no job on what is left of them."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dicomnode.domain.states import JobState
from dicomnode.registry.tables import Instance, Job, Series
from dicomnode.registry.transitions import SERIES, remarked

HOLD_REASON = "stored images are missing or damaged"
_AT_ONCE = 500  # parameters of one statement


def studies_of(session: Session, paths: Sequence[Path]) -> list[str]:
    """The keys of the studies whose instances lie at these paths."""
    return [f"S{study_id}" for study_id in sorted({study_id for _, study_id in _series_of(session, paths)})]


def hold(session: Session, paths: Sequence[Path], now: datetime) -> list[str]:
    """Hold the series whose instances lie at these paths until an operator lets them go on; keys of those not held before.

    A cut file is refused by imaging as corrupt, but one flipped bit of uncompressed pixels is a picture like any other.
    """
    held = []
    for series_id in sorted({series_id for series_id, _ in _series_of(session, paths)}):
        state = session.scalar(select(Series.state).where(Series.id == series_id, Series.held == ""))
        if state is not None:
            session.execute(update(Series).where(Series.id == series_id).values(held=HOLD_REASON))
            remarked(session, SERIES, series_id, state, "held", now=now, reason=HOLD_REASON)
            held.append(f"E{series_id}")
    return held


def jobs_at_work(session: Session) -> frozenset[str]:
    """The keys of jobs that a worker holds: what lies in their spool folders is being written."""
    return frozenset(f"J{job_id}" for job_id in session.scalars(select(Job.id).where(Job.state == JobState.RUNNING)))


def _series_of(session: Session, paths: Sequence[Path]) -> Iterator[tuple[int, int]]:
    """(series id, study id) of each instance at one of these paths."""
    names = [path.as_posix() for path in paths]
    for start in range(0, len(names), _AT_ONCE):
        statement = (
            select(Series.id, Series.study_id)
            .join(Instance, Instance.series_id == Series.id)
            .where(Instance.path.in_(names[start : start + _AT_ONCE]))
        )
        yield from ((row.id, row.study_id) for row in session.execute(statement))
