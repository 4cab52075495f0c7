"""More values than a statement takes parameters: a long retrieval, a study of very many series."""

import json

import pytest
from sqlalchemy import String, cast, func, insert, literal, select

from dicomnode.registry import Registry
from dicomnode.registry.holdings import Narrowing
from dicomnode.registry.members import among_numbers
from dicomnode.registry.tables import Series
from tests.registry.samples import CT, ONLY_SQLITE, add_series

MORE_THAN_POSTGRESQL_TAKES = 70_000
MORE_THAN_SQLITE_TAKES = 33_000


@pytest.mark.parametrize("level", ["study_instance_uids", "series_instance_uids", "sop_instance_uids"])
def test_a_retrieval_may_name_as_many_uids_as_a_message_holds(registry: Registry, level: str) -> None:
    add_series(registry, 2)
    named = ["1.2.3", "1.2.3.1", "1.2.3.1.1", *(f'1.9."\\{number}' for number in range(MORE_THAN_POSTGRESQL_TAKES))]
    narrowing = Narrowing(**{level: tuple(named)})  # type: ignore[arg-type]
    assert len(registry.holdings.select(narrowing)) == (1 if level == "sop_instance_uids" else 2)
    assert [sop_class for sop_class, _ in registry.holdings.kinds(narrowing)] == [CT]


def test_a_list_of_numbers_may_be_as_long_or_empty(registry: Registry) -> None:
    add_series(registry, 1)
    with registry._database.read() as session:
        of_these = select(Series.id).where(among_numbers(Series.id, range(MORE_THAN_POSTGRESQL_TAKES)))
        assert session.scalars(of_these).all() == [1]
        assert session.scalars(select(Series.id).where(among_numbers(Series.id, []))).all() == []


@ONLY_SQLITE
def test_a_study_of_very_many_series_is_judged_and_listed(registry: Registry) -> None:
    """A sender that gives each image a series of its own stops nobody's sweep."""
    add_series(registry, 1)
    with registry._database.write() as session:
        others = [column.name for column in Series.__table__.columns if column.name not in ("id", "series_instance_uid")]
        number = func.json_each(json.dumps(list(range(2, MORE_THAN_SQLITE_TAKES)))).table_valued("value").c.value
        row = select(number, literal("1.2.3.") + cast(number, String), *(Series.__table__.c[name] for name in others))
        session.execute(insert(Series).from_select(["id", "series_instance_uid", *others], row))
    (study,) = registry.studies_to_judge()
    assert len(study.series) == MORE_THAN_SQLITE_TAKES - 1
    (listed,) = registry.studies("", 10)
    assert len(listed["series"]) == MORE_THAN_SQLITE_TAKES - 1  # type: ignore[arg-type]
