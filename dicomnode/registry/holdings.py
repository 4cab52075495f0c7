"""What peers may find and get back (PS3.4 C): the index of what was received and stands, in pages of short transactions.

Offered is an instance whose bytes are here, that no rejection note names, that is no result of this software (those leave by
the outbox alone, where profile, rights and identity are looked at) and whose study and series nobody has to decide on.
What we committed ourselves to is offered whatever is held, as long as the promise lasts: its sender may have deleted it.
"""

from array import array
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, distinct, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session

from dicomnode.domain.clock import type_clock, utc_now
from dicomnode.registry.conflicts import STUDY_COLUMNS
from dicomnode.registry.engine import Database
from dicomnode.registry.members import among
from dicomnode.registry.tables import AuditRow, Instance, Series, Study

type_match = tuple[Any, dict[str, str]]
"""Where to go on behind it (`after`), and its attributes: keyword → text."""

_NEWEST = 5000  # instances that stand for all
_STUDY, _RETRIEVED = "study", "retrieved"  # of audit rows
_MOST_UIDS = 500  # in one IN (…); of a longer list the caller compares


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What the database can leave out beforehand; empty: nothing. Never more than what an exact comparison leaves out."""

    patient_id: str = ""
    study_instance_uids: tuple[str, ...] = ()
    series_instance_uids: tuple[str, ...] = ()
    sop_instance_uids: tuple[str, ...] = ()
    accession_number: str = ""
    study_dates: tuple[str, str] | None = None  # first and last, YYYYMMDD


@dataclass(frozen=True, slots=True)
class HeldObject:
    """One stored instance. path: relative to the store's root; offered: whether it still is."""

    study_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    size_bytes: int
    sha256: str
    offered: bool


def _offered(now: datetime) -> ColumnElement[bool]:
    nothing_held = and_(~Instance.ours, Series.held == "", Study.held == "")
    return and_(
        Instance.path != "",
        Instance.purged_at.is_(None),
        or_(Instance.rejected.is_(None), Instance.rejected == ""),
        or_(Instance.keep_until > now, nothing_held),
    )


class Holdings:
    """The registry's part for Query/Retrieve. Each call is one short transaction."""

    def __init__(self, database: Database, clock: type_clock = utc_now) -> None:
        self._database, self._clock = database, clock

    def page(self, level: str, narrowing: Narrowing, after: Any, limit: int, wanted: Collection[str]) -> list[type_match]:
        """Up to `limit` entities of this Query/Retrieve Level behind `after` (None: the first), always in the same order.

        wanted: keywords; what has to be counted is counted only if it stands there.
        """
        with self._database.read() as session:
            return _PAGES[level](session, narrowing, self._clock(), after, limit, frozenset(wanted))

    def select(self, narrowing: Narrowing) -> "array[int]":
        """The ids of all offered instances that the narrowing, taken exactly, leaves; eight bytes each."""
        statement = _joined(Instance.id).where(_offered(self._clock()), *_exactly(narrowing)).order_by(Series.id, Instance.id)
        with self._database.read() as session:
            return array("q", session.scalars(statement))

    def kinds(self, narrowing: Narrowing) -> list[tuple[str, str]]:
        """The distinct (SOP class, transfer syntax) of these."""
        offered = _offered(self._clock())
        statement = _joined(Instance.sop_class_uid, Instance.transfer_syntax_uid).where(offered, *_exactly(narrowing))
        with self._database.read() as session:
            return [(row[0], row[1]) for row in session.execute(statement.distinct())]

    def syntaxes(self) -> dict[str, list[str]]:
        """SOP class → the transfer syntaxes of what came last, the commonest first."""
        newest = (
            select(Instance.sop_class_uid, Instance.transfer_syntax_uid).order_by(Instance.id.desc()).limit(_NEWEST).subquery()
        )
        kind = (newest.c.sop_class_uid, newest.c.transfer_syntax_uid)
        counted = select(*kind).group_by(*kind).order_by(func.count().desc(), newest.c.transfer_syntax_uid)
        found: dict[str, list[str]] = defaultdict(list)
        with self._database.read() as session:
            for sop_class, syntax in session.execute(counted):
                found[sop_class].append(syntax)
        return found

    def objects(self, ids: Sequence[int]) -> dict[int, HeldObject]:
        """Of these ids (500 at most) those that have a row, as they are now."""
        columns = (Instance.sop_class_uid, Instance.sop_instance_uid, Instance.transfer_syntax_uid, Instance.path)
        of_file = (Instance.size_bytes, Instance.sha256, Series.study_id, _offered(self._clock()).label("offered"))
        statement = _joined(Instance.id, *columns, *of_file).where(Instance.id.in_(ids))
        with self._database.read() as session:
            return {
                row.id: HeldObject(
                    row.study_id,
                    row.sop_class_uid,
                    row.sop_instance_uid,
                    row.transfer_syntax_uid,
                    Path(row.path),
                    row.size_bytes,
                    row.sha256,
                    bool(row.offered),
                )
                for row in session.execute(statement)
            }

    def note_retrieved(self, counts: Mapping[int, tuple[int, int]], peer: str, how: str) -> None:
        """An audit row for each study: who had how many of its instances. counts: study id → (arrived, asked for)."""
        now = self._clock()
        with self._database.write() as session:
            for study_id, (arrived, asked) in counts.items():
                reason = f"{arrived} of {asked} instances by {how}"
                row = AuditRow(kind=_STUDY, row_id=study_id, from_state="", to_state="", event=_RETRIEVED)
                row.reason, row.actor, row.at = reason, peer, now
                session.add(row)


