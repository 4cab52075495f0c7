"""The fast way of an image into the registry says what the careful way says; images that come at once share a commit."""

import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from dicomnode.domain.errors import DatabaseUnreachable
from dicomnode.domain.received import Received
from dicomnode.registry import InstanceKeys, Registry, SeriesCompletion, StudyJudgement
from dicomnode.registry.arrivals import Arrivals
from dicomnode.registry.group import GroupCommit
from tests.peers.waiting import wait_until
from tests.registry.samples import ONLY_SQLITE, Clock, add_series, queue_job, received

TABLES = ("studies", "series", "instances", "associations", "header_versions", "conflicts", "jobs", "audit")


@contextmanager
def beside(url: str) -> Iterator[Connection]:
    """A connection of somebody else, who commits at the end."""
    engine = create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def rows_of(url: str) -> dict[str, list[tuple[object, ...]]]:
    with beside(url) as connection:
        return {table: asked(connection, f"SELECT * FROM {table} ORDER BY id") for table in TABLES}  # noqa: S608


def asked(connection: Connection, statement: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in connection.exec_driver_sql(statement)]


def forgetful(registry: Registry) -> None:
    """Every image goes the careful way."""
    registry._arrivals._known.clear()


def as_before(_: Registry) -> None:
    """Whatever is known stays known."""


def play(registry: Registry, clock: Clock, seed: int, between: Callable[[Registry], None]) -> None:
    """What three modalities, a routing sweep and an operator do in an hour."""
    chance = random.Random(seed)  # noqa: S311
    keys = [registry.association_opened(f"M{n}", "NODE", "127.0.0.1") for n in range(3)]
    for number in range(120):
        between(registry)
        study = chance.randrange(2)
        series = chance.randrange(3)
        one = received(
            f"1.2.{study}.{series}.{number if chance.random() < 0.9 else 3}",
            study=f"1.2.{study}",
            series=f"1.2.{study}.{series}",
            at=clock.forward(chance.choice((0.01, 1, -0.5))),
            association_key=chance.choice((*keys, "")),
            content=chance.choice(("", "", "other")),
            **chance.choice(({}, {}, {}, {"PatientName": "DOE^JANE^"}, {"PatientID": "P2"}, {"NumberOfFrames": "3"})),
        )
        one = replace(one, called_ae=chance.choice(("DICOMNODE", "DICOMNODE", "LUNG", "HEAD")))
        registry.add_instance(one, ours=chance.random() < 0.05, replaces=chance.random() < 0.05)
        if number % 20 == 19:
            queue_job(registry)
        if number % 50 == 49:
            registry.retry("S1")
            registry.forget_instances([one.sop_instance_uid])
    for key in keys:
        registry.association_ended(key, "released")


@pytest.mark.parametrize("seed", range(4))
def test_the_fast_way_writes_the_same_rows_as_the_careful_way(tmp_path: Path, seed: int) -> None:
    written = []
    for name, between in (("fast", as_before), ("careful", forgetful)):
        url, clock = f"sqlite:///{tmp_path / name}.db", Clock()
        registry = Registry(url, clock=clock)
        registry.prepare()
        play(registry, clock, seed, between)
        registry.close()
        written.append(rows_of(url))
    assert written[0] == written[1]


