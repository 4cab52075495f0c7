"""What waits for an administrator is seen in the rows, and is gone when its cause is."""

from datetime import timedelta
from typing import Any

import pytest

from dicomnode.domain.alarms import Alarm, AlarmKind
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import ConflictKind, Registry
from tests.registry.samples import START, Clock, Spool, add_series, queue_job, received

HALF_AN_HOUR = timedelta(minutes=30)


def standing(registry: Registry) -> dict[tuple[str, str], Alarm]:
    found = registry.alarms.standing(queue_longer_than=HALF_AN_HOUR, failed_within=timedelta(days=7))
    return {(one.kind.value, one.subject): one for one in found}


def sent(registry: Registry, event: DeliveryEvent, error: str, **more: Any) -> str:
    """A job of one result, tried once at the PACS; the delivery's key."""
    add_series(registry, 3)
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    results = Spool().objects(job, ("SEG",))
    registry.finish_job(job, JobEvent.FINISHED, results=results, destinations=["pacs"])
    delivery = registry.claim_delivery("d", "pacs", 60)
    assert delivery is not None
    registry.finish_delivery(delivery, event, error=error, **more)
    return delivery.key


def test_where_all_is_well_nothing_waits(registry: Registry) -> None:
    sent(registry, DeliveryEvent.ACCEPTED, "", status=0)
    assert standing(registry) == {}


@pytest.mark.parametrize(
    ("event", "kind"), [(DeliveryEvent.HELD, "delivery_held"), (DeliveryEvent.REJECTED, "delivery_rejected")]
)
def test_a_delivery_that_is_stopped_is_an_alarm_of_its_study_until_somebody_decides(
    registry: Registry, clock: Clock, event: DeliveryEvent, kind: str
) -> None:
    key = sent(registry, event, "the check failed")
    clock.forward(3600)
    one = standing(registry)[kind, "S1"]
    assert (one.count, one.since, one.detail) == (1, START, "the check failed")
    assert "dicomnode explain S1" in one.remedy
    registry.cancel(key)
    assert standing(registry) == {}


def test_a_destination_that_does_not_take_what_is_tried_is_an_alarm_until_it_does(registry: Registry, clock: Clock) -> None:
    sent(registry, DeliveryEvent.TRY_AGAIN, "the peer refused the connection", retry_after_s=10.0)
    one = standing(registry)["destination_failing", "pacs"]
    assert (one.count, one.since, one.detail) == (1, START, "the peer refused the connection")
    clock.forward(20)
    again = registry.claim_delivery("d", "pacs", 60)
    assert again is not None
    registry.finish_delivery(again, DeliveryEvent.ACCEPTED, status=0)
    assert standing(registry) == {}