def retrievals(session: Session, study_id: int) -> list[dict[str, object]]:
    """Who had instances of this study, oldest first, as long as audit rows are kept."""
    rows = session.scalars(
        select(AuditRow).where(AuditRow.kind == _STUDY, AuditRow.row_id == study_id, AuditRow.event == _RETRIEVED)
    )
    return [{"at": row.at.isoformat(), "peer": row.actor, "what": row.reason} for row in sorted(rows, key=lambda row: row.id)]


def count_retrievals(session: Session) -> int:
    """How often instances of a study were had, as long as audit rows are kept."""
    return session.scalar(select(func.count(AuditRow.id)).where(AuditRow.kind == _STUDY, AuditRow.event == _RETRIEVED)) or 0


def _joined(*columns: Any) -> Select[Any]:
    statement = select(*columns).select_from(Instance)
    return statement.join(Series, Instance.series_id == Series.id).join(Study, Series.study_id == Study.id)


def _some_offered(now: datetime) -> ColumnElement[bool]:
    """Of the series at hand."""
    return exists().where(Instance.series_id == Series.id, _offered(now)).correlate(Series, Study)


def _exactly(narrowing: Narrowing) -> list[ColumnElement[bool]]:
    """Conditions on study, series and instance; lists of any length."""
    wanted: list[ColumnElement[bool]] = []
    if narrowing.patient_id:
        wanted.append(Study.patient_id == narrowing.patient_id)
    lists = (
        (Study.study_instance_uid, narrowing.study_instance_uids),
        (Series.series_instance_uid, narrowing.series_instance_uids),
        (Instance.sop_instance_uid, narrowing.sop_instance_uids),
    )
    for column, uids in lists:
        if uids:
            wanted.append(among(column, uids))
    return wanted


