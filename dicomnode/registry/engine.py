"""Engines and sessions: all that SQLite and PostgreSQL do differently stands here.

The SQLite recipe was measured: Python's sqlite3 begins no transaction for a SELECT, and a deferred BEGIN that reads, then
writes after another's commit, fails at once with SQLITE_BUSY_SNAPSHOT whatever the timeout. So writers begin IMMEDIATE,
readers plain.
"""

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, Insert, RootTransaction, create_engine, event
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from dicomnode.domain.errors import DicomNodeError, SettingsError
from dicomnode.registry.tables import Base
from dicomnode.registry.trouble import BUSY_TIMEOUT_S, persistently, translated_errors
from dicomnode.registry.turns import Turns

Answer = TypeVar("Answer")

_MIGRATION_LOCK = 0xD1C0  # any number that all versions of this software share
# libpq (PostgreSQL, 34.1.2) waits two minutes and more for a server that vanished without a word, and for hours for its answer:
# by then a worker that cannot renew its lease has killed itself. What the URL says of these goes first.
_SERVER_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}


class Database:
    """One engine, and the three kinds of transaction on it: read, write, migrate."""

    def __init__(self, url: str) -> None:
        """SettingsError for a URL that SQLAlchemy cannot use."""
        try:
            self.url = make_url(url)
            self.is_sqlite = self.url.get_backend_name() == "sqlite"
            self._engine = _sqlite_engine(url) if self.is_sqlite else _server_engine(self.url)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise SettingsError(
                f"database.url cannot be used ({type(error).__name__})",
                "write sqlite:////absolute/path.db, or postgresql+psycopg://… with the driver installed",
            ) from error
        # A server's default shows each statement what was committed meanwhile; SQLite shows one state to all of them.
        on_server = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reader = self._engine.execution_options(**({"sqlite_begin": "BEGIN"} if self.is_sqlite else on_server))
        # SQLite's busy handler sleeps and is unfair; threads of one process queue here instead.
        self._one_writer = threading.Lock() if self.is_sqlite else None
        # So do processes, but for images on their way in: they come in one process, and wait for one other at most.
        self._turns = Turns(Path(self.url.database), BUSY_TIMEOUT_S) if self.is_sqlite and self.url.database else None
        self._one_keeper = (threading.Lock(), threading.Lock())
        self._kept: dict[bool, Unit] = {}  # relaxed or not → connection; touched under the locks above

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view; works beside a writer."""
        with translated_errors(), Session(self._reader) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction, committed at the end, rolled back on any exception."""
        with ExitStack() as stack:
            if self._one_writer is not None:
                stack.enter_context(self._one_writer)
            if self._turns is not None:
                stack.enter_context(self._turns.mine())
            stack.enter_context(translated_errors())
            session = stack.enter_context(Session(self._engine, expire_on_commit=False))
            stack.enter_context(session.begin())
            yield session

    def keep(self, work: Callable[["Unit"], Answer], *, relaxed: bool = False) -> Answer:
        """As `write`, for what is done for every image: `work` on the driver's cursor, in a unit that SQLite keeps.

        relaxed: what is lost in a power cut was not promised; it is durable with the next transaction that is not relaxed.
        work: may be called again, if the server breaks the transaction off.
        """
        return persistently(lambda: self._keep(work, relaxed=relaxed))

    def _keep(self, work: Callable[["Unit"], Answer], *, relaxed: bool) -> Answer:
        with self._one_writer or self._one_keeper[relaxed]:
            unit: Unit | None = None
            try:
                unit = self._kept.pop(relaxed, None) or self._unit(relaxed=relaxed)
                unit.begin()
                answer = work(unit)
                unit.commit()
            except BaseException:
                if unit is not None:
                    unit.discard()  # whatever is wrong with its connection: the next one gets another
                with translated_errors(), self._driver_errors():
                    raise
            if self.is_sqlite:
                self._kept[relaxed] = unit
            else:
                unit.close()
            return answer

    def _unit(self, *, relaxed: bool) -> "Unit":
        if not self.is_sqlite:
            return _ServerUnit(self._engine.connect(), relaxed=relaxed)
        connection = self._engine.connect().execution_options(sqlite_begin="")
        if relaxed:
            # No sync at commit: in WAL mode the next FULL commit's sync covers all that stands before it in the log.
            _pragma(connection, "synchronous=NORMAL")
        return _SqliteUnit(connection)

    @contextmanager
    def _driver_errors(self) -> Iterator[None]:
        dialect = self._engine.dialect
        driver = dialect.loaded_dbapi
        try:
            yield
        except driver.Error as error:
            raise DBAPIError.instance(None, None, error, driver.Error, hide_parameters=True, dialect=dialect) from None

    @contextmanager
    def migrate(self) -> Iterator[Connection]:
        """One transaction for migrations.

        On SQLite foreign keys are off in it: Alembic's batch mode drops and recreates tables, and with foreign keys on and
        ON DELETE CASCADE that silently deleted all child rows (measured). They are checked before the commit instead.
        """
        with translated_errors(), self._engine.connect() as connection:
            if self.is_sqlite:
                _pragma(connection, "foreign_keys=OFF")  # a no-op inside a transaction, so before it
            try:
                with connection.begin():
                    if not self.is_sqlite:  # on SQLite BEGIN IMMEDIATE lets one in; here others would look, and create twice
                        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
                    yield connection
                    if self.is_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()):
                        tables = ", ".join(sorted({str(row[0]) for row in broken}))
                        raise DicomNodeError(
                            f"the migration would leave rows without their parents in {tables}",
                            "nothing was changed; keep a backup of the database and report this",
                        )
            finally:
                if self.is_sqlite:
                    _pragma(connection, "foreign_keys=ON")

    def close(self) -> None:
        """Give all connections back."""
        for unit in self._kept.values():
            unit.discard()
        self._kept.clear()
        self._engine.dispose()