def fast_ways(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each following image went the fast way."""
    seen: list[bool] = []
    careful = Arrivals._way_of

    def noting(self: Arrivals, one):  # type: ignore[no-untyped-def]
        known = careful(self, one)
        seen.append(known is not None)
        return known

    monkeypatch.setattr(Arrivals, "_way_of", noting)
    return seen


def test_only_the_first_image_of_a_series_goes_the_careful_way(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fast_ways(registry, monkeypatch)
    add_series(registry, 5)
    assert seen == [False, True, True, True, True]


def test_the_first_image_at_another_title_of_ours_goes_the_careful_way_and_no_further_one(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fast_ways(registry, monkeypatch)
    for number, title in enumerate(("DICOMNODE", "DICOMNODE", "LUNG", "DICOMNODE", "LUNG", "LUNG", "DICOMNODE")):
        registry.add_instance(replace(received(f"1.2.3.1.{number}"), called_ae=title), ours=False)
    assert seen == [False, True, False, True, True, True, True]
    ((series,),) = [study.series for study in registry.studies_to_judge()]
    assert (series.attributes["CalledAETitle"], list(series.also_called)) == ("DICOMNODE\\LUNG", ["LUNG"])


def test_a_late_image_reopens_its_series_though_it_was_known(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    registry.add_instance(received("1.2.3.2.1", series="1.2.3.2"), ours=False)
    (study,) = registry.studies_to_judge()
    done = SeriesCompletion(study.series[0].series_id, complete=True, forced=False, evidence={})
    # One series is complete while the study is not settled: the series' guard must find it, after the study's said yes.
    registry.record_judgement(StudyJudgement(study.study_id, study.arrivals, completions=(done,), settled=False))
    late = registry.add_instance(received("1.2.3.1.9", at=clock.forward(5)), ours=False)
    assert late.new
    (study,) = registry.studies_to_judge()
    assert [(one.state, one.generation, one.instances) for one in study.series] == [("arriving", 1, 4), ("arriving", 0, 1)]
    assert study.arrivals == 5


def test_another_process_that_changed_the_rows_is_noticed(registry: Registry, url: str) -> None:
    add_series(registry, 3)
    other = Registry(url)
    other.forget_instances(["1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3"])
    with beside(url) as connection:
        for table in ("instances", "verdicts", "header_versions", "series", "studies"):
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608
    # On SQLite another study takes the ids that the registry remembers.
    add_series(other, 1, study="1.2.9", series="1.2.9.1")
    assert registry.add_instance(received("1.2.3.1.4"), ours=False).new
    with beside(url) as connection:
        counts = asked(connection, "SELECT study_instance_uid, arrivals FROM studies ORDER BY id")
    assert counts == [("1.2.9", 1), ("1.2.3", 1)]
    other.close()


def test_images_of_many_senders_at_once_are_all_there_and_counted_once(registry: Registry, url: str) -> None:
    images = [received(f"1.2.3.{n % 4}.{n}", series=f"1.2.3.{n % 4}") for n in range(160)]
    new: list[bool] = []

    def send(mine: Sequence[Received]) -> None:
        new.extend(registry.add_instance(one, ours=False).new for one in mine)

    threads = [threading.Thread(target=send, args=(images[start::8] + images[:10],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert new.count(True) == 160
    with beside(url) as connection:
        assert asked(connection, "SELECT arrivals FROM studies") == [(160,)]
        assert asked(connection, "SELECT instances FROM series") == [(40,)] * 4


@pytest.mark.parametrize("size", [2, 3, 16, 17, 45])
def test_images_that_come_at_once_are_counted_where_each_belongs(registry: Registry, url: str, clock: Clock, size: int) -> None:
    keys = [registry.association_opened(f"M{n}", "NODE", "127.0.0.1") for n in range(3)]

    def image(n: int) -> Received:
        study, series = f"1.2.{n % 2}", f"1.2.{n % 2}.{n % 3}"
        return received(f"{series}.{n}", study=study, series=series, at=clock.forward(1), association_key=keys[n % 3])

    for n in range(6):  # every series is known, each through the association that brings it
        registry.add_instance(image(n), ours=False)
    batch = [image(n) for n in range(6, 6 + size)]
    answers = registry._arrivals._write([_arrival(one) for one in (*batch, image(2))])  # the last one came before
    assert [answer.new for answer in answers if isinstance(answer, InstanceKeys)] == [True] * size + [False]
    with beside(url) as connection:
        assert len(asked(connection, "SELECT id FROM instances")) == 6 + size
        by_series = asked(connection, "SELECT series_instance_uid, instances FROM series ORDER BY 1")
        assert by_series == sorted(Counter(f"1.2.{n % 2}.{n % 3}" for n in range(6 + size)).items())
        by_study = asked(connection, "SELECT study_instance_uid, arrivals FROM studies ORDER BY 1")
        assert by_study == sorted(Counter(f"1.2.{n % 2}" for n in range(6 + size)).items())
        counts = [row[0] for row in asked(connection, "SELECT instances FROM associations ORDER BY id")]
        assert counts == [len(range(n, 6 + size, 3)) for n in range(3)]
        of_rows = asked(connection, "SELECT association_id, count(*) FROM instances GROUP BY 1 ORDER BY 1")
        assert [row[1] for row in of_rows] == counts
        newest = "SELECT max(received_at) FROM instances WHERE association_id = associations.id"
        assert asked(connection, f"SELECT count(*) FROM associations WHERE last_instance_at = ({newest})") == [(3,)]  # noqa: S608
        last = "SELECT study_instance_uid FROM associations JOIN studies ON studies.id = last_study_id ORDER BY associations.id"
        newest_of_each = {n % 3: f"1.2.{n % 2}" for n in range(6 + size)}
        assert [row[0] for row in asked(connection, last)] == [newest_of_each[n] for n in range(3)]


def test_one_image_that_cannot_be_kept_does_not_take_the_others_with_it(registry: Registry) -> None:
    add_series(registry, 2)
    wrong = replace(received("1.2.3.1.7"), attributes={"InstanceNumber": object()})  # type: ignore[dict-item]
    answers = registry._arrivals._write([_arrival(received("1.2.3.1.5")), _arrival(wrong), _arrival(received("1.2.3.1.6"))])
    assert [isinstance(one, BaseException) for one in answers] == [False, True, False]
    assert [registry.instance(f"1.2.3.1.{n}") is not None for n in (5, 6, 7)] == [True, True, False]
    with pytest.raises(AttributeError):
        registry.add_instance(wrong, ours=False)


def _arrival(one: Received):  # type: ignore[no-untyped-def]
    from dicomnode.registry.arrivals import _Arrival

    return _Arrival(one, False, False)


@ONLY_SQLITE
def test_a_database_that_is_away_is_said_to_all_and_met_again(registry: Registry, url: str) -> None:
    add_series(registry, 2)
    path = Path(url.removeprefix("sqlite:///"))
    locked = sqlite3.connect(path, isolation_level=None)
    kept = registry._database._kept[False].cursor.connection
    assert isinstance(kept, sqlite3.Connection)
    kept.execute("PRAGMA busy_timeout=50")
    locked.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnreachable, match="locked"):
        registry.add_instance(received("1.2.3.1.3"), ours=False)
    locked.execute("ROLLBACK")
    locked.close()
    assert registry.add_instance(received("1.2.3.1.3"), ours=False).new


def test_who_comes_during_a_commit_shares_the_next_one() -> None:
    batches: list[list[int]] = []
    first_is_in, go_on = threading.Event(), threading.Event()

    def write(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        if len(batches) == 1:
            first_is_in.set()
            assert go_on.wait(10)
        return [item * 10 for item in items]

    group: GroupCommit[int, int] = GroupCommit(write)
    answers: dict[int, int] = {}
    threads = [threading.Thread(target=lambda n=n: answers.__setitem__(n, group.commit(n))) for n in range(9)]
    threads[0].start()
    assert first_is_in.wait(10)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: len(group._pending) == 8, timeout_s=10, what="the others to wait")
    go_on.set()
    for thread in threads:
        thread.join()
    assert answers == {n: n * 10 for n in range(9)}
    assert batches[0] == [0]
    assert sorted(batches[1]) == list(range(1, 9))
    assert len(batches) == 2


def test_what_the_commit_raises_everybody_gets_and_the_next_is_served() -> None:
    def write(items: Sequence[int]) -> list[int | BaseException]:
        if 1 in items:
            raise DatabaseUnreachable("away", "wait")
        return [ValueError("two") if item == 2 else item for item in items]

    group: GroupCommit[int, int] = GroupCommit(write)
    with pytest.raises(DatabaseUnreachable):
        group.commit(1)
    with pytest.raises(ValueError, match="two"):
        group.commit(2)
    assert group.commit(3) == 3
