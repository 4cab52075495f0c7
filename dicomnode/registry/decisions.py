"""What an operator says of a contradiction: the newer header is right, or what is stored is; go on with a held series."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from dicomnode.domain.states import JobState
from dicomnode.registry.conflicts import (
    STUDY_COLUMNS,
    keep_header_version,
    mark_stale,
    newest_identity,
    same_identity,
    study_columns,
)
from dicomnode.registry.queue import supersede
from dicomnode.registry.records import ConflictKind
from dicomnode.registry.tables import Conflict, HeaderVersion, Instance, Job, Series, Study
from dicomnode.registry.transitions import SERIES, remarked

_CORRECTED = "the patient or study was corrected"


def accept_newest(session: Session, study_id: int, now: datetime) -> list[str]:
    """A held study goes on under its newest header (a correction, a merge); the keys of what was held or is done anew.

    Instances that came again with it take the place of the stored ones, whose bytes stay in the conflict's row. What ran over
    the old header is superseded and runs again.
    """
    study = session.get(Study, study_id, with_for_update=True)
    if study is None or not study.held:
        return release_all_series(session, study_id, now)
    study.held = ""
    changed = [f"S{study_id}", *release_all_series(session, study_id, now)]
    if _take_over(session, study_id):
        newest = _header(session, study_id, newest=True)
        for column, text in study_columns(newest).items():
            setattr(study, column, text)
        for series in session.scalars(select(Series).where(Series.study_id == study_id, ~Series.ours)):
            series.attributes = {**series.attributes, **newest}
        standing = Job.state != JobState.SUPERSEDED.value
        jobs = session.scalars(select(Job).where(Job.study_id == study_id, standing)).all()
        supersede(session, jobs, _CORRECTED, now)
        mark_stale(session, study_id, _CORRECTED)
        study.arrivals, study.unsettled = study.arrivals + 1, True
        changed += [f"J{job.id}" for job in jobs]
    _decide(session, study_id, now)
    return changed


def keep_stored(session: Session, study_id: int, now: datetime) -> list[str]:
    """A held study goes on under the header that it has: what contradicted it stays aside; the keys of what was held."""
    study = session.get(Study, study_id, with_for_update=True)
    if study is None:
        return []
    stored = _header(session, study_id, newest=False)
    if not study.held and same_identity(stored, newest_identity(session, study_id)):
        return []
    study.held = ""
    keep_header_version(session, study_id, stored, now)
    mark_stale(session, study_id, None)
    changed = [f"S{study_id}", *release_all_series(session, study_id, now)]
    _decide(session, study_id, now)
    return changed


def release_all_series(session: Session, study_id: int, now: datetime) -> list[str]:
    """Every held series of the study goes on; their keys."""
    held = session.scalars(select(Series.id).where(Series.study_id == study_id, Series.held != "")).all()
    return [key for series_id in held for key in release_series(session, series_id, now)]


def release_series(session: Session, series_id: int, now: datetime) -> list[str]:
    """An operator lets a held series go on; its key if it was held."""
    row = session.execute(select(Series.state, Series.held).where(Series.id == series_id)).one()
    if not row.held:
        return []
    session.execute(update(Series).where(Series.id == series_id).values(held=""))
    remarked(session, SERIES, series_id, row.state, "released", now=now, reason="operator")
    undecided = (Conflict.series_id == series_id, Conflict.decided_at.is_(None))
    session.execute(update(Conflict).where(*undecided).values(decided_at=now))
    return [f"E{series_id}"]


def _header(session: Session, study_id: int, *, newest: bool) -> dict[str, str]:
    if not newest:
        study = session.execute(select(Study).where(Study.id == study_id)).scalar_one()
        return {keyword: str(getattr(study, column)) for column, keyword in STUDY_COLUMNS.items()}
    of_study = select(HeaderVersion.attributes).where(HeaderVersion.study_id == study_id)
    attributes = session.execute(of_study.order_by(HeaderVersion.version.desc()).limit(1)).scalar_one()
    return {str(keyword): str(text) for keyword, text in attributes.items()}


def _take_over(session: Session, study_id: int) -> int:
    """The bytes that came again with another header and those that are stored change places; how many."""
    wanted = (Conflict.study_id == study_id, Conflict.kind == ConflictKind.HEADER.value, Conflict.decided_at.is_(None))
    newer = session.scalars(select(Conflict).where(*wanted, Conflict.path != "").order_by(Conflict.id)).all()
    for conflict in newer:
        instance = session.scalars(select(Instance).where(Instance.sop_instance_uid == conflict.sop_instance_uid)).one_or_none()
        if instance is None or conflict.attributes is None or conflict.transfer_syntax_uid is None:
            continue
        for name in ("path", "sha256", "size_bytes", "transfer_syntax_uid", "attributes"):
            stored, came = getattr(instance, name), getattr(conflict, name)
            setattr(instance, name, came)
            setattr(conflict, name, stored)
    return len(newer)


def _decide(session: Session, study_id: int, now: datetime) -> None:
    undecided = (Conflict.study_id == study_id, Conflict.decided_at.is_(None))
    session.execute(update(Conflict).where(*undecided).values(decided_at=now))
