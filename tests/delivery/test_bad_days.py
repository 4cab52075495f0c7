"""A PACS that is gone for days, a clock that jumps, one dead destination beside a living one, a warning that stays visible."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification
from structlog.testing import capture_logs

from dicomnode.delivery import DeliveryPolicy
from dicomnode.domain.results import ResultKind
from dicomnode.domain.states import DeliveryEvent
from tests.delivery.outbox import QUICK, SOP_CLASSES, Outbox, dicom_destination, folder_destination
from tests.peers.dcmtk import StoreScp
from tests.peers.line import Line
from tests.peers.orthanc import Orthanc
from tests.peers.waiting import free_port, wait_until


def test_a_pacs_that_is_gone_for_ten_days_gets_everything_once_when_it_is_back(
    outbox: Outbox, store_scp: Callable[..., StoreScp]
) -> None:
    archive = store_scp(ae_title="ARCHIVE")
    archive.stop()
    results = [*outbox.finish_a_job("archive"), *outbox.finish_a_job("archive")]
    deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", archive.port))
    for _ in range(10):
        assert deliverer.run_once() <= 1, "a dead archive costs one look at a time"
        outbox.clock.advance(days=1)
    assert set(outbox.states()) == {"waiting"}
    archive.start()
    outbox.work_until(deliverer, *["sent"] * 6)
    assert archive.sop_instance_uids() == [one.sop_instance_uid for one in results]
    assert archive.requests() == 6


def test_a_dead_destination_holds_nobody_else(outbox: Outbox, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("folder")
    outbox.finish_a_job("dead", "folder")
    outbox.finish_a_job("dead", "folder")
    outbox.deliverer(dicom_destination("dead", "DEAD", free_port()), folder_destination("folder", root)).run_once()
    assert outbox.states("folder") == ["sent"] * 6
    assert outbox.states("dead") == ["waiting"] * 6


@pytest.mark.parametrize("hours", [-30, 30])
def test_a_clock_that_jumps_while_an_object_is_sent_neither_loses_nor_doubles_it(
    outbox: Outbox, orthanc: Callable[..., Orthanc], hours: int
) -> None:
    pacs = orthanc("pacs", ae_title="PACS")
    (result,) = outbox.finish_a_job("pacs", kinds=[ResultKind.SC])
    claimed = outbox.registry.claim_delivery("a sender", "pacs", 60)
    assert claimed is not None
    outbox.clock.advance(hours=hours)
    outbox.registry.requeue_lost()
    late = outbox.states()
    if late == ["waiting"]:  # forward: its lease is over, and the one who comes back late changes nothing
        with pytest.raises(Exception, match="no longer"):
            outbox.registry.finish_delivery(claimed, DeliveryEvent.ACCEPTED, status=0)
    else:
        outbox.registry.finish_delivery(claimed, DeliveryEvent.TRY_AGAIN, retry_after_s=0.0)
    deliverer = outbox.deliverer(dicom_destination("pacs", "PACS", pacs.dicom_port, proof="find"))
    outbox.work_until(deliverer, "sent")
    outbox.clock.advance(hours=-hours)
    outbox.clock.advance(hours=abs(hours))
    outbox.work_until(deliverer, "confirmed")
    assert pacs.arrivals() == [result.sop_instance_uid]


def test_a_warning_counts_as_delivered_and_stays_visible_when_it_is_proved(outbox: Outbox) -> None:
    entity = AE("ARCHIVE")
    for sop_class in (*SOP_CLASSES.values(), Verification):
        entity.add_supported_context(sop_class)
    entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")
    port = free_port()
    listed = []

    def stored(event: evt.Event) -> int:
        listed.append(event.dataset)
        return 0xB000  # coercion of data elements

    def found(event: evt.Event) -> object:
        yield 0xFF00, event.identifier

    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, stored), (evt.EVT_C_FIND, found)]
    )
    try:
        outbox.finish_a_job("archive", kinds=[ResultKind.SC])
        deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", port, proof="find"), policy=DeliveryPolicy())
        deliverer.run_once()
        (delivery,) = outbox.deliveries()
        assert (delivery["state"], delivery["last_status"]) == ("sent", "B000")
        assert "delivered with a warning" in delivery["last_error"]
        outbox.clock.advance(seconds=2)
        wait_until(lambda: deliverer.prove_once() or outbox.states() == ["confirmed"], what="the proof")
        (delivery,) = outbox.deliveries()
        assert delivery["state"] == "confirmed"
        assert delivery["last_error"] == "delivered with a warning: B000 (coercion of data elements)"
    finally:
        server.shutdown()
    assert len(listed) == 1


def test_an_answer_that_is_lost_on_a_half_open_link_is_not_waited_for_and_the_object_is_there_once(
    outbox: Outbox, store_scp: Callable[..., StoreScp]
) -> None:
    """The object gets through and nothing comes back, no FIN either: the outcome is unknown, so the same UID goes again."""
    archive = store_scp(ae_title="ARCHIVE")
    (result,) = outbox.finish_a_job("archive", kinds=[ResultKind.SC])
    with Line(archive.port) as line:
        impatient = replace(QUICK, lease_s=2.0, first_pause_s=60.0, longest_pause_s=60.0)
        deliverer = outbox.deliverer(dicom_destination("archive", "ARCHIVE", line.port), policy=impatient)
        line.mute_at(result.sop_instance_uid.encode())
        assert deliverer.run_once() == 1
        (delivery,) = outbox.deliveries()
        assert (delivery["state"], delivery["attempts"]) == ("waiting", 1)
        line.revive()
        outbox.clock.advance(minutes=1)
        outbox.work_until(deliverer, "sent")
    assert archive.requests() == 2
    assert archive.sop_instance_uids() == [result.sop_instance_uid]


def test_while_the_database_is_away_nothing_is_sent_it_is_said_once_and_all_goes_out_when_it_is_back(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.finish_a_job("folder")
    (out := tmp_path / "out").mkdir()
    deliverer = outbox.deliverer(folder_destination("folder", out))
    outbox.registry.close()
    database = outbox.store.root / "outbox.db"
    whole = database.read_bytes()
    for left in database.parent.glob("outbox.db-*"):
        left.unlink()
    database.write_bytes(b"no database at all" * 100)
    looked: list[str] = []
    give_back = outbox.registry.give_back_deliveries

    def counted(*arguments: Any) -> Any:
        looked.append("")
        return give_back(*arguments)

    monkeypatch.setattr(outbox.registry, "give_back_deliveries", counted)
    stop = threading.Event()
    serving = threading.Thread(target=deliverer.loop, args=(stop,))
    with capture_logs() as logs:
        serving.start()
        try:
            wait_until(lambda: len(looked) > 4, what="five looks for the database")
            outbox.registry.close()
            database.write_bytes(whole)
            wait_until(lambda: outbox.states() == ["sent"] * 3, what="the results")
        finally:
            stop.set()
            serving.join()
    said = [line["event"] for line in logs if line["log_level"] in ("warning", "error")]
    assert said == ["nothing can be sent while the database is away"]
