"""Storage commitment as SCP (PS3.4 J): what we promise is there, is looked at again first, and is kept."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import build_role

from dicomnode.domain.routes import Peer
from dicomnode.network import COMMITMENT_SOP_CLASS, COMMITMENT_SOP_INSTANCE, associate
from dicomnode.network.contexts import UNCOMPRESSED
from dicomnode.receiving import Receiver
from dicomnode.receiving.commitment import CommitmentService, Committer
from dicomnode.registry import Registry
from dicomnode.storage import Store
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.waiting import free_port, wait_until
from tests.receiving.samples import changed, ct, saved

KEEP = timedelta(days=30)


class Scp:
    """A listener that commits itself, as the receive role builds it, and Orthanc as the modality that wants to delete."""

    def __init__(self, folder: Path, orthanc: Callable[..., Orthanc], may: frozenset[str]) -> None:
        self.port = free_port()
        self.modality = orthanc("modality", ae_title="MODALITY", modalities={"node": Modality("DICOMNODE", self.port)})
        self._peer = Peer("modality", "MODALITY", "127.0.0.1", self.modality.dicom_port, may)
        self.database = folder / "dicomnode.db"
        self.registry = Registry(f"sqlite:///{self.database}")
        self.registry.prepare()
        self.store = Store(folder / "data", reserve_bytes=0)
        self.start()

    def start(self) -> None:
        noted = threading.Event()
        self._receiver = Receiver(
            self.store,
            self.registry,
            ae_title="DICOMNODE",
            port=self.port,
            peers=[self._peer],
            normalized=CommitmentService(self.registry.proofs, self.registry.promises, noted),
        )
        self._receiver.start()
        peers = {"modality": self._peer}
        self._committer = Committer(self.registry.promises, self.registry.instance, self.store, peers, "DICOMNODE", KEEP, noted)
        self._committer.start()

    def stop(self) -> None:
        self._receiver.stop()
        self._committer.stop()

    def take(self, *datasets: Dataset, folder: Path) -> list[tuple[str, str]]:
        """The modality sends these; (class, instance) of each."""
        self.modality.upload([saved(one, folder) for one in datasets])
        self.modality.send("node")
        return [(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in datasets]

    def asked(self, *references: tuple[str, str]) -> str:
        """The path of a request in Orthanc."""
        wanted = [{"SOPClassUID": sop_class, "SOPInstanceUID": uid} for sop_class, uid in references]
        path: str = self.modality.rest("/modalities/node/storage-commitment", {"DicomInstances": wanted})["Path"]
        return path

    def answer(self, path: str) -> Any:
        """What the modality was told."""
        wait_until(lambda: self.modality.rest(path)["Status"] != "Pending", what="the report")
        return self.modality.rest(path)

    def failures(self, *references: tuple[str, str]) -> dict[str, int]:
        return {one["SOPInstanceUID"]: int(one["FailureReason"]) for one in self.answer(self.asked(*references))["Failures"]}

    def keep_until(self, uid: str) -> datetime | None:
        with closing(sqlite3.connect(self.database)) as rows:
            (text,) = rows.execute("SELECT keep_until FROM instances WHERE sop_instance_uid = ?", [uid]).fetchone()
        return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def scp(tmp_path: Path, orthanc: Callable[..., Orthanc]) -> Iterator[Scp]:
    one = Scp(tmp_path, orthanc, frozenset({"store", "commit"}))
    yield one
    one.stop()
    one.registry.close()


def test_what_is_there_is_committed_and_kept(scp: Scp, tmp_path: Path) -> None:
    references = scp.take(ct(), ct(), ct(), folder=tmp_path)
    assert [scp.keep_until(uid) for _, uid in references] == [None] * 3
    told = scp.answer(scp.asked(*references))
    assert told["Status"] == "Success"
    assert {one["SOPInstanceUID"] for one in told["Success"]} == {uid for _, uid in references}
    for _, uid in references:
        until = scp.keep_until(uid)
        assert until is not None
        assert abs(until - datetime.now(UTC) - KEEP) < timedelta(minutes=1)


def test_what_is_not_there_or_is_another_class_or_has_changed_on_disk_is_not_committed(scp: Scp, tmp_path: Path) -> None:
    good, damaged, shorter, other = scp.take(ct(), ct(), ct(), ct(), folder=tmp_path)
    for (_, uid), spoil in ((damaged, lambda old: old[:-1] + bytes([old[-1] ^ 1])), (shorter, lambda old: old[:-2])):
        known = scp.registry.instance(uid)
        assert known is not None
        path = scp.store.absolute(known.path)
        path.write_bytes(spoil(path.read_bytes()))
    mr = "1.2.840.10008.5.1.4.1.1.4"
    told = scp.failures(good, damaged, shorter, (mr, other[1]), (good[0], "1.2.3.4.5"))
    assert told == {damaged[1]: 0x0110, shorter[1]: 0x0110, other[1]: 0x0119, "1.2.3.4.5": 0x0112}


def test_an_instance_under_whose_uid_other_content_waits_is_not_committed(scp: Scp, tmp_path: Path) -> None:
    first = ct()
    (reference,) = scp.take(first, folder=tmp_path)
    pixels = bytearray(first.PixelData)
    pixels[0] ^= 1
    other = changed(first, PixelData=bytes(pixels))
    scp.modality.delete(scp.modality.instances()[0])
    scp.take(other, folder=tmp_path)
    assert scp.registry.promises.in_quarantine([reference[1]]) == {reference[1]}
    assert scp.failures(reference) == {reference[1]: 0x0110}


def test_a_request_that_was_taken_is_decided_and_told_after_a_restart_and_a_dead_modality(scp: Scp, tmp_path: Path) -> None:
    (reference,) = scp.take(ct(), folder=tmp_path)
    scp._committer.stop()  # the node falls between the answer and the decision
    path = scp.asked(reference)
    assert scp.modality.rest(path)["Status"] == "Pending"
    scp._receiver.stop()
    scp.start()
    assert scp.answer(path)["Status"] == "Success"
    # The modality knows first: that it was told is noted once its acknowledgement is in and the association is released.
    wait_until(lambda: rows(scp) == [], what="the note that the modality was told")


def test_a_report_that_the_modality_does_not_take_is_told_again(scp: Scp, tmp_path: Path) -> None:
    (reference,) = scp.take(ct(), folder=tmp_path)
    scp.modality.kill()
    scp.registry.promises.note("modality", "1.2.3.99", [reference])
    wait_until(lambda: attempts(scp) == [1], what="a first try")
    assert scp.keep_until(reference[1]) is not None, "decided, although nobody could be told"
    (waiting,) = rows(scp)
    assert "refused the connection" in waiting[1]


def rows(scp: Scp) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(scp.database)) as database:
        return database.execute("SELECT attempts, last_error FROM commitments WHERE reported_at IS NULL").fetchall()


def attempts(scp: Scp) -> list[int]:
    return [one for one, _ in rows(scp)]


def test_a_peer_that_may_not_commit_gets_no_promise(tmp_path: Path, orthanc: Callable[..., Orthanc]) -> None:
    one = Scp(tmp_path, orthanc, frozenset({"store"}))
    (reference,) = one.take(ct(), folder=tmp_path)
    with pytest.raises(RuntimeError, match="500"):
        one.asked(reference)
    assert rows(one) == []
    one.stop()
    one.registry.close()


def said_to(scp: Scp, message: str, information: Dataset, number: int) -> int:
    """The status that a modality's N-ACTION or N-EVENT-REPORT gets."""
    us = Peer("us", "DICOMNODE", "127.0.0.1", scp.port, frozenset())
    contexts = [(COMMITMENT_SOP_CLASS, UNCOMPRESSED)]
    roles = [build_role(COMMITMENT_SOP_CLASS, scu_role=True, scp_role=True)]
    with associate(us, "MODALITY", contexts, roles=roles) as association:
        send = association.send_n_action if message == "N-ACTION" else association.send_n_event_report
        answer, _ = send(information, number, COMMITMENT_SOP_CLASS, COMMITMENT_SOP_INSTANCE)
        return int(answer.Status)


def test_messages_that_say_nothing_usable_are_answered_and_change_nothing(scp: Scp) -> None:
    nothing, unknown = Dataset(), Dataset()
    nothing.PatientID = "no transaction"
    unknown.TransactionUID = "1.2.3.4"
    assert said_to(scp, "N-ACTION", nothing, 1) == 0x0115
    assert said_to(scp, "N-ACTION", unknown, 1) == 0x0115, "no instances"
    assert said_to(scp, "N-ACTION", unknown, 2) == 0x0123, "no such action"
    assert said_to(scp, "N-EVENT-REPORT", nothing, 1) == 0x0115
    assert said_to(scp, "N-EVENT-REPORT", unknown, 7) == 0x0113, "no such event"
    assert said_to(scp, "N-EVENT-REPORT", unknown, 1) == 0, "a transaction of yesterday: nothing to change, nothing to repeat"
    assert rows(scp) == []
