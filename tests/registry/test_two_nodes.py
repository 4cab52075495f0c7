"""Two nodes on one database: what one of them begins anew is its own."""

from collections.abc import Iterator

import pytest

from dicomnode.domain.errors import StaleUpdate
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import Registry
from tests.registry.samples import Clock, Spool, add_series, queue_job, received


@pytest.fixture
def nodes(prepared: str, clock: Clock) -> Iterator[tuple[Registry, Registry]]:
    both = Registry(prepared, clock=clock, node="a"), Registry(prepared, clock=clock, node="a.b")
    yield both
    for one in both:
        one.close()


def two_jobs(registry: Registry) -> None:
    for number in range(2):
        add_series(registry, 1, study=f"1.9.{number}", series=f"1.9.{number}.1")
    queue_job(registry)


def held(registry: Registry, key: str) -> str:
    """Who holds the row now: the actor of its last transition."""
    last = registry.audit(key)[-1]
    return last.actor if last.to_state in ("running", "sending") else last.to_state


def test_a_restart_gives_back_the_jobs_of_its_own_workers_only(nodes: tuple[Registry, Registry]) -> None:
    one, other = nodes
    two_jobs(one)
    mine, theirs = one.claim_job("a:7", 60), other.claim_job("a.b:7", 60)
    assert mine is not None
    assert theirs is not None
    assert one.node_restarted() == 1
    assert (held(one, mine.key), held(one, theirs.key)) == ("queued", "a.b:7")
    other.finish_job(theirs, JobEvent.FINISHED)
    again = one.claim_job("a:8", 60)
    assert again is not None
    assert (again.key, again.attempt, again.starts) == (mine.key, 1, 2)


def test_a_restart_gives_back_what_its_own_senders_had_begun_only(nodes: tuple[Registry, Registry]) -> None:
    one, other = nodes
    two_jobs(one)
    for number in range(2):
        job = one.claim_job("a:7", 60)
        assert job is not None
        one.finish_job(job, JobEvent.FINISHED, results=Spool(f"1.9.{number}").objects(job, ("SR",)), destinations=["pacs"])
    mine, theirs = one.claim_delivery("a:9", "pacs", 60), other.claim_delivery("a.b:9", "pacs", 60)
    assert mine is not None
    assert theirs is not None
    one.node_restarted()
    assert (held(one, mine.key), held(one, theirs.key)) == ("waiting", "a.b:9")
    other.finish_delivery(theirs, DeliveryEvent.ACCEPTED, status=0)


def test_a_restart_ends_the_associations_that_came_to_it_only(nodes: tuple[Registry, Registry]) -> None:
    one, other = nodes
    keys = [each.association_opened("MODALITY", "DICOMNODE", "127.0.0.1") for each in nodes]
    for number, key in enumerate(keys):
        one.add_instance(received(f"1.2.3.1.{number + 1}", association_key=key), ours=False)
    other.node_restarted()
    (study,) = one.studies_to_judge()
    assert [open_one.key for open_one in study.associations] == keys[:1]


def test_a_role_that_begins_anew_takes_nothing_from_the_others(nodes: tuple[Registry, Registry]) -> None:
    """`dicomnode run --role work` beside a receiver of the same node: what that one holds open stays so."""
    one, _ = nodes
    key = one.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    one.add_instance(received("1.2.3.1.1", association_key=key), ours=False)
    (study,) = one.studies_to_judge()
    two_jobs(one)
    job = one.claim_job("a:7", 60)
    assert job is not None
    assert one.node_restarted(["sweep", "deliver"]) == 0
    assert one.node_restarted(["work"]) == 1
    assert len(study.associations) == 1
    add_series(one, 1, study="1.2.3", series="1.2.3.2")
    (study,) = one.studies_to_judge()
    assert [open_one.key for open_one in study.associations] == [key]


def test_an_attempt_of_a_node_whose_lease_ended_changes_nothing_when_it_comes_back(
    nodes: tuple[Registry, Registry], clock: Clock
) -> None:
    """The other machine was cut off, not dead: its job went to this one meanwhile."""
    one, other = nodes
    two_jobs(one)
    late = other.claim_job("a.b:7", 60)
    assert late is not None
    clock.forward(61)
    assert one.requeue_lost() == 1
    clock.forward(60)
    taken = []
    while (job := one.claim_job("a:7", 60)) is not None:
        taken.append(job)
    assert {job.key for job in taken} == {"J1", "J2"}
    with pytest.raises(StaleUpdate):
        other.finish_job(late, JobEvent.FINISHED)
    for job in taken:
        one.finish_job(job, JobEvent.FINISHED)


def test_the_associations_of_a_node_that_vanished_end_and_hold_no_series_open(
    nodes: tuple[Registry, Registry], clock: Clock
) -> None:
    one, other = nodes
    one.presence.say("a", "1f")
    other.presence.say("a.b", "2e")
    keys = [each.association_opened("MODALITY", "DICOMNODE", "127.0.0.1") for each in nodes]
    for number, key in enumerate(keys):
        one.add_instance(received(f"1.2.3.1.{number + 1}", association_key=key), ours=False)
    for _ in range(30):  # the other one says nothing more
        clock.forward(5)
        one.presence.say("a", "1f")
        one.requeue_lost()
    (study,) = one.studies_to_judge()
    assert [open_one.key for open_one in study.associations] == keys[:1]


def test_a_node_of_which_nothing_was_ever_heard_keeps_its_associations(nodes: tuple[Registry, Registry], clock: Clock) -> None:
    """It may be of an older version that does not say that it lives."""
    one, other = nodes
    key = other.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    one.add_instance(received("1.2.3.1.1", association_key=key), ours=False)
    clock.forward(3600)
    one.requeue_lost()
    assert len(one.studies_to_judge()[0].associations) == 1


def test_a_node_that_stops_in_order_leaves_no_name_and_no_association(nodes: tuple[Registry, Registry]) -> None:
    one, other = nodes
    for node, identity in (("a", "1f"), ("a", "3d"), ("a.b", "2e")):
        one.presence.say(node, identity)
    key = other.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    one.add_instance(received("1.2.3.1.1", association_key=key), ours=False)
    assert list(one.presence.namesakes("a", "1f")) == ["3d"]
    assert list(one.presence.namesakes("a.b", "2e")) == []
    other.presence.leave("a.b", "2e")
    assert list(one.presence.namesakes("a.b", "")) == []
    assert one.studies_to_judge()[0].associations == ()
