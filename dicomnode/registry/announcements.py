"""What modalities and archives announce of studies (MPPS, IAN), kept as rows: before, between or after the images they name.

A final count is a statement about single instances: it holds when exactly what it names is here. One of a study that never
comes is forgotten with the associations.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Any

from sqlalchemy import String, UniqueConstraint, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from dicomnode.domain.announcements import (
    COUNTED_STATUSES,
    FINAL_STATUSES,
    Announcement,
    AnnouncementKind,
    AnnouncementStatus,
    StepChange,
)
from dicomnode.domain.clock import type_clock
from dicomnode.registry.engine import Database
from dicomnode.registry.records import Announced, AnnouncedSeries
from dicomnode.registry.tables import Base, Instance, Series
from dicomnode.registry.text import clean
from dicomnode.registry.trouble import begun_anew

_AT_ONCE = 500  # in one IN (…): old SQLite takes 999 parameters
MOST_OF_A_PEER = 100_000  # rows; a large hospital's modalities announce some thousands in the time that these are kept


class AnnouncementRow(Base):
    """One announcement as it concerns one study, which may never come.

    references: series → SOP class → SOP instances that it names. shared: it names further studies, not which series is whose.
    """

    __tablename__ = "announcements"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))
    sop_instance_uid: Mapped[str]
    study_instance_uid: Mapped[str] = mapped_column(index=True)
    peer: Mapped[str]
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str]
    shared: Mapped[bool]
    references: Mapped[dict[str, Any]]
    received_at: Mapped[datetime]
    changed_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (UniqueConstraint("sop_instance_uid", "study_instance_uid"),)


class Noted(Enum):
    """What became of an announcement."""

    KEPT = auto()
    ALREADY_THERE = auto()
    UNKNOWN = auto()  # or another peer's
    FINAL = auto()  # it was said already that nothing more comes
    TOO_MANY = auto()


@begun_anew
class Announcements:
    """The registry's part for what others announce. Each call is one transaction, durable on return."""

    def __init__(self, database: Database, clock: type_clock) -> None:
        self._database, self._clock = database, clock

    def note(self, peer: str, said: Announcement) -> Noted:
        """Keep a new one. The same SOP Instance UID again changes nothing."""
        now = self._clock()
        with self._database.write() as session:
            if _of(session, said.sop_instance_uid):
                return Noted.ALREADY_THERE
            count = session.scalar(select(func.count()).where(AnnouncementRow.peer == peer)) or 0
            if count + len(said.study_instance_uids) > MOST_OF_A_PEER:
                return Noted.TOO_MANY
            for study in said.study_instance_uids:
                session.add(_row(peer, said, study, now))
        return Noted.KEPT

    def change(self, peer: str, said: StepChange) -> Noted:
        """What the modality says later of its step. After its end nothing may change (PS3.4 F.7.2.2)."""
        values: dict[str, object] = {"changed_at": self._clock()}
        if said.status is not None:
            values["status"] = said.status.value
        if said.references is not None:
            values["references"] = said.references
        if said.reason:
            values["reason"] = clean(said.reason)
        with self._database.write() as session:
            rows = _of(session, said.sop_instance_uid)
            if not rows or any(row.peer != peer or row.kind != AnnouncementKind.STEP.value for row in rows):
                return Noted.UNKNOWN
            if any(row.status in FINAL_STATUSES for row in rows):
                return Noted.FINAL
            these = AnnouncementRow.sop_instance_uid == said.sop_instance_uid
            session.execute(update(AnnouncementRow).where(these).values(**values))
        return Noted.KEPT


def _of(session: Session, sop_instance_uid: str) -> Sequence[AnnouncementRow]:
    wanted = select(AnnouncementRow).where(AnnouncementRow.sop_instance_uid == sop_instance_uid)
    return session.scalars(wanted.with_for_update()).all()


def _row(peer: str, said: Announcement, study: str, now: datetime) -> AnnouncementRow:
    return AnnouncementRow(
        kind=said.kind.value,
        sop_instance_uid=said.sop_instance_uid,
        study_instance_uid=study,
        peer=peer,
        status=said.status.value,
        reason="",
        shared=len(said.study_instance_uids) > 1,
        references=dict(said.references),
        received_at=now,
        changed_at=now,
    )


def announced_of(session: Session, studies: Mapping[str, int]) -> dict[int, Announced]:
    """What was announced of these studies (Study Instance UID → id) and is not here; nothing for those of which nothing was."""
    rows: dict[str, list[AnnouncementRow]] = {}
    uids = list(studies)
    for start in range(0, len(uids), _AT_ONCE):
        some = AnnouncementRow.study_instance_uid.in_(uids[start : start + _AT_ONCE])
        for row in session.scalars(select(AnnouncementRow).where(some).order_by(AnnouncementRow.id)):
            rows.setdefault(row.study_instance_uid, []).append(row)
    return {studies[uid]: _announced(of_study, _here(session, studies[uid])) for uid, of_study in rows.items()}


def _here(session: Session, study_id: int) -> dict[str, set[str]]:
    """Series → its instances that ever came, whatever became of them."""
    found: dict[str, set[str]] = {}
    columns = (Series.series_instance_uid, Instance.sop_instance_uid)
    rows = session.execute(select(*columns).join(Instance, Instance.series_id == Series.id).where(Series.study_id == study_id))
    for series, instance in rows:
        found.setdefault(series, set()).add(instance)
    return found


def _announced(rows: Sequence[AnnouncementRow], here: Mapping[str, set[str]]) -> Announced:
    everything = {uid for uids in here.values() for uid in uids}
    named: dict[str, dict[str, str]] = {}  # series → instance → SOP class
    kinds: dict[str, set[AnnouncementKind]] = {}
    absent: dict[str, set[str]] = {}  # series of which nothing came → SOP classes
    for row in rows:
        if row.status not in COUNTED_STATUSES:
            continue
        for series, classes in row.references.items():
            named.setdefault(series, {}).update({uid: name for name, uids in classes.items() for uid in uids})
            kinds.setdefault(series, set()).add(AnnouncementKind(row.kind))
            if series not in here and not row.shared:
                absent.setdefault(series, set()).update(classes)
    return Announced(
        series={
            uid: AnnouncedSeries(len(of_series), len(set(of_series) - everything), frozenset(kinds[uid]))
            for uid, of_series in named.items()
        },
        in_progress=sum(row.status == AnnouncementStatus.IN_PROGRESS.value for row in rows),
        absent={series: frozenset(classes) for series, classes in absent.items()},
        said=tuple(_said(row, everything) for row in rows),
    )


def _said(row: AnnouncementRow, here: Iterable[str]) -> dict[str, object]:
    """For `explain`."""
    uids = {uid for classes in row.references.values() for of_class in classes.values() for uid in of_class}
    return {
        "kind": row.kind,
        "peer": row.peer,
        "status": row.status,
        "reason": row.reason,
        "received_at": row.received_at.isoformat(),
        "changed_at": row.changed_at.isoformat(),
        "series": len(row.references),
        "instances": len(uids),
        "missing": len(uids.difference(here)),
    }


def forget(session: Session, before: datetime, limit: int) -> int:
    """Remove what was said before, of studies that came and of others; how many. What it decided stands with the series."""
    old = select(AnnouncementRow.id).where(AnnouncementRow.changed_at < before).limit(limit).scalar_subquery()
    return len(session.execute(delete(AnnouncementRow).where(AnnouncementRow.id.in_(old)).returning(AnnouncementRow.id)).all())
