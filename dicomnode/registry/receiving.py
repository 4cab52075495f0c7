"""Rows of what arrives: studies, series, instances, associations, conflicts."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.received import Received
from dicomnode.domain.states import SeriesEvent, SeriesState
from dicomnode.registry import conflicts, keys, other_titles
from dicomnode.registry.engine import insert_if_absent
from dicomnode.registry.members import among_numbers
from dicomnode.registry.queue import supersede_jobs_of_series
from dicomnode.registry.records import InstanceKeys, KnownInstance, StoredFile
from dicomnode.registry.tables import Association, Conflict, Instance, Mark, Result, Series, Study
from dicomnode.registry.text import clean, header_text, whole_number
from dicomnode.registry.transitions import SERIES, began, change

_CLEAN_STOP, _VERIFIED = "clean_stop", "verified"
_PAGE = 2000
RELEASED = "released"  # how an association ends in order
_INSERT_INSTANCE = insert(Instance.__table__)  # type: ignore[arg-type]
# These updates run for each image, and no object in the session shows their columns: nothing to bring up to date.
_NOTHING_LOADED = {"synchronize_session": False}


def find_instance(session: Session, sop_instance_uid: str) -> KnownInstance | None:
    """What is stored under this UID."""
    rows = _known(session, Instance.sop_instance_uid == sop_instance_uid)
    return rows[0] if rows else None


def instances_since(session: Session, since: datetime | None) -> list[KnownInstance]:
    """Instances received at `since` or later; all for None."""
    return _known(session, *([] if since is None else [Instance.received_at >= since]))


def _known(session: Session, *conditions: object) -> list[KnownInstance]:
    statement = (
        select(Instance, Series.id, Series.series_instance_uid, Study.id, Study.study_instance_uid)
        .join(Series, Instance.series_id == Series.id)
        .join(Study, Series.study_id == Study.id)
        .where(*conditions)  # type: ignore[arg-type]
        .order_by(Instance.id)
    )
    return [
        KnownInstance(
            sop_instance_uid=row.sop_instance_uid,
            sop_class_uid=row.sop_class_uid,
            series_instance_uid=series_uid,
            study_instance_uid=study_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            path=Path(row.path),
            sha256=row.sha256,
            pixel_digest=row.pixel_digest,
            size_bytes=row.size_bytes,
            attributes=row.attributes,
            ours=row.ours,
            purged=row.purged_at is not None,
            received_at=row.received_at,
            study_key=f"S{study_id}",
            series_key=f"E{series_id}",
        )
        for row, series_id, series_uid, study_id, study_uid in session.execute(statement)
    ]


def add_instance(session: Session, received: Received, *, ours: bool, replaces: bool) -> InstanceKeys:
    """Keep the row of a durable instance and let it reopen what it must."""
    existing = session.execute(
        select(Instance.id, Instance.series_id, Series.study_id)
        .join(Series, Instance.series_id == Series.id)
        .where(Instance.sop_instance_uid == received.sop_instance_uid)
    ).one_or_none()
    if existing is not None:
        if replaces:
            again = {**_bytes(received), "attributes": dict(received.attributes), "purged_at": None}
            other_titles.note(session, received)  # first: it locks the study, then its images, as retention does
            _there_again(session, existing.study_id, received.received_at)
            session.execute(update(Instance).where(Instance.id == existing.id).values(**again))
        return InstanceKeys(f"S{existing.study_id}", f"E{existing.series_id}", new=False)
    study_id = _study_id(session, received)
    series_id = _series_id(session, study_id, received, ours=ours)
    association_id = _note_association(session, study_id, received)
    session.execute(_INSERT_INSTANCE, instance_columns(received, series_id, association_id, ours=ours))
    _note_arrival(session, study_id, series_id, received, ours=ours)
    return InstanceKeys(f"S{study_id}", f"E{series_id}", new=True)


def _there_again(session: Session, study_id: int, now: datetime) -> None:
    """Of a study that was purged something is there again: its days begin anew, else it would never go a second time."""
    again = update(Study).where(Study.id == study_id, Study.purged_at.is_not(None))
    session.execute(again.values(purged_at=None, last_arrival_at=now), execution_options=_NOTHING_LOADED)


def instance_columns(received: Received, series_id: int, association_id: int | None, *, ours: bool) -> dict[str, object]:
    """Every column of the instance's row but its id."""
    attributes = received.attributes
    return {
        "series_id": series_id,
        "association_id": association_id,
        "sop_instance_uid": received.sop_instance_uid,
        "sop_class_uid": received.sop_class_uid,
        "instance_number": whole_number(attributes.get("InstanceNumber", "")),
        "number_of_frames": max(whole_number(attributes.get("NumberOfFrames", "")) or 1, 1),
        "image_type": header_text(attributes, "ImageType"),
        "attributes": dict(attributes),
        "ours": ours,
        "received_at": received.received_at,
        "keep_until": None,
        "purged_at": None,
        "rejected": None,
        **_bytes(received),
    }


