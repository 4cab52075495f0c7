"""The clock was ahead and is put right: what was written meanwhile does not wait until it has caught up."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import ClaimedDelivery, ClaimedJob, Registry
from dicomnode.registry.tables import Instance
from tests.registry.samples import CT, Clock, Spool, add_series, queue_job

YEAR = timedelta(days=365)
ZONE = timedelta(hours=5)  # local time was taken for UTC


def job_of(registry: Registry) -> ClaimedJob:
    job = registry.claim_job("w:1", 60)
    assert job is not None
    return job


def delivery_of(registry: Registry) -> ClaimedDelivery:
    delivery = registry.claim_delivery("w:2", "pacs", 60)
    assert delivery is not None
    return delivery


@pytest.mark.parametrize("ahead", [YEAR, ZONE])
def test_jobs_and_deliveries_whose_time_was_set_back_go_on_now(registry: Registry, clock: Clock, ahead: timedelta) -> None:
    for number in range(3):
        add_series(registry, 1, study=f"1.9.{number}", series=f"1.9.{number}.1")
    queue_job(registry)
    clock.now += ahead
    registry.finish_job(job_of(registry), JobEvent.TRY_AGAIN)
    done = job_of(registry)
    registry.finish_job(done, JobEvent.FINISHED, results=Spool().objects(done, ("SEG", "SR")), destinations=["pacs"])
    registry.finish_delivery(delivery_of(registry), DeliveryEvent.ACCEPTED, status=0)
    registry.finish_delivery(delivery_of(registry), DeliveryEvent.TRY_AGAIN)
    job_of(registry)
    clock.now -= ahead
    assert registry.claim_job("w:1", 60) is None
    assert registry.deliveries_to_prove("pacs") == []
    assert registry.requeue_lost() == 0, "whoever holds a job lives, as far as anybody knows"
    again = job_of(registry)
    assert (again.key, again.attempt) == ("J1", 2)
    assert delivery_of(registry).attempt == 2
    assert len(registry.deliveries_to_prove("pacs")) == 1


def test_who_lives_keeps_a_job_over_both_jumps_and_who_died_loses_it_soon(registry: Registry, clock: Clock) -> None:
    for number in range(2):
        add_series(registry, 1, study=f"1.9.{number}", series=f"1.9.{number}.1")
    queue_job(registry)
    clock.now += YEAR
    living, _dead = job_of(registry), job_of(registry)
    clock.now -= YEAR
    registry.requeue_lost()
    for _ in range(50):
        clock.forward(20)
        registry.renew_lease(living)
        registry.requeue_lost()
    assert [registry.audit(key)[-1].event for key in ("J1", "J2")] == ["claimed", "lease_lost"]
    registry.finish_job(living, JobEvent.FINISHED)


def test_what_was_committed_by_a_clock_that_was_ahead_is_kept_for_the_stated_time_and_no_earlier_promise_is_shortened(
    registry: Registry, clock: Clock
) -> None:
    add_series(registry, 3)
    uids = [f"1.2.3.1.{number}" for number in (1, 2, 3)]
    earlier = clock.now + 12 * YEAR
    registry.promises.keep(uids[:1], earlier)
    clock.now += 10 * YEAR
    registry.promises.note("modality", "1.2.3.9", [(CT, uid) for uid in uids])
    (asked,) = registry.promises.due()
    registry.promises.keep(uids, clock.now + YEAR)
    registry.promises.decide(asked.id, {})
    registry.promises.told(asked.id)
    clock.now -= 10 * YEAR

    def kept() -> dict[str, datetime]:
        with registry._database.read() as session:
            return dict(session.execute(select(Instance.sop_instance_uid, Instance.keep_until)).all())  # type: ignore[arg-type]

    for _ in range(2):
        registry.requeue_lost()
        assert kept() == {uids[0]: earlier, uids[1]: clock.now + YEAR, uids[2]: clock.now + YEAR}