def _narrowed(narrowing: Narrowing) -> list[ColumnElement[bool]]:
    """Conditions on study and series, as far as they help."""
    wanted: list[ColumnElement[bool]] = [Study.purged_at.is_(None)]
    if narrowing.patient_id:
        wanted.append(Study.patient_id == narrowing.patient_id)
    if narrowing.accession_number:
        wanted.append(Study.accession_number == narrowing.accession_number)
    if 0 < len(narrowing.study_instance_uids) <= _MOST_UIDS:
        wanted.append(Study.study_instance_uid.in_(narrowing.study_instance_uids))
    if narrowing.study_dates is not None:  # dates of ACR-NEMA have dots: those are compared by the caller
        wanted.append(or_(Study.study_date.between(*narrowing.study_dates), func.length(Study.study_date) != 8))
    return wanted


def _of_study(study: Study) -> dict[str, str]:
    texts = {keyword: str(getattr(study, column)) for column, keyword in STUDY_COLUMNS.items()}
    return texts | {"StudyInstanceUID": study.study_instance_uid}


def _patients(
    session: Session, narrowing: Narrowing, now: datetime, after: Any, limit: int, wanted: frozenset[str]
) -> list[type_match]:
    """One for each Patient ID and its issuer, under the name of the newest study. Without an ID there is no patient to name."""
    who = (Study.patient_id, Study.issuer_of_patient_id)
    some = exists().where(Series.study_id == Study.id, Instance.series_id == Series.id, _offered(now)).correlate(Study)
    statement = select(*who, func.max(Study.id)).where(Study.patient_id != "", some, *_narrowed(narrowing)).group_by(*who)
    if after is not None:
        statement = statement.where(tuple_(*who) > tuple_(*after))
    rows = session.execute(statement.order_by(*who).limit(limit)).all()
    newest = {study.id: study for study in session.scalars(select(Study).where(Study.id.in_([row[2] for row in rows])))}
    found = [((row[0], row[1]), _of_study(newest[row[2]])) for row in rows]
    if any(keyword.startswith("NumberOfPatient") for keyword in wanted):
        for (patient_id, issuer), attributes in found:
            counts = (func.count(distinct(Study.id)), func.count(distinct(Series.id)), func.count(Instance.id))
            same = (Study.patient_id == patient_id, Study.issuer_of_patient_id == issuer, Study.purged_at.is_(None))
            studies, series, instances = session.execute(_joined(*counts).where(_offered(now), *same)).one()
            attributes["NumberOfPatientRelatedStudies"] = str(studies)
            attributes["NumberOfPatientRelatedSeries"] = str(series)
            attributes["NumberOfPatientRelatedInstances"] = str(instances)
    return found


def _studies(
    session: Session, narrowing: Narrowing, now: datetime, after: Any, limit: int, wanted: frozenset[str]
) -> list[type_match]:
    some = exists().where(Series.study_id == Study.id, Instance.series_id == Series.id, _offered(now)).correlate(Study)
    statement = select(Study).where(some, Study.id > (after or 0), *_narrowed(narrowing))
    studies = session.scalars(statement.order_by(Study.id).limit(limit)).all()
    ids = [study.id for study in studies]
    series: dict[int, list[tuple[int, str]]] = defaultdict(list)
    of_series = select(Series.study_id, Series.id, Series.modality).join(Study, Series.study_id == Study.id)
    for study_id, series_id, modality in session.execute(
        of_series.where(Series.study_id.in_(ids), _some_offered(now)).order_by(Series.id)
    ):
        series[study_id].append((series_id, modality))
    # Of the first series: what the study's own row does not hold, such as the referring physician.
    firsts = [of_study[0][0] for of_study in series.values()]
    of_firsts = session.execute(select(Series.study_id, Series.attributes).where(Series.id.in_(firsts)))
    headers: dict[int, Mapping[str, str]] = {row.study_id: row.attributes for row in of_firsts}
    counts = _counts(session, ids, now) if "NumberOfStudyRelatedInstances" in wanted else {}
    classes = _classes(session, ids, now) if "SOPClassesInStudy" in wanted else {}
    found = []
    for study in studies:
        modalities = dict.fromkeys(modality for _, modality in series[study.id] if modality)
        attributes = {
            **headers.get(study.id, {}),
            **_of_study(study),
            "ModalitiesInStudy": "\\".join(modalities),
            "SOPClassesInStudy": "\\".join(classes.get(study.id, ())),
            "NumberOfStudyRelatedSeries": str(len(series[study.id])),
            "NumberOfStudyRelatedInstances": str(counts.get(study.id, 0)),
        }
        found.append((study.id, attributes))
    return found


