"""What leaves, in which order, with which proof."""

from dataclasses import replace

import pytest

from dicomnode.domain.errors import ResultCheckFailed, StaleUpdate, UsageError
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import ClaimedDelivery, Registry
from tests.registry.samples import Clock, Spool, add_series, queue_job, received

ALL = ("SEG", "SR", "SC")


def outbox(registry: Registry, *destinations: str, study: str = "1.2.3", kinds: tuple[str, ...] = ALL) -> None:
    """A done job whose results wait for these destinations."""
    add_series(registry, 2, study=study, series=study + ".1")
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    registry.finish_job(job, JobEvent.FINISHED, results=Spool(study).objects(job, kinds), destinations=destinations or ["pacs"])


def claim(registry: Registry, destination: str = "pacs", worker: str = "d") -> ClaimedDelivery:
    one = registry.claim_delivery(worker, destination, 60)
    assert one is not None
    return one


def last(registry: Registry, key: str) -> str:
    return registry.audit(key)[-1].to_state


def test_seg_goes_first_and_the_others_wait_until_it_was_accepted(registry: Registry) -> None:
    outbox(registry)
    seg = claim(registry)
    assert seg.result.kind == "SEG"
    assert registry.claim_delivery("d", "pacs", 60) is None
    registry.finish_delivery(seg, DeliveryEvent.ACCEPTED, status=0)
    assert [claim(registry).result.kind, claim(registry).result.kind] == ["SR", "SC"]


def test_what_waits_at_one_destination_waits_at_no_other(registry: Registry) -> None:
    outbox(registry, "pacs", "archive")
    registry.finish_delivery(claim(registry, "pacs"), DeliveryEvent.REJECTED, status=0xA900, error="does not match its class")
    assert registry.claim_delivery("d", "pacs", 60) is None
    registry.finish_delivery(claim(registry, "archive"), DeliveryEvent.ACCEPTED, status=0)
    assert claim(registry, "archive").result.kind == "SR"


def test_a_job_without_seg_waits_for_nothing(registry: Registry) -> None:
    outbox(registry, kinds=("SR", "SC"))
    assert claim(registry).result.kind == "SR"
    assert claim(registry).result.kind == "SC"


def test_a_delivery_that_failed_for_now_comes_back_after_its_pause(registry: Registry, clock: Clock) -> None:
    outbox(registry)
    registry.finish_delivery(claim(registry), DeliveryEvent.TRY_AGAIN, error="connection refused", retry_after_s=30)
    clock.forward(29)
    assert registry.claim_delivery("d", "pacs", 60) is None
    clock.forward(1)
    again = claim(registry)
    assert (again.key, again.attempt) == ("D1", 2)
    (series,) = registry.explain("S1")["series"]  # type: ignore[misc]
    assert series["deliveries"][0]["last_error"] == "connection refused"


def test_a_sender_that_comes_back_late_changes_nothing(registry: Registry, clock: Clock) -> None:
    outbox(registry)
    late = claim(registry)
    clock.forward(61)
    assert registry.requeue_lost() == 1
    with pytest.raises(StaleUpdate):
        registry.finish_delivery(late, DeliveryEvent.ACCEPTED, status=0)
    other = claim(registry, worker="other")
    assert other.result == late.result  # the same bytes under the same UID: a PACS that has them already says success
    registry.finish_delivery(other, DeliveryEvent.ACCEPTED, status=0)


def test_a_restart_of_the_node_sends_again_what_was_on_the_way(registry: Registry) -> None:
    outbox(registry)
    claim(registry)
    registry.node_restarted()
    assert claim(registry).key == "D1"


def test_proof_confirms_and_its_absence_sends_again(registry: Registry, clock: Clock) -> None:
    outbox(registry, kinds=("SR", "SC"))
    for _ in range(2):
        registry.finish_delivery(claim(registry), DeliveryEvent.ACCEPTED, status=0)
    clock.forward(2)
    first, second = registry.deliveries_to_prove("pacs")
    registry.finish_delivery(first, DeliveryEvent.PROVED, proof="indexed: found by C-FIND")
    registry.postpone_proof(second, 60, "not found yet")
    assert registry.deliveries_to_prove("pacs") == []
    clock.forward(60)
    (second,) = registry.deliveries_to_prove("pacs")
    registry.finish_delivery(second, DeliveryEvent.PROOF_SAYS_MISSING, error="not there", retry_after_s=5)
    assert (last(registry, "D1"), last(registry, "D2")) == ("confirmed", "waiting")
    clock.forward(5)
    assert claim(registry).key == "D2"
    story = str(registry.explain("S1")["paragraph"])
    assert "SR (D1) was accepted by pacs and is proved to be there (indexed: found by C-FIND)." in story


def test_nothing_leaves_for_a_study_whose_identity_is_in_doubt(registry: Registry) -> None:
    outbox(registry)
    registry.add_instance(received("1.2.3.9.1", series="1.2.3.9", PatientID="P2"), ours=False)
    assert registry.claim_delivery("d", "pacs", 60) is None
    assert registry.retry("S1") == ["S1"]
    assert claim(registry).key == "D1"


