"""The clock was ahead and is put right: what was written meanwhile does not wait until it has caught up."""

from datetime import timedelta

import pytest

from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import ClaimedDelivery, ClaimedJob, Registry
from tests.registry.samples import Clock, Spool, add_series, queue_job

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
