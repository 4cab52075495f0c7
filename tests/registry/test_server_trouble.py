"""A database server that breaks transactions off, or goes away at the very moment of a commit."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy.engine import make_url

from dicomnode.domain.errors import DatabaseUnreachable, StaleUpdate
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import Registry
from tests.peers.line import Line
from tests.peers.waiting import wait_until
from tests.registry.samples import ONLY_POSTGRESQL, Clock, Spool, add_series, queue_job, received

pytestmark = ONLY_POSTGRESQL
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def quick(prepared: str, clock: Clock) -> Iterator[Registry]:
    """A registry whose sessions look for deadlocks soon, and so are the ones that the server ends."""
    url = make_url(prepared).update_query_dict({"options": "-c deadlock_timeout=1s"})
    one = Registry(url.render_as_string(hide_password=False), clock=clock)
    yield one
    one.close()


@contextmanager
def somebody_crosswise(url: str, first: str, then: str) -> Iterator[None]:
    """Another session holds what `first` locks, and wants what `then` locks once somebody waits for it."""
    plain = url.replace("+psycopg", "")
    with psycopg.connect(plain) as other, psycopg.connect(plain, autocommit=True) as looking:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute(first)  # type: ignore[arg-type]

        def go_on() -> None:
            wait_until(lambda: looking.execute(WAITING).fetchone() == (1,), every_s=0.001, what="the registry to wait")
            other.execute(then)  # type: ignore[arg-type]
            other.commit()

        thread = threading.Thread(target=go_on)
        thread.start()
        yield
        thread.join()


def deadlocks(url: str) -> int:
    with psycopg.connect(url.replace("+psycopg", "")) as looking:
        row = looking.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


COMMIT = b"COMMIT\0"
LOCK_SERIES, LOCK_STUDY = "UPDATE series SET held = held", "UPDATE studies SET held = held"


def test_images_of_a_transaction_that_the_server_breaks_off_are_all_kept_and_nobody_notices(
    prepared: str, quick: Registry
) -> None:
    """The study's row comes first, then the series': somebody who takes them the other way round makes a deadlock."""
    add_series(quick, 3)
    with somebody_crosswise(prepared, LOCK_SERIES, LOCK_STUDY):
        add_series(quick, 6)
    wait_until(lambda: deadlocks(prepared) == 1, what="the server to count the deadlock")
    assert quick.status_counts()["counts"]["instances"] == 6  # type: ignore[index]


def test_a_judgement_that_the_server_breaks_off_is_written_all_the_same(prepared: str, quick: Registry) -> None:
    add_series(quick, 3)
    with somebody_crosswise(prepared, LOCK_SERIES, LOCK_STUDY):
        assert queue_job(quick) == ["J1"]
    wait_until(lambda: deadlocks(prepared) == 1, what="the server to count the deadlock")


@pytest.fixture
def line(prepared: str) -> Iterator[Line]:
    with Line(make_url(prepared).port or 0) as one:
        yield one


@pytest.fixture
def far(prepared: str, clock: Clock, line: Line) -> Iterator[Registry]:
    """A registry at the end of that line."""
    one = Registry(make_url(prepared).set(port=line.port).render_as_string(hide_password=False), clock=clock)
    yield one
    one.close()


def test_an_image_whose_commit_was_not_answered_leaves_no_row_unless_it_comes_again(far: Registry, line: Line) -> None:
    """Its sender heard of a failure and its file is gone; the server has its row all the same."""
    add_series(far, 2)
    doubtful = received("1.2.3.1.3")
    for settle in (True, False):
        line.cut_at_answer_to(COMMIT)
        with pytest.raises(DatabaseUnreachable):
            far.add_instance(doubtful, ours=False)
        assert far.instance("1.2.3.1.3") is not None
        if settle:
            assert far.settle_doubts() == 1
            assert far.instance("1.2.3.1.3") is None
    assert line.cuts == 2
    assert far.add_instance(doubtful, ours=False).new, "the row that named the lost file was removed first"
    assert far.settle_doubts() == 0
    assert far.status_counts()["counts"]["instances"] == 3  # type: ignore[index]


def test_what_was_claimed_without_our_knowledge_is_given_back(far: Registry, line: Line) -> None:
    add_series(far, 2)
    queue_job(far)
    line.cut_at_answer_to(COMMIT, COMMIT)  # a look whether there is anything comes first
    with pytest.raises(DatabaseUnreachable):
        far.claim_job("w:1", 60)
    assert far.claim_job("w:1", 60) is None
    assert far.worker_ended("w:1") == 1
    job = far.claim_job("w:1", 60)
    assert job is not None
    assert job.attempt == 1
    line.cut_at_answer_to(COMMIT)
    with pytest.raises(DatabaseUnreachable):
        far.finish_job(job, JobEvent.FINISHED, results=Spool().objects(job, ("SR",)), destinations=["pacs", "other"])
    with pytest.raises(StaleUpdate):  # it had been written: said again, it changes nothing
        far.finish_job(job, JobEvent.FINISHED, results=Spool().objects(job, ("SR",)), destinations=["pacs", "other"])
    elsewhere = far.claim_delivery("w:2", "other", 60)
    assert elsewhere is not None
    line.cut_at_answer_to(COMMIT, COMMIT)  # a look whether there is anything comes first
    with pytest.raises(DatabaseUnreachable):
        far.claim_delivery("w:2", "pacs", 60)
    assert far.claim_delivery("w:2", "pacs", 60) is None
    assert far.give_back_deliveries("w:2", "pacs") == 1
    delivery = far.claim_delivery("w:2", "pacs", 60)
    assert delivery is not None
    far.finish_delivery(delivery, DeliveryEvent.ACCEPTED, status=0)
    far.finish_delivery(elsewhere, DeliveryEvent.ACCEPTED, status=0)


def test_leases_that_end_while_the_database_is_away_have_until_the_next_look(far: Registry, line: Line, clock: Clock) -> None:
    add_series(far, 2)
    queue_job(far)
    job = far.claim_job("w:1", 60)
    assert job is not None
    line.cut_at_answer_to(b"BEGIN")
    with pytest.raises(DatabaseUnreachable):
        far.requeue_lost()
    clock.forward(300)
    assert far.requeue_lost() == 0, "nobody could renew it"
    far.renew_lease(job)
    clock.forward(61)
    assert far.requeue_lost() == 1