def test_a_deep_queue_is_an_alarm_and_work_ends_it(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    clock.forward(29 * 60)
    assert standing(registry) == {}
    clock.forward(2 * 60)
    one = standing(registry)["queue_deep", "queue"]
    assert (one.count, one.since) == (1, START)
    assert "AI is delayed" in one.meaning
    assert registry.claim_job("w", 60) is not None
    assert standing(registry) == {}


def test_a_job_that_no_worker_may_take_makes_no_deep_queue(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    registry.record_conflict(received("1.2.3.1.1", at=clock.forward(5), content="other"), ConflictKind.PIXELS)
    clock.forward(3600)
    assert list(standing(registry)) == [("content_quarantined", "E1")]
    registry.retry("E1")
    assert list(standing(registry)) == [("queue_deep", "queue")]


@pytest.mark.parametrize(
    ("kind", "alarm", "key"),
    [
        (ConflictKind.PIXELS, "content_quarantined", "E1"),
        (ConflictKind.GEOMETRY, "content_quarantined", "E1"),
        (ConflictKind.HEADER, "study_held", "S1"),
    ],
)
def test_content_that_contradicts_what_is_stored_is_an_alarm_until_an_operator_decides(
    registry: Registry, clock: Clock, kind: ConflictKind, alarm: str, key: str
) -> None:
    add_series(registry, 3)
    at = clock.forward(5)
    registry.record_conflict(received("1.2.3.1.1", at=at, content="other", PatientID="P2"), kind)
    (one,) = standing(registry).values()
    assert (one.kind.value, one.subject, one.count, one.since) == (alarm, key, 1, at)
    registry.retry(key)
    assert standing(registry) == {}


def test_a_job_that_failed_is_an_alarm_for_some_days_or_until_it_runs_again(registry: Registry, clock: Clock) -> None:
    add_series(registry, 3)
    queue_job(registry)
    for _ in range(3):
        assert registry.claim_job("w", 60) is not None
        registry.worker_died("w")
        clock.forward(3600)
    assert "of S1" in standing(registry)["job_failed", "J1"].detail
    clock.forward(8 * 86_400)
    assert standing(registry) == {}
    registry.retry("J1")
    assert [kind for kind, _ in standing(registry)] == []


def test_what_comes_and_what_goes_is_told_once_and_its_time_outlives_a_restart(
    registry: Registry, clock: Clock, prepared: str
) -> None:
    low, full = Alarm(AlarmKind.DISK_LOW, "data_dir"), Alarm(AlarmKind.DISK_FULL, "data_dir", 2)
    assert registry.alarms.keep([low]) == ([("disk_low", "data_dir")], [])
    clock.forward(60)
    assert registry.alarms.keep([low]) == ([], [])
    after_a_restart = Registry(prepared, clock=clock)
    assert after_a_restart.alarms.known_since() == {("disk_low", "data_dir"): START}
    assert after_a_restart.alarms.keep([full]) == ([("disk_full", "data_dir")], [("disk_low", "data_dir")])
    assert after_a_restart.alarms.known_since() == {("disk_full", "data_dir"): START + timedelta(seconds=60)}
    assert after_a_restart.alarms.keep([]) == ([], [("disk_full", "data_dir")])
    after_a_restart.close()


def test_of_several_nodes_on_one_database_each_clears_only_what_it_sees_of_its_own_machine(registry: Registry) -> None:
    here, there = Alarm(AlarmKind.DISK_LOW, "data_dir@one"), Alarm(AlarmKind.DISK_LOW, "data_dir@two")
    both = Alarm(AlarmKind.JOB_FAILED, "J1")
    assert registry.alarms.keep([here, both], "one")[0] == [("disk_low", "data_dir@one"), ("job_failed", "J1")]
    assert registry.alarms.keep([there, both], "two") == ([("disk_low", "data_dir@two")], [])
    assert registry.alarms.keep([there], "two") == ([], [("job_failed", "J1")])
    assert set(registry.alarms.known_since()) == {("disk_low", "data_dir@one"), ("disk_low", "data_dir@two")}
    assert registry.alarms.keep([], "one") == ([], [("disk_low", "data_dir@one")])


def test_of_several_nodes_with_different_settings_none_clears_what_another_one_still_sees(
    registry: Registry, clock: Clock
) -> None:
    """Else two nodes would say "alarm" and "alarm is over" in turn, for as long as the cause is there."""
    add_series(registry, 3)
    queue_job(registry)
    clock.forward(40 * 60)

    def look(node: str, queue_min: float) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        longer = timedelta(minutes=queue_min)
        seen = registry.alarms.standing(queue_longer_than=longer, failed_within=timedelta(days=queue_min))
        return registry.alarms.keep(seen, node)

    deep, failed = ("queue_deep", "queue"), ("job_failed", "J1")
    assert look("strict", 30) == ([deep], [])
    for _ in range(3):
        assert look("patient", 60) == look("strict", 30) == ([], [])
    for _ in range(3):
        assert registry.claim_job("w", 60) is not None
        registry.worker_died("w")
        clock.forward(3600)
    assert look("patient", 60) == ([failed], [deep]), "what is over is over for all"
    clock.forward(40 * 86_400)
    for _ in range(3):
        assert look("strict", 30) == look("patient", 60) == ([], [])
    registry.retry("J1")
    assert look("strict", 30) == ([], [failed])
