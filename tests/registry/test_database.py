"""Opening, migrating, sharing and losing the database."""

import logging
import multiprocessing
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, create_engine, event, insert, inspect, select
from sqlalchemy.exc import StatementError

from dicomnode.domain.errors import DatabaseUnreachable, OutOfSpace, SettingsError
from dicomnode.registry import Registry, migrations
from dicomnode.registry.engine import Database
from dicomnode.registry.tables import Base, Mark
from dicomnode.settings import shipped
from tests.registry.samples import ONLY_SQLITE, add_series, queue_job, received


def checks_of(connection: Connection) -> dict[tuple[str, str | None], str]:
    """CHECK constraints by table and name: Alembic's comparison passes them over."""
    found = inspect(connection)
    return {
        (table, str(one["name"])): "".join(str(one["sqltext"]).split())
        for table in found.get_table_names()
        for one in found.get_check_constraints(table)
    }


def test_a_fresh_database_is_what_the_models_say(registry: Registry, url: str) -> None:
    database = Database(url)
    with database.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        migrated = checks_of(session.connection())
    with database.migrate() as connection:
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
        assert checks_of(connection) == migrated
    assert {table for table, _ in migrated} == {"series", "jobs", "deliveries"}
    database.close()


def test_preparing_says_nothing_and_leaves_logging_alone(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = (logging.getLogger().handlers.copy(), logging.getLogger().level, logging.getLogger("alembic").handlers.copy())
    registry = Registry(url)
    assert registry.revision() is None
    head = registry.prepare()
    assert registry.prepare() == head == registry.revision() == registry.upgrade()
    registry.close()
    assert (logging.getLogger().handlers, logging.getLogger().level, logging.getLogger("alembic").handlers) == before
    assert capfd.readouterr() == ("", "")


def run_beside(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def set_revision(url: str, revision: str) -> None:
    run_beside(url, f"UPDATE alembic_version SET version_num = '{revision}'")  # noqa: S608


NEXT_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = {head!r}


def upgrade() -> None:
    with op.batch_alter_table("studies", recreate="always" if op.get_bind().dialect.name == "sqlite" else "auto") as batch:
        batch.add_column(sa.Column("extra", sa.String(), nullable=True))
"""


def test_an_older_database_stops_the_start_and_is_upgraded_on_demand(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of the software: its migrations know one revision more."""
    add_series(registry, 3)
    queue_job(registry)
    before = registry.explain("S1")
    old = registry.prepare()
    newer = tmp_path / "db"
    shutil.copytree(shipped("db"), newer)
    (newer / "versions" / "9000_more.py").write_text(NEXT_REVISION.format(head=old))
    monkeypatch.setattr(migrations, "shipped", lambda _name: newer)
    with pytest.raises(SettingsError) as caught:
        registry.prepare()
    assert "dicomnode db upgrade" in caught.value.remedy
    assert registry.revision() == old
    assert registry.upgrade() == "9000" == registry.prepare()
    assert registry.explain("S1") == before


def test_a_newer_database_is_left_alone(registry: Registry, url: str) -> None:
    set_revision(url, "9999")
    for start in (registry.prepare, registry.upgrade):
        with pytest.raises(SettingsError, match="9999"):
            start()
    assert registry.revision() == "9999"


def test_a_database_of_something_else_is_left_alone(url: str) -> None:
    run_beside(url, "CREATE TABLE theirs (id INTEGER)")
    registry = Registry(url)
    with pytest.raises(SettingsError, match="something else"):
        registry.prepare()
    registry.close()


@ONLY_SQLITE
def test_a_batch_migration_keeps_every_child_row(registry: Registry, url: str) -> None:
    """Alembic's batch mode drops and recreates a table; with foreign keys on, that took the children along."""
    add_series(registry, 3)
    queue_job(registry)
    before = registry.explain("S1")
    database = Database(url)
    with database.migrate() as connection:
        with Operations(MigrationContext.configure(connection)).batch_alter_table("studies", recreate="always"):
            pass
        with Operations(MigrationContext.configure(connection)).batch_alter_table("series", recreate="always"):
            pass
    with database.read() as session:
        assert session.connection().exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()
    assert registry.explain("S1") == before


@pytest.mark.parametrize("url", ["sqlite:////no/such/folder/x.db", "nonsense", "mysql+nodriver://x/y"])
def test_an_unusable_database_says_what_to_do(url: str) -> None:
    with pytest.raises((DatabaseUnreachable, SettingsError)) as caught:
        Registry(url).prepare()
    assert caught.value.remedy


def test_an_empty_database_is_named_as_such(url: str) -> None:
    registry = Registry(url)
    with pytest.raises(SettingsError, match="empty"):
        registry.status_counts()
    registry.close()


@ONLY_SQLITE
def test_a_full_disk_is_told_from_a_lost_database(registry: Registry, url: str) -> None:
    add_series(registry, 1)
    # A limit of pages gives the same SQLITE_FULL as a full disk.
    database = registry._database
    with database.read() as session:
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar()

    @event.listens_for(database._engine, "begin")
    def limit(connection: object) -> None:
        connection.connection.dbapi_connection.execute(f"PRAGMA max_page_count={pages}")  # type: ignore[attr-defined]

    def fill() -> None:
        for number in range(200):
            registry.add_instance(received(f"1.2.3.1.{number}", SeriesDescription="x" * 4000), ours=False)

    with pytest.raises(OutOfSpace):
        fill()
    event.remove(database._engine, "begin", limit)
    database.close()
    kept = registry.status_counts()["counts"]["instances"]  # type: ignore[index]
    assert registry.add_instance(received("1.2.3.1.999"), ours=False).new
    assert registry.status_counts()["counts"]["instances"] == kept + 1  # type: ignore[index]


@ONLY_SQLITE
def test_the_pragmas_that_durability_rests_on_are_set_on_every_connection(registry: Registry) -> None:
    with registry._database.read() as session:
        read = {
            name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert read == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_times_are_aware_utc_in_and_out(registry: Registry) -> None:
    tokyo = datetime(2026, 3, 29, 1, 30, tzinfo=timezone(timedelta(hours=9)))
    with registry._database.write() as session:
        session.add(Mark(name="there", at=tokyo))
    with registry._database.read() as session:
        read = session.execute(select(Mark.at).where(Mark.name == "there")).scalar_one()
    assert read == tokyo
    assert read.tzinfo is UTC
    naive = insert(Mark).values(name="naive", at=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(StatementError, match="without zone"), registry._database.write() as session:
        session.execute(naive)


def _prepare(url: str, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    registry = Registry(url)
    registry.prepare()
    registry.close()


def test_several_processes_may_prepare_an_empty_database_at_once(url: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    processes = [context.Process(target=_prepare, args=(url, start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
