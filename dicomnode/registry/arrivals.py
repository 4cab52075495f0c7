"""The way of nearly every image into the registry: a known series of a known study, still arriving, of the same patient.

Four statements then say all that `receiving.add_instance` would: their WHERE finds out if anything has changed. Whatever is
not exactly so goes the careful way, in the same transaction. Images that come at once share one commit (`GroupCommit`) and the
counts of what they have in common.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Integer, bindparam, case, select, update
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from dicomnode.domain.errors import DicomNodeError
from dicomnode.domain.received import Received
from dicomnode.domain.states import SeriesState
from dicomnode.registry import conflicts, keys, receiving
from dicomnode.registry.engine import Database, Unit, insert_ignoring
from dicomnode.registry.group import GroupCommit
from dicomnode.registry.records import InstanceKeys
from dicomnode.registry.statements import Statement, converted
from dicomnode.registry.tables import Association, Instance, Series, Study, UtcDateTime

_MOST_SERIES, _MOST_IDENTITIES = 1024, 64


@dataclass(frozen=True, slots=True)
class _Arrival:
    received: Received
    ours: bool
    replaces: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """A series that went the careful way. identities: patients that say nothing new in its study (versions are only added)."""

    study_id: int
    series_id: int
    study_key: str
    series_key: str
    identities: set[tuple[str, ...]] = field(default_factory=set)


class _Unusual(Exception):
    """Half of the fast way was gone when it turned out to be wrong: all of the transaction is done again."""


_Image = tuple[Received, _Known]


class _FastWay:
    """The statements, for one kind of database."""

    def __init__(self, dialect: Dialect) -> None:
        study, series, association = Study.__table__.c, Series.__table__.c, Association.__table__.c
        now, count = bindparam("now", type_=UtcDateTime()), bindparam("count", type_=Integer())
        self.exists = Statement(select(Instance.id).where(Instance.sop_instance_uid == bindparam("sop_uid")), dialect)
        self.study = Statement(
            update(Study.__table__)  # type: ignore[arg-type]
            .where(study.id == bindparam("of_study"), study.study_instance_uid == bindparam("study_uid"), study.unsettled)
            .values(arrivals=study.arrivals + count, last_arrival_at=_later(study.last_arrival_at, now)),
            dialect,
        )
        self.series = Statement(
            update(Series.__table__)  # type: ignore[arg-type]
            .where(
                series.id == bindparam("of_series"),
                series.study_id == bindparam("of_study"),
                series.series_instance_uid == bindparam("series_uid"),
                series.state == SeriesState.ARRIVING.value,
                ~series.ours,
            )
            .values(instances=series.instances + count, last_arrival_at=_later(series.last_arrival_at, now)),
            dialect,
        )
        columns = [column for column in Instance.__table__.c if column.name != "id"]
        values = {column.name: bindparam(column.name, type_=column.type) for column in columns}
        self.instance = Statement(insert_ignoring(dialect, Instance, values, ["sop_instance_uid"]), dialect)
        self.association = Statement(
            update(Association.__table__)  # type: ignore[arg-type]
            .where(association.id == bindparam("of_association"))
            .values(instances=association.instances + count, last_instance_at=now, last_study_id=bindparam("of_study")),
            dialect,
        )

        together = (self.exists, self.study, self.series, self.instance, self.association)
        self._fixed = {name: value for one in together for name, value in one.fixed.items()}
        self._of_instance = self.instance.converters
        self._of_sum = {name: to for one in together for name, to in one.converters.items() if name not in self._of_instance}

    def go(self, cursor: Any, images: Sequence[_Image]) -> set[str]:
        """The UIDs of those that were added; for the others nothing has changed. Raises _Unusual if something has.

        What images have in common is counted once for all of them: of sixteen senders most bring the same series.
        """
        new = [one for one in images if self.exists.execute(cursor, {"sop_uid": one[0].sop_instance_uid}).fetchone() is None]
        added: set[str] = set()
        # The study first, as the careful way locks it, and in one order: two processes on one server do not wait for each
        # other crosswise.
        for of_study in _parted(new, lambda image: image[1].study_id):
            values = self._sum(of_study)
            self.study.execute(cursor, values)
            if cursor.rowcount == 1:
                self._in_study(cursor, of_study, values)
                added.update([received.sop_instance_uid for received, _ in of_study])
        return added

    def _in_study(self, cursor: Any, images: Sequence[_Image], values: Mapping[str, object]) -> None:
        alone = len(images) == 1
        for of_series in _parted(images, lambda image: image[1].series_id):
            self.series.execute(cursor, values if alone else self._sum(of_series))
            if cursor.rowcount != 1:
                raise _Unusual
        for received, known in images:
            row = receiving.instance_columns(received, known.series_id, receiving.association_id_of(received), ours=False)
            self.instance.execute(cursor, converted(row, self._of_instance))
            if cursor.rowcount != 1:  # another process was quicker, or it is twice among them
                raise _Unusual
        for of_association in _parted(images, lambda image: receiving.association_id_of(image[0]) or 0):
            if (mine := values if alone else self._sum(of_association))["of_association"] is not None:
                self.association.execute(cursor, mine)

    def _sum(self, images: Sequence[_Image]) -> dict[str, object]:
        """What the statements about their study, series and association have to know of these images."""
        received, known = images[-1]
        now = received.received_at if len(images) == 1 else max(one.received_at for one, _ in images)
        values: dict[str, object] = {
            "count": len(images),
            "now": now,
            "of_study": known.study_id,
            "study_uid": received.study_instance_uid,
            "of_series": known.series_id,
            "series_uid": received.series_instance_uid,
            "of_association": receiving.association_id_of(received),
            **self._fixed,
        }
        return converted(values, self._of_sum)


def _parted(images: Sequence[_Image], key: Callable[[_Image], int]) -> list[Sequence[_Image]]:
    """By key, in the order of keys; each part in the order of arrival."""
    if len(images) == 1:
        return [images]
    parts: dict[int, list[_Image]] = {}
    for image in images:
        parts.setdefault(key(image), []).append(image)
    return [parts[each] for each in sorted(parts)]


def _later(column: ColumnElement[Any], now: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((column < now, now), else_=column)


class Arrivals:
    """Adds instances, alone or together with others that come at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._group: GroupCommit[_Arrival, InstanceKeys] = GroupCommit(self._write)
        self._fast: _FastWay | None = None
        self._known: dict[tuple[str, str], _Known] = {}  # of the one thread that writes

    def add(self, received: Received, *, ours: bool, replaces: bool) -> InstanceKeys:
        """See `Registry.add_instance`."""
        return self._group.commit(_Arrival(received, ours, replaces))

    def _write(self, batch: Sequence[_Arrival]) -> Sequence[InstanceKeys | BaseException]:
        try:
            return self._together(batch)
        except DicomNodeError:  # the database is full, locked or away: it is so for each of them
            raise
        except Exception as error:
            if len(batch) == 1 and not isinstance(error, _Unusual):
                raise
            return [self._alone(one) for one in batch]

    def _together(self, batch: Sequence[_Arrival]) -> list[InstanceKeys]:
        answers, carefully = self._database.keep(partial(self._in_unit, batch))
        for one, answer in carefully:
            self._learn(one, answer)
        return answers

    def _in_unit(self, batch: Sequence[_Arrival], unit: Unit) -> tuple[list[InstanceKeys], list[tuple[_Arrival, InstanceKeys]]]:
        """All answers, and those among them that the careful way gave."""
        if self._fast is None:
            self._fast = _FastWay(unit.dialect)
        ways = [self._way_of(one) for one in batch]
        added = self._fast.go(
            unit.cursor, [(one.received, way) for one, way in zip(batch, ways, strict=True) if way is not None]
        )
        answers: list[InstanceKeys] = []
        carefully: list[tuple[_Arrival, InstanceKeys]] = []
        for one, way in zip(batch, ways, strict=True):
            if way is not None and one.received.sop_instance_uid in added:
                answers.append(InstanceKeys(way.study_key, way.series_key, new=True))
            else:
                answers.append(_carefully(unit.connection, one))
                carefully.append((one, answers[-1]))
        return answers, carefully

    def _alone(self, one: _Arrival) -> InstanceKeys | BaseException:
        """The careful way, in a transaction of its own: what is wrong with one is not the others' loss."""
        self._known.pop(_series_of(one.received), None)
        try:
            return self._database.keep(lambda unit: _carefully(unit.connection, one))
        except Exception as error:  # noqa: BLE001 - raised where it was brought
            return error

    def _way_of(self, one: _Arrival) -> _Known | None:
        if one.ours or one.replaces:
            return None
        known = self._known.get(_series_of(one.received))
        return known if known is not None and conflicts.identity_of(one.received.attributes) in known.identities else None

    def _learn(self, one: _Arrival, answer: InstanceKeys) -> None:
        """The series is known now, and so is this patient: as its first, as one met before, or as a conflict that is kept."""
        if one.ours or not answer.new:
            return
        if len(self._known) >= _MOST_SERIES:
            self._known.clear()
        study_id, series_id = keys.row_id(answer.study_key, "S"), keys.row_id(answer.series_key, "E")
        known = self._known.get(_series_of(one.received))
        if known is None or (known.study_id, known.series_id) != (study_id, series_id):
            known = _Known(study_id, series_id, answer.study_key, answer.series_key)
            self._known[_series_of(one.received)] = known
        if len(known.identities) >= _MOST_IDENTITIES:
            known.identities.clear()
        known.identities.add(conflicts.identity_of(one.received.attributes))


def _series_of(received: Received) -> tuple[str, str]:
    return received.study_instance_uid, received.series_instance_uid


def _carefully(connection: Connection, one: _Arrival) -> InstanceKeys:
    """Inside the transaction of `connection`, which stays open."""
    with Session(connection, join_transaction_mode="rollback_only", expire_on_commit=False) as session:
        answer = receiving.add_instance(session, one.received, ours=one.ours, replaces=one.replaces)
        session.commit()  # flushes; the transaction is the connection's
    return answer
