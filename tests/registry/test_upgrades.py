"""A database that was upgraded is the same as a fresh one, and no row of any table is lost on the way; on both databases."""

from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Connection, DateTime, Integer, MetaData, Table, inspect
from sqlalchemy.types import JSON

from dicomnode.registry import Registry, migrations
from dicomnode.registry.engine import Database
from dicomnode.registry.tables import Base

REVISIONS = [one.revision for one in reversed(list(ScriptDirectory.from_config(migrations._config()).walk_revisions()))]
STATES = {"series": "complete", "jobs": "done", "deliveries": "waiting"}


def migrated_to(database: Database, revision: str) -> None:
    with database.migrate() as connection:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def tables_of(connection: Connection) -> list[Table]:
    """Parents before children."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def value_for(table: Table, column: Any) -> Any:
    """Something that says from which table and column it is, by the column's type. References name row 1."""
    if column.foreign_keys or column.name == "id":
        return 1
    if column.name == "state":
        return STATES[table.name]
    if isinstance(column.type, JSON):
        return {"of": f"{table.name}.{column.name}"}
    if isinstance(column.type, Boolean):
        return True
    if isinstance(column.type, DateTime):
        return datetime(2026, 11, 21, 8, 0, tzinfo=UTC if column.type.timezone else None)
    if isinstance(column.type, Integer):
        return 7
    return f"{table.name}.{column.name}"[: column.type.length]


def fill(connection: Connection) -> None:
    for table in tables_of(connection):
        connection.execute(table.insert().values({column.name: value_for(table, column) for column in table.columns}))


def rows_of(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    return {table.name: list(map(dict, connection.execute(table.select()).mappings())) for table in tables_of(connection)}


def shape_of(connection: Connection) -> dict[str, Any]:
    """All that makes a table what it is; the order of columns does not."""
    found = inspect(connection)
    return {
        table: {
            "columns": sorted(
                (one["name"], str(one["type"]), one["nullable"], one["default"] if one["name"] != "id" else None)
                for one in found.get_columns(table)
            ),
            "key": found.get_pk_constraint(table)["constrained_columns"],
            "indexes": sorted((one["name"], one["column_names"], bool(one["unique"])) for one in found.get_indexes(table)),
            "unique": sorted((one["name"], one["column_names"]) for one in found.get_unique_constraints(table)),
            "checks": sorted((one["name"], one["sqltext"]) for one in found.get_check_constraints(table)),
            "references": sorted(
                (one["name"], one["constrained_columns"], one["referred_table"], one["referred_columns"])
                for one in found.get_foreign_keys(table)
            ),
        }
        for table in found.get_table_names()
    }


@pytest.mark.parametrize("start", REVISIONS[:-1])
def test_an_upgraded_database_is_a_fresh_one_with_every_row_it_had(url: str, start: str) -> None:
    database = Database(url)
    migrated_to(database, start)
    with database.migrate() as connection:
        fill(connection)
        before = rows_of(connection)
    registry = Registry(url)
    assert registry.upgrade() == REVISIONS[-1]
    registry.close()
    with database.migrate() as connection:
        after, shape = rows_of(connection), shape_of(connection)
        for name, (row,) in before.items():
            assert [{column: one[column] for column in row} for one in after[name]] == [row]
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata) == []
        # The same server's fresh tables.
        Base.metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
    migrated_to(database, "head")
    with database.migrate() as connection:
        assert shape_of(connection) == shape
    database.close()