def test_an_operator_sends_again_or_never(registry: Registry, clock: Clock) -> None:
    outbox(registry)
    registry.finish_delivery(claim(registry), DeliveryEvent.REJECTED, status=0xA900, error="data set does not match")
    story = str(registry.explain("S1")["paragraph"])
    assert "SEG (D1) was rejected by pacs (data set does not match); `dicomnode retry D1` sends it again." in story
    assert "SR and SC (D2 and D3) wait to be sent to pacs." in story
    assert registry.retry("D1") == ["D1"]
    registry.finish_delivery(claim(registry), DeliveryEvent.HELD, error="14 days of trying")
    assert registry.cancel("D1") == ["D1", "D2", "D3"]  # an SR never goes where the SEG it names was not accepted
    with pytest.raises(UsageError, match="D1 is cancelled"):
        registry.retry("D1")
    assert registry.claim_delivery("d", "pacs", 60) is None


def test_an_object_on_its_way_while_its_job_is_superseded_is_not_tried_again(registry: Registry, clock: Clock) -> None:
    outbox(registry)
    seg = claim(registry)
    registry.add_instance(received("1.2.3.1.9", at=clock.now), ours=False)
    registry.finish_delivery(seg, DeliveryEvent.TRY_AGAIN, error="link lost", retry_after_s=0)
    assert {last(registry, key) for key in ("D1", "D2", "D3")} == {"cancelled"}
    assert registry.claim_delivery("d", "pacs", 60) is None


def test_other_bytes_under_a_uid_that_left_already_are_refused(registry: Registry) -> None:
    add_series(registry, 2)
    queue_job(registry)
    spool = Spool()
    job = registry.claim_job("w", 60)
    assert job is not None
    objects = spool.objects(job, ("SR",))
    registry.finish_job(job, JobEvent.REFUSED, reason_code="gap", results=objects, destinations=["pacs"])
    registry.retry("J1")
    again = registry.claim_job("w", 60)
    assert again is not None
    other = tuple(replace(one, sha256="0" * 64) for one in objects)
    with pytest.raises(ResultCheckFailed):
        registry.finish_job(again, JobEvent.REFUSED, reason_code="gap", results=other, destinations=["pacs"])
    assert last(registry, "J1") == "running"
    registry.finish_job(again, JobEvent.REFUSED, reason_code="gap", results=objects, destinations=["pacs"])


def test_a_result_that_differs_after_a_retry_takes_the_place_of_what_still_waited(registry: Registry) -> None:
    add_series(registry, 2)
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    registry.finish_job(
        job, JobEvent.FAILED, reason_code="x", results=Spool().objects(job, ("SR",), "not run"), destinations=["pacs"]
    )
    registry.retry("J1")
    again = registry.claim_job("w", 60)
    assert again is not None
    registry.finish_job(again, JobEvent.FINISHED, results=Spool().objects(again), destinations=["pacs"])
    assert last(registry, "D1") == "cancelled"
    assert claim(registry).result.kind == "SEG"


@pytest.mark.parametrize("how", ["worker_died", "worker_ended"])
def test_what_a_process_was_sending_when_it_ended_goes_again_at_once(registry: Registry, how: str) -> None:
    outbox(registry, "pacs", "archive")
    claim(registry, "pacs", "here:1")
    claim(registry, "archive", "here:2")
    assert getattr(registry, how)("here:1") == 1
    assert (last(registry, "D1"), last(registry, "D4")) == ("waiting", "sending")
    assert claim(registry).key == "D1"


def test_explain_says_what_waits_for_a_seg_that_does_not_come_by_itself(registry: Registry) -> None:
    outbox(registry)
    registry.finish_delivery(claim(registry), DeliveryEvent.REJECTED, status=0x0122, error="class not supported")
    assert "D2 and D3 wait for D1 and for an operator: `dicomnode retry D1`" in str(registry.explain("S1")["paragraph"])


def test_a_rejected_object_of_a_replaced_version_is_not_sent_after_all(registry: Registry, clock: Clock) -> None:
    outbox(registry)
    registry.finish_delivery(claim(registry), DeliveryEvent.REJECTED, status=0xA900, error="data set does not match")
    registry.add_instance(received("1.2.3.1.9", at=clock.now), ours=False)
    with pytest.raises(UsageError, match="a newer version replaced the job of D1"):
        registry.retry("D1")
    assert registry.cancel("D1") == ["D1"]


def test_what_has_still_to_be_sent_is_counted_for_every_destination_that_rows_name(registry: Registry) -> None:
    outbox(registry, "pacs", "gone")
    registry.finish_delivery(claim(registry), DeliveryEvent.ACCEPTED, status=0)
    assert registry.unfinished_deliveries() == {"pacs": 2, "gone": 3}


def test_the_fourteen_days_begin_with_the_first_attempt_and_anew_with_an_operators_retry(
    registry: Registry, clock: Clock
) -> None:
    """A study may be held for weeks before anything of it is tried."""
    outbox(registry, kinds=("SC",))
    clock.forward(20 * 86400)
    first = claim(registry)
    assert first.tried_since is None
    began = clock.now
    registry.finish_delivery(first, DeliveryEvent.TRY_AGAIN, error="no answer", retry_after_s=60)
    clock.forward(86400)
    second = claim(registry)
    assert second.tried_since == began
    registry.finish_delivery(second, DeliveryEvent.HELD, error="given up")
    registry.retry("D1")
    assert claim(registry).tried_since is None
