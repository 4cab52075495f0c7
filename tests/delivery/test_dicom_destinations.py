"""Results on their way to real archives: Orthanc and DCMTK's storescp, alive, dead, rude and slow."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from dicomnode.delivery import DeliveryPolicy, dicom
from dicomnode.domain.results import ResultKind
from dicomnode.domain.states import DeliveryState
from tests.delivery.outbox import QUICK, Outbox, dicom_destination
from tests.peers.dcmtk import StoreScp
from tests.peers.orthanc import Orthanc
from tests.peers.waiting import free_port, wait_until

ALL_SENT = ["sent", "sent", "sent"]
ALL_CONFIRMED = ["confirmed", "confirmed", "confirmed"]


def test_a_jobs_results_reach_the_pacs_once_in_order_on_one_association_and_are_proved(
    outbox: Outbox, orthanc: Callable[..., Orthanc]
) -> None:
    pacs = orthanc("pacs", ae_title="PACS")
    results = outbox.finish_a_job("pacs")
    deliverer = outbox.deliverer(dicom_destination("pacs", "PACS", pacs.dicom_port, proof="find"))

    assert deliverer.run_once() == 3
    assert outbox.states() == ALL_SENT
    outbox.clock.advance(seconds=2)
    assert deliverer.prove_once() == 3

    assert outbox.states() == ALL_CONFIRMED
    assert all("C-FIND" in one["proof"] for one in outbox.deliveries())
    assert pacs.arrivals() == [result.sop_instance_uid for result in results]
    assert (deliverer.run_once(), deliverer.prove_once()) == (0, 0)
    assert pacs.instance_count() == 3


def test_seg_goes_before_sr_and_sc_on_one_association(outbox: Outbox, store_scp: Callable[..., StoreScp]) -> None:
    archive = store_scp(ae_title="ARCHIVE")
    results = outbox.finish_a_job("archive", kinds=(ResultKind.SEG, ResultKind.SR, ResultKind.SC))

    assert outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port)).run_once() == 3

    assert archive.sop_instance_uids() == [result.sop_instance_uid for result in results]
    assert archive.output().count("Association Acknowledged") == 1
    assert outbox.states() == ALL_SENT


def test_a_dead_pacs_gets_everything_once_it_is_back_even_over_a_restart_of_the_deliverer(
    outbox: Outbox, orthanc: Callable[..., Orthanc]
) -> None:
    pacs = orthanc("pacs", ae_title="PACS")
    destination = dicom_destination("pacs", "PACS", pacs.dicom_port, proof="find")
    pacs.kill()
    results = outbox.finish_a_job("pacs")

    before = outbox.deliverer(destination, policy=replace(QUICK, first_pause_s=60.0, longest_pause_s=60.0))
    assert before.run_once() == 1  # one knock shows that nobody is there
    assert before.run_once() == 0  # and the breaker leaves the door alone
    assert outbox.states() == ["waiting"] * 3
    assert "pacs" in outbox.deliveries()[0]["last_error"]

    pacs.start()
    after = outbox.deliverer(destination)
    outbox.work_until(after, *ALL_CONFIRMED)
    assert pacs.arrivals() == [result.sop_instance_uid for result in results]


def test_a_dead_destination_delays_no_other(outbox: Outbox, store_scp: Callable[..., StoreScp]) -> None:
    archive = store_scp(ae_title="ARCHIVE")
    for _ in range(3):
        outbox.finish_a_job("dead", "archive")
    deliverer = outbox.deliverer(
        dicom_destination("dead", "NOBODY", free_port()), dicom_destination("archive", "ARCHIVE", archive.port)
    )
    stop = threading.Event()
    loop = threading.Thread(target=deliverer.loop, args=(stop,))
    loop.start()
    try:
        wait_until(lambda: outbox.states("archive") == ["sent"] * 9, what="nine objects in the living archive")
        wait_until(lambda: outbox.deliveries()[0]["attempts"] >= 2, what="two knocks at the dead one")
    finally:
        stop.set()
        loop.join(20)
    assert not loop.is_alive()
    assert outbox.states("dead") == ["waiting"] * 9
    assert archive.requests() == 9


@pytest.mark.parametrize("rudeness", ["--abort-during", "--abort-after"])
def test_a_link_cut_in_the_middle_of_an_object_leaves_the_outcome_open_and_the_object_goes_again_under_its_uid(
    outbox: Outbox, store_scp: Callable[..., StoreScp], rudeness: str
) -> None:
    archive = store_scp(ae_title="ARCHIVE", first_start=[rudeness])
    results = outbox.finish_a_job("archive", pixel_bytes=2_000_000)
    deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port))
    assert deliverer.run_once() >= 1
    assert outbox.states() == ["waiting"] * 3
    assert "no status" in outbox.deliveries()[0]["last_error"]
    cut = archive.requests()
    assert cut >= 1
    archive.kill()

    archive.start()
    outbox.work_until(deliverer, *ALL_SENT)
    assert sorted(archive.sop_instance_uids()) == sorted(result.sop_instance_uid for result in results)
    assert archive.requests() == cut + 3


def test_killing_the_pacs_while_it_receives_costs_nothing_and_doubles_nothing(
    outbox: Outbox, store_scp: Callable[..., StoreScp]
) -> None:
    archive = store_scp(ae_title="ARCHIVE", first_start=["--sleep-during", "1"])
    outbox.finish_a_job("archive", pixel_bytes=8_000_000)
    deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port))
    sending = threading.Thread(target=deliverer.run_once)
    sending.start()
    wait_until(lambda: archive.requests() == 1, what="the first object to be on the wire")
    archive.kill()
    sending.join(30)
    assert outbox.states() == ["waiting"] * 3

    archive.start()
    outbox.work_until(deliverer, *ALL_SENT)
    assert len(archive.files()) == 3


def test_an_association_that_is_refused_is_tried_again_until_it_is_not(
    outbox: Outbox, store_scp: Callable[..., StoreScp]
) -> None:
    archive = store_scp(ae_title="ARCHIVE", first_start=["--refuse"])
    outbox.finish_a_job("archive")
    deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port))
    assert deliverer.run_once() == 1
    assert outbox.states() == ["waiting"] * 3
    archive.stop()
    archive.start()
    outbox.work_until(deliverer, *ALL_SENT)


def test_an_archive_that_takes_no_segmentations_gets_neither_seg_nor_the_sr_that_names_it_but_the_captures(
    outbox: Outbox, store_scp: Callable[..., StoreScp]
) -> None:
    no_seg = ["1.2.840.10008.5.1.4.1.1.7.4", "1.2.840.10008.5.1.4.1.1.88.33"]
    archive = store_scp(ae_title="ARCHIVE", accepted_sop_classes=no_seg)
    *_, capture = outbox.finish_a_job("archive")
    deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port))

    deliverer.run_once()

    seg, sr, sc = outbox.deliveries()
    assert (seg["state"], sr["state"], sc["state"]) == ("rejected", "cancelled", "sent")
    assert "takes no SEG" in seg["last_error"]
    assert "names a SEG" in sr["last_error"]
    assert archive.sop_instance_uids() == [capture.sop_instance_uid]


def test_an_object_that_contradicts_its_class_is_rejected_with_the_status_of_the_archive(
    outbox: Outbox, store_scp: Callable[..., StoreScp]
) -> None:
    archive = store_scp(ae_title="ARCHIVE")

    def lie(dataset: object) -> None:
        # storescp compares the command's instance (from the file meta) with the data set's: A900.
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"  # type: ignore[attr-defined]

    outbox.finish_a_job("archive", kinds=[ResultKind.SC], spoil=lie)
    outbox.finish_a_job("archive", kinds=[ResultKind.SC])
    outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port)).run_once()

    assert outbox.states() == ["rejected", "sent"]
    assert "A900" in outbox.deliveries()[0]["last_error"]


def test_a_full_archive_is_tried_again_and_held_for_an_operator_after_two_weeks(
    outbox: Outbox, store_scp: Callable[..., StoreScp]
) -> None:
    archive = store_scp(ae_title="ARCHIVE")
    archive.received.rmdir()  # storescp cannot write: A700, out of resources
    outbox.finish_a_job("archive", kinds=[ResultKind.SC])
    deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port))

    deliverer.run_once()
    (delivery,) = outbox.deliveries()
    assert delivery["state"] == "waiting"
    assert "A700" in delivery["last_error"]

    outbox.clock.advance(days=14)
    deliverer.run_once()
    (delivery,) = outbox.deliveries()
    assert delivery["state"] == "held"
    assert "given up after 14 days" in delivery["last_error"]

    archive.received.mkdir()
    assert outbox.registry.retry(delivery["id"]) == [delivery["id"]]
    outbox.work_until(deliverer, "sent")


def test_proof_that_says_missing_sends_the_object_again(outbox: Outbox, orthanc: Callable[..., Orthanc]) -> None:
    pacs = orthanc("pacs", ae_title="PACS")
    (result,) = outbox.finish_a_job("pacs", kinds=[ResultKind.SC])
    pacs_destination = dicom_destination("pacs", "PACS", pacs.dicom_port, proof="find")
    deliverer = outbox.deliverer(pacs_destination, policy=DeliveryPolicy())
    deliverer.run_once()
    pacs.delete(pacs.instances()[0])

    outbox.clock.advance(seconds=2)
    assert deliverer.prove_once() == 1
    assert outbox.states() == ["sent"]  # an archive may index late: not at once
    outbox.clock.advance(minutes=11)
    assert deliverer.prove_once() == 1
    assert outbox.states() == ["waiting"]
    assert "not found by C-FIND" in outbox.deliveries()[0]["last_error"]

    outbox.clock.advance(minutes=15)
    outbox.work_until(deliverer, "confirmed")
    assert [instance.sop_instance_uid for instance in pacs.instances()] == [result.sop_instance_uid]


@pytest.mark.parametrize("rescue", ["the lease ends", "the node restarts"])
def test_a_sender_that_died_while_sending_is_replaced_and_the_pacs_has_the_object_once(
    outbox: Outbox, orthanc: Callable[..., Orthanc], rescue: str
) -> None:
    pacs = orthanc("pacs", ae_title="PACS")
    destination = dicom_destination("pacs", "PACS", pacs.dicom_port)
    (result,) = outbox.finish_a_job("pacs", kinds=[ResultKind.SC])
    # What a kill -9 between the C-STORE and its row leaves: sent, and still SENDING.
    claimed = outbox.registry.claim_delivery("the dead sender", "pacs", QUICK.lease_s)
    assert claimed is not None
    assert claimed.state is DeliveryState.SENDING
    pacs.upload([outbox.store.absolute(result.path)])

    after = outbox.deliverer(destination, name="its successor")
    assert after.run_once() == 0
    if rescue == "the node restarts":
        outbox.registry.node_restarted()
    else:
        outbox.clock.advance(seconds=QUICK.lease_s + 1)
        outbox.registry.requeue_lost()
    assert after.run_once() == 1

    assert outbox.states() == ["sent"]
    assert [instance.sop_instance_uid for instance in pacs.instances()] == [result.sop_instance_uid]


# Linux buffers up to 37 MB on both ends of a connection: of the small object nothing waits on our side, of the large one much.
@pytest.mark.parametrize("pixel_bytes", [3_000_000, 45_000_000])
def test_a_peer_that_hangs_in_the_middle_of_an_object_is_given_up_and_gets_it_again(
    outbox: Outbox, store_scp: Callable[..., StoreScp], monkeypatch: pytest.MonkeyPatch, pixel_bytes: int
) -> None:
    monkeypatch.setattr(dicom, "_STALLED_S", 1)
    archive = store_scp(ae_title="ARCHIVE", first_start=["--sleep-during", "1"])
    outbox.finish_a_job("archive", pixel_bytes=pixel_bytes, kinds=[ResultKind.SC])
    policy = replace(QUICK, lease_s=3.0)
    deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port), policy=policy)
    sending = threading.Thread(target=deliverer.run_once)
    sending.start()
    wait_until(lambda: archive.requests() == 1, what="the object to be on the wire")
    archive.freeze()
    sending.join(60)
    assert not sending.is_alive()
    assert outbox.states() == ["waiting"]

    archive.kill()
    archive.start()
    outbox.work_until(deliverer, "sent")
