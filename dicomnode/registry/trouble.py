"""What goes wrong with a database, as our errors; and what to do again because the server says so."""

import inspect
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dicomnode.domain.errors import DatabaseUnreachable, DicomNodeError, OutOfSpace, SettingsError

Answer = TypeVar("Answer")
Class = TypeVar("Class", bound=type)

BUSY_TIMEOUT_S = 30
_DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
# SQLSTATE (PostgreSQL, appendix A)
_UNDEFINED_TABLE, _DISK_FULL, _READ_ONLY = "42P01", "53100", "25006"
_BROKEN_OFF = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_TRIES, _LONGEST_PAUSE_S = 6, 0.1


class BrokenOff(DatabaseUnreachable):
    """Two transactions stood in each other's way and the server ended this one: nothing of it is kept; anew it will do."""


def persistently(do: Callable[[], Answer]) -> Answer:
    """`do`, one whole transaction, again as often as the server breaks it off, a few times."""
    for _ in range(_TRIES - 1):
        try:
            return do()
        except BrokenOff:
            time.sleep(random.uniform(0.0, _LONGEST_PAUSE_S))  # noqa: S311 - so that the two do not meet again
    return do()


def begun_anew(cls: Class) -> Class:
    """For classes whose public methods are one transaction each, or several that may be done again: see `persistently`."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_") and not inspect.isgeneratorfunction(method):
            setattr(cls, name, _begun_anew(method))
    return cls


def _begun_anew(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def again(*arguments: Any, **named: Any) -> Any:
        return persistently(lambda: method(*arguments, **named))

    return again


@contextmanager
def translated_errors() -> Iterator[None]:
    """What the driver says of a database that is full, locked or away, as our errors."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise _translated(error) from None
    except DatabaseError as error:
        if getattr(error.orig, "sqlite_errorname", "").startswith(_DAMAGED):
            raise DatabaseUnreachable(
                "the database file is damaged, or is no SQLite database",
                "stop the node, keep the file aside, and put the newest copy that `dicomnode db backup` made in its place",
            ) from None
        if getattr(error.orig, "sqlstate", "") == _UNDEFINED_TABLE:
            raise _no_tables() from None
        if getattr(error.orig, "sqlstate", "") == _READ_ONLY:  # after a failover
            raise DatabaseUnreachable(
                "the database server may only be read just now", "make database.url lead to the server that takes changes"
            ) from None
        raise
    except PoolTimeout:
        raise DatabaseUnreachable(
            "no connection to the database became free", "see whether its server answers, and how many connections it takes"
        ) from None


def _no_tables() -> SettingsError:
    return SettingsError("the database is empty", "run `dicomnode db upgrade`, or start the node once")


def _translated(error: DBAPIError) -> DicomNodeError:
    if getattr(error.orig, "sqlstate", "") in _BROKEN_OFF:
        return BrokenOff("the database server broke a transaction off in favour of another one", "try again")
    name = str(getattr(error.orig, "sqlite_errorname", "") or getattr(error.orig, "sqlstate", "") or type(error.orig).__name__)
    if name in ("SQLITE_FULL", _DISK_FULL):
        return OutOfSpace("the disk of the database is full", "free space on it; what was acknowledged is kept")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return DatabaseUnreachable(
            f"the database stayed locked for {BUSY_TIMEOUT_S} s ({name})",
            "look for a long-running command or backup that holds it, then try again",
        )
    if name == "SQLITE_ERROR" and "no such table" in str(error.orig):
        return _no_tables()
    return DatabaseUnreachable(
        f"the database does not answer ({name})",
        "check database.url, that its folder exists and may be written, and its server",
    )