class Unit(ABC):
    """One transaction at a time on one connection. Raises the driver's errors."""

    cursor: Any
    """Of the driver, for the statements of every image: no layer in between."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transaction: RootTransaction | None = None

    @property
    def dialect(self) -> Dialect:
        """Of the database at hand."""
        return self._connection.dialect

    @property
    def connection(self) -> Connection:
        """The same connection and transaction, for whatever is not written for the driver."""
        if self._transaction is None:
            self._transaction = self._connection.begin()
        return self._connection

    @abstractmethod
    def begin(self) -> None:
        """Begin a transaction."""

    @abstractmethod
    def commit(self) -> None:
        """End it."""

    def discard(self) -> None:
        """Roll back, and use this connection no more."""
        self._connection.invalidate()
        self._connection.close()

    def close(self) -> None:
        """Give the connection back."""
        self.cursor.close()
        self._connection.close()


class _SqliteUnit(Unit):
    """Begun and ended on the driver: SQLAlchemy's own ways take as long as all statements of an image together."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.cursor = connection.connection.cursor()

    def begin(self) -> None:
        self.cursor.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        if self._transaction is None:
            self.cursor.execute("COMMIT")
        else:
            transaction, self._transaction = self._transaction, None
            transaction.commit()


class _ServerUnit(Unit):
    def __init__(self, connection: Connection, *, relaxed: bool) -> None:
        super().__init__(connection)
        self._relaxed = relaxed

    def begin(self) -> None:
        connection = self.connection
        if self._relaxed:
            connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
        self.cursor = connection.connection.cursor()

    def commit(self) -> None:
        if self._transaction is not None:
            self._transaction.commit()


def _server_engine(url: URL) -> Engine:
    by_libpq = url.get_driver_name() in ("psycopg", "psycopg2")
    patience = {name: value for name, value in _SERVER_PATIENCE.items() if by_libpq and name not in url.query}
    return create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=patience)


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,  # they hold patient data, and SQLAlchemy's messages would carry them into logs
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        pool_size=16,
        max_overflow=48,
        pool_timeout=BUSY_TIMEOUT_S,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's guess
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if how := connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"):
            connection.exec_driver_sql(how)

    return engine


def _pragma(connection: Connection, text: str) -> None:
    raw = connection.connection.dbapi_connection
    if isinstance(raw, sqlite3.Connection):
        raw.execute(f"PRAGMA {text}").fetchall()


def insert_ignoring(dialect: Dialect, row: type[Base], values: Mapping[str, object], unique: Sequence[str]) -> Insert:
    """INSERT … ON CONFLICT DO NOTHING, spelled for the database at hand."""
    if dialect.name == "sqlite":
        return sqlite_insert(row).values(**values).on_conflict_do_nothing(index_elements=list(unique))
    return postgresql_insert(row).values(**values).on_conflict_do_nothing(index_elements=list(unique))


def insert_if_absent(session: Session, row: type[Base], values: Mapping[str, object], unique: Sequence[str]) -> None:
    """Two writers may meet a new study at once."""
    session.execute(insert_ignoring(session.get_bind().dialect, row, values, unique))
