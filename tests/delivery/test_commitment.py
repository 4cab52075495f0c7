"""Storage commitment as proof: Orthanc takes responsibility, or says what is missing; who never answers is asked by query."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance, Verification

from dicomnode.domain.results import ResultKind
from dicomnode.domain.routes import Peer
from dicomnode.receiving import Receiver
from dicomnode.receiving.commitment import CommitmentService
from tests.delivery.outbox import QUICK, Outbox, dicom_destination
from tests.peers.dcmtk import StoreScp
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.waiting import free_port, wait_until

OUR_AE_TITLE = "DICOMNODE"
PATIENT = replace(QUICK, missing_after_s=600.0)


@pytest.fixture
def listener(outbox: Outbox) -> Iterator[Receiver]:
    """Our listener, as the receive role builds it for a node whose destination proves by commitment."""
    one = Receiver(
        outbox.store,
        outbox.registry,
        ae_title=OUR_AE_TITLE,
        port=free_port(),
        normalized=CommitmentService(outbox.registry.proofs, None, threading.Event()),
    )
    one.start()
    yield one
    one.stop()


def a_pacs(orthanc: Callable[..., Orthanc], listener: Receiver) -> Orthanc:
    return orthanc("pacs", ae_title="PACS", modalities={"node": Modality(OUR_AE_TITLE, listener.port)})


def test_the_archives_report_on_an_association_of_its_own_confirms_all_that_was_sent(
    outbox: Outbox, listener: Receiver, orthanc: Callable[..., Orthanc]
) -> None:
    pacs = a_pacs(orthanc, listener)
    outbox.finish_a_job("pacs")
    outbox.finish_a_job("pacs")
    deliverer = outbox.deliverer(dicom_destination("pacs", "PACS", pacs.dicom_port, proof="commitment"), policy=PATIENT)
    assert deliverer.run_once() == 6
    outbox.clock.advance(seconds=2)
    assert deliverer.prove_once() == 6
    wait_until(lambda: outbox.states() == ["confirmed"] * 6, what="the archive's report")
    assert {one["proof"] for one in outbox.deliveries()} == {
        "committed: the archive has taken responsibility for it (storage commitment)"
    }
    assert deliverer.prove_once() == 0


def test_what_the_archive_says_it_does_not_have_is_sent_again(
    outbox: Outbox, listener: Receiver, orthanc: Callable[..., Orthanc]
) -> None:
    pacs = a_pacs(orthanc, listener)
    results = outbox.finish_a_job("pacs", kinds=[ResultKind.SC])
    outbox.finish_a_job("pacs", kinds=[ResultKind.SC])
    deliverer = outbox.deliverer(dicom_destination("pacs", "PACS", pacs.dicom_port, proof="commitment"), policy=PATIENT)
    deliverer.run_once()
    pacs.delete(next(one for one in pacs.instances() if one.sop_instance_uid == results[0].sop_instance_uid))
    outbox.clock.advance(seconds=2)
    deliverer.prove_once()
    wait_until(lambda: outbox.states() == ["waiting", "confirmed"], what="the archive's report")
    assert "0112 (no such object)" in outbox.deliveries()[0]["last_error"]
    outbox.clock.advance(minutes=5)
    outbox.work_until(deliverer, "sent", "confirmed")
    outbox.clock.advance(seconds=2)
    deliverer.prove_once()
    wait_until(lambda: outbox.states() == ["confirmed", "confirmed"], what="the second report")
    assert pacs.instance_count() == 2


def test_an_archive_that_knows_us_not_gives_no_report_and_is_asked_by_query(
    outbox: Outbox, listener: Receiver, orthanc: Callable[..., Orthanc]
) -> None:
    pacs = orthanc("pacs", ae_title="PACS")  # our AE title is in none of its lists
    outbox.finish_a_job("pacs", kinds=[ResultKind.SC])
    deliverer = outbox.deliverer(dicom_destination("pacs", "PACS", pacs.dicom_port, proof="commitment"), policy=PATIENT)
    deliverer.run_once()
    outbox.clock.advance(seconds=2)
    deliverer.prove_once()
    outbox.clock.advance(minutes=11)
    outbox.work_until(deliverer, "confirmed")
    assert "found by C-FIND" in outbox.deliveries()[0]["proof"]
    assert "commitment" in outbox.deliveries()[0]["proof"]


def test_an_archive_without_commitment_and_query_stays_sent_with_the_reason(
    outbox: Outbox, store_scp: Callable[..., StoreScp]
) -> None:
    archive = store_scp(ae_title="ARCHIVE")  # storescp refuses both contexts
    outbox.finish_a_job("archive", kinds=[ResultKind.SC])
    deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port, proof="commitment"))
    deliverer.run_once()
    outbox.clock.advance(seconds=2)
    assert deliverer.prove_once() == 1
    assert outbox.states() == ["sent"]
    assert "no proof yet" in outbox.deliveries()[0]["last_error"]


def test_a_report_on_the_same_association_counts(outbox: Outbox) -> None:
    """A pynetdicom archive that reports before it answers the next request, on the association that asked."""
    (result,) = outbox.finish_a_job("archive", kinds=[ResultKind.SC])

    def asked(event: evt.Event) -> tuple[int, None]:
        said = Dataset()
        said.TransactionUID = event.action_information.TransactionUID
        said.ReferencedSOPSequence = event.action_information.ReferencedSOPSequence
        arguments = (said, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        threading.Timer(0.3, event.assoc.send_n_event_report, arguments).start()
        return 0x0000, None

    entity = AE("ARCHIVE")
    for sop_class in (StorageCommitmentPushModel, Verification, result.sop_class_uid):
        entity.add_supported_context(sop_class)
    port = free_port()
    handlers = [(evt.EVT_N_ACTION, asked), (evt.EVT_C_STORE, lambda _: 0x0000)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", port, proof="commitment"), policy=PATIENT)
        deliverer.run_once()
        outbox.clock.advance(seconds=2)
        deliverer.prove_once()
        wait_until(lambda: outbox.states() == ["confirmed"], what="the report")
    finally:
        server.shutdown()


@pytest.mark.parametrize(("has_it", "state"), [(True, "confirmed"), (False, "waiting")])
def test_a_report_on_a_later_association_that_we_open_counts(outbox: Outbox, has_it: bool, state: str) -> None:
    """An archive that does not call, and reports on what it was asked last time as soon as it is asked again."""
    (result,) = outbox.finish_a_job("archive", kinds=[ResultKind.SC])
    told: list[str] = []
    asked: list[Dataset] = []

    def report(association: Association, information: Dataset) -> None:
        said = Dataset()
        said.TransactionUID = information.TransactionUID
        references = list(information.ReferencedSOPSequence)
        for reference in () if has_it else references:
            reference.FailureReason = 0x0112
        setattr(said, "ReferencedSOPSequence" if has_it else "FailedSOPSequence", references)
        kind = 1 if has_it else 2
        association.send_n_event_report(said, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        told.append(str(said.TransactionUID))

    def on_action(event: evt.Event) -> tuple[int, None]:
        if asked:
            threading.Timer(0.2, report, (event.assoc, asked[-1])).start()
        asked.append(event.action_information)
        return 0x0000, None

    entity = AE("ARCHIVE")
    for sop_class in (StorageCommitmentPushModel, Verification, result.sop_class_uid):
        entity.add_supported_context(sop_class)
    port = free_port()
    handlers = [(evt.EVT_N_ACTION, on_action), (evt.EVT_C_STORE, lambda _: 0x0000)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    policy = replace(PATIENT, report_wait_s=1.0)
    try:
        deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", port, proof="commitment"), policy=policy)
        deliverer.run_once()
        outbox.clock.advance(seconds=2)
        assert deliverer.prove_once() == 1
        assert (outbox.states(), told) == (["sent"], [])
        outbox.clock.advance(seconds=policy.commitment_patience_s)
        assert deliverer.prove_once() == 1
        wait_until(lambda: outbox.states() == [state], what="the report")
    finally:
        server.shutdown()
    assert told == [str(asked[0].TransactionUID)]
    assert len(asked) == 2


def test_a_peer_that_may_not_commit_is_told_so(outbox: Outbox, listener: Receiver) -> None:
    from dicomnode import network
    from dicomnode.domain.errors import PeerUnreachable

    us = Peer("us", OUR_AE_TITLE, "127.0.0.1", listener.port, frozenset())
    request = network.CommitmentRequest(network.new_transaction_uid(), (("1.2.840.10008.5.1.4.1.1.2", "1.2.3"),))
    with pytest.raises(PeerUnreachable, match="0x0124"):
        network.ask_commitment(us, "SOMEBODY", request, lambda _: None, wait_s=0.0)
