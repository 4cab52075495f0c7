"""A PACS whose network is gone in the middle of an object: no FIN, no reset, no acknowledgement, not even from its kernel."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.delivery import Deliverer, dicom
from dicomnode.domain.results import ResultKind
from tests.delivery.outbox import QUICK, Outbox, dicom_destination, folder_destination
from tests.peers.dcmtk import StoreScp
from tests.peers.waiting import wait_until
from tests.receiving.test_half_open import enter, switch

IMPATIENT = replace(QUICK, lease_s=4.0, first_pause_s=0.1, longest_pause_s=0.2)


@pytest.fixture
def inside(network: Sequence[str]) -> Iterator[ThreadPoolExecutor]:
    """What is called in here is called in that network, with all threads and processes that it starts."""
    with ThreadPoolExecutor(2, initializer=enter, initargs=(network,)) as pool:
        yield pool


def test_an_archive_that_loses_its_network_in_an_object_holds_nobody_and_has_the_object_once_when_it_is_back(
    outbox: Outbox, network: Sequence[str], inside: ThreadPoolExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "_STALLED_S", 1)  # seconds in place of a minute
    archive = StoreScp(tmp_path / "archive", ae_title="ARCHIVE", extra=["--fork"])
    (tmp_path / "out").mkdir()
    (result,) = outbox.finish_a_job("archive", "folder", kinds=[ResultKind.SC], pixel_bytes=4 << 20)
    dead = dicom_destination("archive", "ARCHIVE", archive.port)
    deliverer = outbox.deliverer(dead, folder_destination("folder", tmp_path / "out"), policy=IMPATIENT)
    inside.submit(lambda: archive.start(extra=["--sleep-during", "1"])).result()
    try:
        sending: Future[int] = inside.submit(deliverer.run_once)
        wait_until(lambda: archive.requests() == 1, every_s=0.01, what="the object to be on its way")
        switch(network, "down")
        assert sending.result(timeout=30) == 2
        assert outbox.states("folder") == ["sent"], "nobody else waits"
        (delivery,) = (one for one in outbox.deliveries() if one["destination"] == "archive")
        assert (delivery["state"], delivery["attempts"]) == ("waiting", 1), "what became of it is unknown: it goes again"
        switch(network, "up")
        archive.kill()
        inside.submit(archive.start).result()

        def again() -> bool:
            outbox.clock.advance(minutes=1)
            return inside.submit(_once, deliverer, outbox).result(timeout=60) == ["sent"]

        wait_until(again, timeout_s=60, what="the object to be sent again")
    finally:
        archive.kill()
    assert archive.sop_instance_uids() == [result.sop_instance_uid]
    assert archive.requests() == 2


def _once(deliverer: Deliverer, outbox: Outbox) -> list[str]:
    deliverer.run_once()
    return outbox.states("archive")
