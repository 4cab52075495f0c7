"""The statements that say of images of known, arriving series all that `receiving.add_instance` would.

Their WHERE finds out whether anything has changed. Of several images at once each statement speaks of all: between two
statements SQLite's driver lets other threads in, and their turns are what a batch would wait for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Integer, String, bindparam, case, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ColumnElement

from dicomnode.domain.received import Received
from dicomnode.domain.states import SeriesState
from dicomnode.registry import receiving
from dicomnode.registry.statements import Statement, converted
from dicomnode.registry.tables import Association, Instance, Series, Study, UtcDateTime

_MOST_ROWS = 16  # of one statement; each number of them is a statement of its own, which drivers keep prepared


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """A series that went the careful way.

    identities: patients that say nothing new in its study (versions are only added). titles: of ours, to which it is known to
    have come.
    """

    study_id: int
    series_id: int
    study_key: str
    series_key: str
    identities: set[tuple[str, ...]] = field(default_factory=set)
    titles: set[str] = field(default_factory=set)


type_image = tuple[Received, KnownSeries]


class Unusual(Exception):
    """Half of the fast way was gone when it turned out to be wrong: all of the transaction is to be done again."""


class FastWay:
    """For one kind of database. Used by one thread at a time."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        study, series = Study.__table__.c, Series.__table__.c
        now, count = bindparam("now", type_=UtcDateTime()), bindparam("count", type_=Integer())
        self._study = Statement(
            update(Study.__table__)  # type: ignore[arg-type]
            .where(study.id == bindparam("of_study"), study.study_instance_uid == bindparam("study_uid"), study.unsettled)
            .values(arrivals=study.arrivals + count, last_arrival_at=_later(study.last_arrival_at, now)),
            dialect,
        )
        self._series = Statement(
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
        self._fixed = {**self._study.fixed, **self._series.fixed}
        self._converters = {**self._study.converters, **self._series.converters}
        self._rows: dict[int, _Rows] = {}

    def go(self, cursor: Any, images: Sequence[type_image]) -> set[str]:
        """The UIDs of those that were added; for the others nothing has changed. Raises Unusual if something has."""
        known: set[str] = set()
        for some in _chunks(images):
            known |= self._rows_of(some).known(cursor, some)
        new = [image for image in images if image[0].sop_instance_uid not in known] if known else images
        added: set[str] = set()
        # The study first, as the careful way locks it, and in one order: two processes on one server do not wait for each
        # other crosswise.
        for of_study in _parted(new, lambda image: image[1].study_id):
            values = self._counted(of_study)
            self._study.execute(cursor, values)
            if cursor.rowcount == 1:
                self._add(cursor, of_study, values)
                added.update([received.sop_instance_uid for received, _ in of_study])
        for some in _chunks([image for image in new if image[0].sop_instance_uid in added]):  # as they came
            self._rows_of(some).note(cursor, some)
        return added

    def _add(self, cursor: Any, images: Sequence[type_image], values: Mapping[str, object]) -> None:
        """Images of one study, of which its row knows."""
        for of_series in _parted(images, lambda image: image[1].series_id):
            self._series.execute(cursor, values if len(images) == 1 else self._counted(of_series))
            if cursor.rowcount != 1:
                raise Unusual
        for some in _chunks(images):
            self._rows_of(some).insert(cursor, some)
            if cursor.rowcount != len(some):  # another process was quicker, or one is twice among them
                raise Unusual

    def _rows_of(self, images: Sequence[type_image]) -> "_Rows":
        rows = self._rows.get(len(images))
        if rows is None:
            rows = self._rows[len(images)] = _Rows(self._dialect, len(images))
        return rows

    def _counted(self, images: Sequence[type_image]) -> dict[str, object]:
        """What the rows of their study and series have to know of images of one series, or of its study."""
        received, known = images[0]
        values: dict[str, object] = {
            "count": len(images),
            "now": received.received_at if len(images) == 1 else max(one.received_at for one, _ in images),
            "of_study": known.study_id,
            "study_uid": received.study_instance_uid,
            "of_series": known.series_id,
            "series_uid": received.series_instance_uid,
            **self._fixed,
        }
        return converted(values, self._converters)


class _Rows:
    """The statements that hold a row for each image, for so many images."""

    def __init__(self, dialect: Dialect, count: int) -> None:
        self._numbers = range(count)
        uids = [bindparam(f"sop_instance_uid_{n}", type_=String()) for n in self._numbers]
        self._known = Statement(select(Instance.sop_instance_uid).where(Instance.sop_instance_uid.in_(uids)), dialect)
        columns = [column for column in Instance.__table__.c if column.name != "id"]
        rows = [{one.name: bindparam(f"{one.name}_{n}", type_=one.type) for one in columns} for n in self._numbers]
        insert = sqlite_insert if dialect.name == "sqlite" else postgresql_insert
        adding = insert(Instance).values(rows).on_conflict_do_nothing(index_elements=["sop_instance_uid"])
        self._insert = Statement(adding, dialect)
        self._names: list[list[str]] = []  # of the values of each row
        self._note = Statement(self._noting(), dialect)

    def _noting(self) -> Any:
        table, columns = Association.__table__, Association.__table__.c

        ids = [bindparam(f"association_{n}", type_=Integer()) for n in self._numbers]

        def of_each(name: str, type_: Any) -> ColumnElement[Any]:
            given = [bindparam(f"{name}_{n}", type_=type_) for n in self._numbers]
            return case(dict(zip(ids, given, strict=True)), value=columns.id) if len(ids) > 1 else given[0]

        return (
            update(table)  # type: ignore[arg-type]
            .where(columns.id.in_(ids) if len(ids) > 1 else columns.id == ids[0])
            .values(
                instances=columns.instances + of_each("count", Integer()),
                last_instance_at=of_each("now", UtcDateTime()),
                last_study_id=of_each("study", Integer()),
            )
        )

    def known(self, cursor: Any, images: Sequence[type_image]) -> set[str]:
        """The UIDs among them that have a row."""
        uids = {f"sop_instance_uid_{n}": received.sop_instance_uid for n, (received, _) in enumerate(images)}
        return {row[0] for row in self._known.execute(cursor, uids).fetchall()}

    def insert(self, cursor: Any, images: Sequence[type_image]) -> None:
        """Their rows; `rowcount` says how many were new."""
        values: dict[str, object] = dict(self._insert.fixed)
        for n, (received, known) in enumerate(images):
            association_id = receiving.association_id_of(received)
            row = receiving.instance_columns(received, known.series_id, association_id, ours=False)
            if n == len(self._names):
                self._names.append([f"{name}_{n}" for name in row])
            values.update(zip(self._names[n], row.values(), strict=True))
        self._insert.execute(cursor, converted(values, self._insert.converters))

    def note(self, cursor: Any, images: Sequence[type_image]) -> None:
        """That their associations brought them."""
        counts: dict[int, int] = {}
        last: dict[int, type_image] = {}
        for image in images:
            if (association_id := receiving.association_id_of(image[0])) is not None:
                counts[association_id] = counts.get(association_id, 0) + 1
                last[association_id] = image
        if not counts:
            return
        values: dict[str, object] = {}
        ids = list(counts)
        for n in self._numbers:
            association_id = ids[min(n, len(ids) - 1)]  # named again where several images came through one
            received, known = last[association_id]
            values[f"association_{n}"], values[f"count_{n}"] = association_id, counts[association_id]
            values[f"now_{n}"], values[f"study_{n}"] = received.received_at, known.study_id
        self._note.run(cursor, values)


def _chunks(images: Sequence[type_image]) -> list[Sequence[type_image]]:
    if len(images) <= _MOST_ROWS:
        return [images] if images else []
    return [images[start : start + _MOST_ROWS] for start in range(0, len(images), _MOST_ROWS)]


def _parted(images: Sequence[type_image], key: Callable[[type_image], int]) -> list[Sequence[type_image]]:
    """By key, in the order of keys; each part in the order of arrival."""
    if len(images) <= 1:
        return [images] if images else []
    parts: dict[int, list[type_image]] = {}
    for image in images:
        parts.setdefault(key(image), []).append(image)
    return [parts[each] for each in sorted(parts)]


def _later(column: ColumnElement[Any], now: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((column < now, now), else_=column)
