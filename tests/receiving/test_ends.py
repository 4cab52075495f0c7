"""That associations have ended is noted for many of them at once, and is not lost."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.domain.clock import utc_now
from dicomnode.receiving.ends import Ends
from dicomnode.registry import Registry
from tests.peers.waiting import wait_until


class Rows:
    """The associations of one database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = Registry(f"sqlite:///{path}")
        self.registry.prepare()
        self.ends = Ends(self.registry, utc_now)

    def how(self) -> list[str]:
        """How each of them ended; "" while it is open."""
        with closing(sqlite3.connect(self.path)) as database:
            return [how for (how,) in database.execute("SELECT how FROM associations ORDER BY id")]

    def rename(self, old: str, new: str) -> None:
        with closing(sqlite3.connect(self.path)) as database:
            database.execute(f"ALTER TABLE {old} RENAME TO {new}")

    def opened(self, count: int) -> list[str]:
        return [self.ends.association_opened("X", "DICOMNODE", "192.0.2.1") for _ in range(count)]


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    one = Rows(tmp_path / "rows.db")
    yield one
    one.ends.stop()
    one.registry.close()


def test_ends_are_noted_soon_and_those_of_the_last_moment_before_the_stop(rows: Rows) -> None:
    first, *others = rows.opened(40)
    rows.ends.start()
    rows.ends.association_ended(first, "released")
    wait_until(lambda: rows.how() == ["released"] + [""] * 39, timeout_s=5, what="the first end")
    for key in others:
        rows.ends.association_ended(key, "aborted")
    rows.ends.stop()
    assert rows.how() == ["released"] + ["aborted"] * 39


def test_who_ends_after_the_stop_is_noted_at_once(rows: Rows) -> None:
    (key,) = rows.opened(1)
    rows.ends.start()
    rows.ends.stop()
    rows.ends.association_ended(key, "aborted")
    assert rows.how() == ["aborted"]


def test_ends_that_the_database_does_not_take_are_noted_when_it_does(rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    (key,) = rows.opened(1)
    rows.rename("associations", "away")
    rows.ends.start()
    rows.ends.association_ended(key, "released")
    said: list[str] = []
    wait_until(lambda: said.append(capsys.readouterr().out) or "cannot be recorded" in "".join(said), what="the complaint")
    rows.rename("away", "associations")
    wait_until(lambda: rows.how() == ["released"], what="the end")


def test_the_time_of_an_end_is_when_it_was_and_not_when_it_was_noted(rows: Rows) -> None:
    (key,) = rows.opened(1)
    rows.ends.start()
    rows.ends.association_ended(key, "released")
    before = utc_now()
    wait_until(lambda: rows.how() == ["released"], timeout_s=5, what="the end")
    with closing(sqlite3.connect(rows.path)) as database:
        (at,) = database.execute("SELECT ended_at FROM associations").fetchone()
    assert at <= before.strftime("%Y-%m-%d %H:%M:%S.%f")