def _bytes(received: Received) -> dict[str, object]:
    return {
        "path": received.path.as_posix(),
        "sha256": received.sha256,
        "pixel_digest": received.pixel_digest,
        "size_bytes": received.size_bytes,
        "transfer_syntax_uid": received.transfer_syntax_uid,
    }


def _study_id(session: Session, received: Received) -> int:
    by_uid = select(Study.id).where(Study.study_instance_uid == received.study_instance_uid).with_for_update()
    study_id = session.scalar(by_uid)
    if study_id is not None:
        return study_id
    values = {
        "study_instance_uid": received.study_instance_uid,
        "received_at": received.received_at,
        "last_arrival_at": received.received_at,
        "arrivals": 0,
        "unsettled": False,
        "held": "",
        **conflicts.study_columns(received.attributes),
    }
    insert_if_absent(session, Study, values, ["study_instance_uid"])
    study_id = session.execute(by_uid).scalar_one()
    conflicts.keep_header_version(session, study_id, received.attributes, received.received_at)
    return study_id


def _series_id(session: Session, study_id: int, received: Received, *, ours: bool) -> int:
    by_uid = select(Series.id).where(Series.study_id == study_id, Series.series_instance_uid == received.series_instance_uid)
    series_id = session.scalar(by_uid)
    if series_id is not None:
        if not ours:
            other_titles.note_new(session, series_id, received)
        return series_id
    # Our own results are nothing to wait for: their series is complete from its first instance and no route sees it.
    state = SeriesState.COMPLETE if ours else SeriesState.ARRIVING
    row = Series(
        study_id=study_id,
        series_instance_uid=received.series_instance_uid,
        modality=header_text(received.attributes, "Modality"),
        sop_class_uid=received.sop_class_uid,
        attributes=dict(received.attributes),
        calling_ae=clean(received.calling_ae),
        called_ae=clean(received.called_ae),
        address=received.address,
        state=state.value,
        ours=ours,
        received_at=received.received_at,
        opened_at=received.received_at,
        last_arrival_at=received.received_at,
    )
    session.add(row)
    session.flush()
    began(session, SERIES, row.id, state, now=received.received_at, reason="a result of this software" if ours else "")
    return row.id


def association_id_of(received: Received) -> int | None:
    """The id of the association that brought it; None if it names none."""
    parts = keys.split(received.association_key)
    return parts[1] if parts is not None and parts[0] == "A" else None


def _note_association(session: Session, study_id: int, received: Received) -> int | None:
    association_id = association_id_of(received)
    if association_id is not None:
        session.execute(
            update(Association)
            .where(Association.id == association_id)
            .values(instances=Association.instances + 1, last_instance_at=received.received_at, last_study_id=study_id),
            execution_options=_NOTHING_LOADED,
        )
    return association_id


def _note_arrival(session: Session, study_id: int, series_id: int, received: Received, *, ours: bool) -> None:
    now = received.received_at
    series = session.execute(
        select(Series.state, Series.ours, Series.generation, Series.last_arrival_at).where(Series.id == series_id)
    ).one()
    values: dict[str, object] = {"instances": Series.instances + 1, "last_arrival_at": max(now, series.last_arrival_at)}
    session.execute(update(Series).where(Series.id == series_id).values(**values), execution_options=_NOTHING_LOADED)
    if ours:
        return
    if series.state == SeriesState.COMPLETE:
        reopened = {"opened_at": now, "generation": series.generation + 1, "completed_at": None, "forced": False, "ours": False}
        change(session, SERIES, series_id, series.state, SeriesEvent.LATE_IMAGE, now=now, values=reopened | {"evidence": {}})
        supersede_jobs_of_series(session, series_id, f"a late image arrived in E{series_id}", now)
    study = session.execute(select(Study).where(Study.id == study_id)).scalar_one()
    study.arrivals += 1
    study.unsettled = True
    study.purged_at = None
    study.last_arrival_at = max(now, study.last_arrival_at)
    conflicts.check_identity(session, study, series_id, received)


def all_associations_ended(session: Session, how: str, now: datetime, *, node: str) -> None:
    """After a restart of the node no association of it can still be open; "": whosever it is."""
    mine = [func.coalesce(Association.node, "").in_(["", node])] if node else []
    session.execute(update(Association).where(Association.ended_at.is_(None), *mine).values(ended_at=now, how=how))


def is_our_result(session: Session, sop_instance_uid: str) -> bool:
    """Whether it is a result that this node made, or that it recognised earlier."""
    made = session.scalar(select(Result.id).where(Result.sop_instance_uid == sop_instance_uid))
    if made is not None:
        return True
    return bool(session.scalar(select(Instance.ours).where(Instance.sop_instance_uid == sop_instance_uid)))