def _counts(session: Session, study_ids: Sequence[int], now: datetime) -> dict[int, int]:
    statement = _joined(Series.study_id, func.count()).where(Series.study_id.in_(study_ids), _offered(now))
    return {row[0]: row[1] for row in session.execute(statement.group_by(Series.study_id))}


def _classes(session: Session, study_ids: Sequence[int], now: datetime) -> dict[int, list[str]]:
    statement = _joined(Series.study_id, Instance.sop_class_uid).where(Series.study_id.in_(study_ids), _offered(now)).distinct()
    found: dict[int, list[str]] = defaultdict(list)
    for study_id, sop_class in session.execute(statement.order_by(Instance.sop_class_uid)):
        found[study_id].append(sop_class)
    return found


def _series(
    session: Session, narrowing: Narrowing, now: datetime, after: Any, limit: int, wanted: frozenset[str]
) -> list[type_match]:
    statement = select(Series, Study).join(Study, Series.study_id == Study.id)
    conditions = [Series.id > (after or 0), _some_offered(now), *_narrowed(narrowing)]
    if 0 < len(narrowing.series_instance_uids) <= _MOST_UIDS:
        conditions.append(Series.series_instance_uid.in_(narrowing.series_instance_uids))
    rows = session.execute(statement.where(*conditions).order_by(Series.id).limit(limit)).all()
    counts: dict[int, int] = {}
    if "NumberOfSeriesRelatedInstances" in wanted:
        counting = _joined(Series.id, func.count()).where(_offered(now))
        counting = counting.where(Series.id.in_([series.id for series, _ in rows])).group_by(Series.id)
        counts = {row[0]: row[1] for row in session.execute(counting)}
    return [
        (
            series.id,
            {
                **series.attributes,
                **_of_study(study),
                "Modality": series.modality,
                "SeriesInstanceUID": series.series_instance_uid,
                "NumberOfSeriesRelatedInstances": str(counts.get(series.id, 0)),
            },
        )
        for series, study in rows
    ]


def _images(
    session: Session,
    narrowing: Narrowing,
    now: datetime,
    after: Any,
    limit: int,
    wanted: frozenset[str],  # noqa: ARG001
) -> list[type_match]:
    columns = (Instance.id, Instance.sop_instance_uid, Instance.sop_class_uid, Instance.transfer_syntax_uid)
    statement = _joined(*columns, Instance.attributes, Series.id, Series.series_instance_uid, Study)
    conditions = [_offered(now), *_narrowed(narrowing)]
    if 0 < len(narrowing.series_instance_uids) <= _MOST_UIDS:
        conditions.append(Series.series_instance_uid.in_(narrowing.series_instance_uids))
    if 0 < len(narrowing.sop_instance_uids) <= _MOST_UIDS:
        conditions.append(Instance.sop_instance_uid.in_(narrowing.sop_instance_uids))
    conditions.append(Instance.id > (after or 0))
    return [
        (
            instance_id,
            {
                **attributes,
                **_of_study(study),
                "SeriesInstanceUID": series_uid,
                "SOPInstanceUID": uid,
                "SOPClassUID": sop_class,
                "AvailableTransferSyntaxUID": syntax,
            },
        )
        for instance_id, uid, sop_class, syntax, attributes, _, series_uid, study in session.execute(
            statement.where(*conditions).order_by(Instance.id).limit(limit)
        )
    ]


_PAGES = {"PATIENT": _patients, "STUDY": _studies, "SERIES": _series, "IMAGE": _images}
