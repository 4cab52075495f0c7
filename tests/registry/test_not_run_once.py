"""A job that an operator has tried again, and that ends without a result again, says so once, whatever is said then."""

from typing import Any

import pytest

from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import Registry
from tests.registry.samples import Spool, add_series, queue_job


def refuse(registry: Registry, note: str) -> None:
    job = registry.claim_job("w", 60)
    assert job is not None
    objects = Spool().objects(job, ("SR", "SC"), note)
    registry.finish_job(job, JobEvent.REFUSED, reason_code="gap", results=objects, destinations=["pacs"])


def deliveries(registry: Registry) -> dict[str, int]:
    """How many there are in each state."""
    counts: Any = registry.status_counts()["counts"]
    return {state: count for state, count in counts["deliveries"].items() if count}


@pytest.mark.parametrize("sent", [True, False])
def test_another_reason_or_another_writer_is_not_told_a_second_time(registry: Registry, sent: bool) -> None:
    """After an update of the node the same refusal has other UIDs."""
    add_series(registry, 3)
    queue_job(registry)
    refuse(registry, "before the update")
    while sent and (one := registry.claim_delivery("d", "pacs", 60)) is not None:
        registry.finish_delivery(one, DeliveryEvent.ACCEPTED, status=0)
    registry.retry("J1")
    refuse(registry, "after the update")
    # What still waited gives way to the new words; what has arrived stands.
    assert deliveries(registry) == ({"sent": 2} if sent else {"cancelled": 2, "waiting": 2})


def test_what_never_arrived_is_told_in_the_new_words(registry: Registry) -> None:
    add_series(registry, 3)
    queue_job(registry)
    refuse(registry, "before")
    while (one := registry.claim_delivery("d", "pacs", 60)) is not None:
        registry.finish_delivery(one, DeliveryEvent.REJECTED, status=0xA900)
    registry.retry("J1")
    refuse(registry, "after")
    assert deliveries(registry) == {"rejected": 2, "waiting": 2}


def test_a_result_after_not_run_goes(registry: Registry) -> None:
    add_series(registry, 3)
    queue_job(registry)
    refuse(registry, "before")
    registry.retry("J1")
    job = registry.claim_job("w", 60)
    assert job is not None
    objects = Spool().objects(job, ("SEG", "SR", "SC"), "a result")
    registry.finish_job(job, JobEvent.FINISHED, results=objects, destinations=["pacs"])
    assert deliveries(registry) == {"waiting": 3, "cancelled": 2}