def forget_instances(session: Session, sop_instance_uids: Sequence[str], now: datetime) -> int:
    """Remove rows whose bytes never became durable. Their studies are judged again."""
    removed = 0
    for uid in sop_instance_uids:
        row = session.execute(
            select(Instance.id, Instance.series_id, Series.study_id, Instance.ours)
            .join(Series, Instance.series_id == Series.id)
            .where(Instance.sop_instance_uid == uid)
        ).one_or_none()
        if row is None:
            continue
        session.execute(delete(Instance).where(Instance.id == row.id))
        session.execute(update(Series).where(Series.id == row.series_id).values(instances=Series.instances - 1))
        if not row.ours:
            supersede_jobs_of_series(session, row.series_id, f"an instance of E{row.series_id} was lost before its answer", now)
            session.execute(update(Study).where(Study.id == row.study_id).values(arrivals=Study.arrivals + 1, unsettled=True))
        removed += 1
    return removed


def known_files(session: Session, after: tuple[int, int, int]) -> Iterator[tuple[int, int, Path, int, str]]:
    """One page of (table, id, path, size, SHA-256) of instances (0), results (1), quarantined instances (2) after these ids."""
    tables: tuple[type[Instance | Result | Conflict], ...] = (Instance, Result, Conflict)
    for index, row in enumerate(tables):
        statement = select(row.id, row.path, row.size_bytes, row.sha256)
        there = [row.path != ""] if row is Conflict else [row.path != "", row.__table__.c.purged_at.is_(None)]
        page = session.execute(statement.where(row.id > after[index], *there).order_by(row.id).limit(_PAGE))
        for row_id, path, size_bytes, sha256 in page:
            yield index, row_id, Path(path), size_bytes, sha256


def files_since(session: Session, since: datetime | None, after: int) -> list[tuple[int, Path, int, str]]:
    """One page of (id, path, size, SHA-256) of instances received at `since` or later (all for None), behind this id."""
    newer = [] if since is None else [Instance.received_at >= since]
    statement = select(Instance.id, Instance.path, Instance.size_bytes, Instance.sha256)
    kept = Instance.purged_at.is_(None)
    page = session.execute(statement.where(Instance.id > after, kept, *newer).order_by(Instance.id).limit(_PAGE))
    return [(row.id, Path(row.path), row.size_bytes, row.sha256) for row in page]


def files_in(session: Session, folder: Path, since: datetime) -> list[StoredFile]:
    """The instances received at `since` or later whose files are in this folder."""
    prefix = folder.as_posix()
    # "0" follows "/": the range of all names below the folder.
    return _stored_files(session, Instance.received_at >= since, Instance.path > f"{prefix}/", Instance.path < f"{prefix}0")


def files_of(session: Session, sop_instance_uids: Sequence[str]) -> list[StoredFile]:
    """The files of those of these instances that have a row."""
    return _stored_files(session, Instance.sop_instance_uid.in_(sop_instance_uids))


def _stored_files(session: Session, *conditions: object) -> list[StoredFile]:
    columns = (Instance.id, Instance.association_id, Instance.sop_instance_uid)
    of_file = (Instance.path, Instance.size_bytes, Instance.sha256)
    kept = (Instance.purged_at.is_(None), *conditions)
    rows = session.execute(select(*columns, *of_file).where(*kept).order_by(Instance.id)).all()  # type: ignore[arg-type]
    if not rows:
        return []
    newest = select(Instance.association_id, func.max(Instance.id)).where(Instance.id >= rows[0].id)
    last_of = {key: last for key, last in session.execute(newest.group_by(Instance.association_id))}  # noqa: C416 - of rows
    of_these = among_numbers(Association.id, [key for key in last_of if key is not None])
    released = set(session.scalars(select(Association.id).where(of_these, Association.how == RELEASED)))
    return [
        StoredFile(
            row.sop_instance_uid,
            Path(row.path),
            row.size_bytes,
            row.sha256,
            answered=row.association_id is None or row.association_id in released or last_of[row.association_id] > row.id,
        )
        for row in rows
    ]


def last_clean_stop(session: Session) -> datetime | None:
    """When the node last stopped in order."""
    return session.scalar(select(Mark.at).where(Mark.name == _CLEAN_STOP))


def mark_clean_stop(session: Session, now: datetime) -> None:
    """The node stops in order."""
    session.merge(Mark(name=_CLEAN_STOP, at=now))


def verified_until(session: Session) -> datetime | None:
    """What arrived before needs no second look: the newer of the last clean stop and the last look that found no damage."""
    return session.scalar(select(func.max(Mark.at)).where(Mark.name.in_([_CLEAN_STOP, _VERIFIED])))


def mark_verified(session: Session, until: datetime) -> None:
    """All that arrived before was looked at after a crash and is as it was acknowledged."""
    session.merge(Mark(name=_VERIFIED, at=until))
