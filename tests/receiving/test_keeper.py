"""Keeping one instance, in both orders: what is written when it is refused, broken off, met again, or when the disk fails."""

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicomnode.domain.errors import DatabaseUnreachable
from dicomnode.domain.received import Received
from dicomnode.domain.statuses import OUT_OF_RESOURCES, PROCESSING_FAILURE, SUCCESS
from dicomnode.receiving.handler import SenderGone, StoreRequest
from dicomnode.receiving.keeper import InstanceKeeper
from dicomnode.receiving.recovery import Recovered, recover
from dicomnode.registry import InstanceKeys, Registry
from dicomnode.storage import KnownFile, Store, data_set_offset, fsck, is_pool_file, is_settled
from dicomnode.storage.store import type_order
from tests.receiving.samples import CT, ELE, ct, encoded


class Keeping:
    """A keeper on a real store and a real registry."""

    def __init__(self, root: Path, order: type_order) -> None:
        self.root = root
        self.store = Store(root, reserve_bytes=0, order=order)
        self.registry = Registry(f"sqlite:///{root / 'dicomnode.db'}")
        self.store.prepare()
        self.registry.prepare()
        self.store.make_ahead()
        self.keeper = InstanceKeeper(self.store, self.registry, max_inflated_bytes=1 << 20)
        self.association = self.registry.association_opened("MODALITY", "NODE", "127.0.0.1")

    def request(self, image: Dataset) -> StoreRequest:
        sop_class, uid = str(image.SOPClassUID), str(image.SOPInstanceUID)
        return StoreRequest(sop_class, uid, sop_class, ELE, "MODALITY", "NODE", "127.0.0.1", self.association)

    def keep(self, image: Dataset, turns: Iterator[Sequence[memoryview]] | None = None) -> int:
        answer = self.keeper.store(self.request(image), turns_of(encoded(image)) if turns is None else turns)
        if answer.afterwards is not None:
            answer.afterwards()
        return answer.status

    def written(self) -> list[Path]:
        """Files that hold anything."""
        folders = [self.root / name for name in ("instances", "incoming", "quarantine")]
        return [path for folder in folders for path in folder.rglob("*") if path.is_file() and not is_pool_file(path)]

    def agrees(self) -> bool:
        known = (KnownFile(*one) for one in self.registry.known_files())
        return fsck(self.store, known, verify_digests=True).ok

    def close(self) -> None:
        self.store.close()
        self.registry.close()


@pytest.fixture(params=["parallel", "serial"])
def keeping(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Keeping]:
    one = Keeping(tmp_path, request.param)
    yield one
    one.close()


def turns_of(data_set: bytes, size: int = 700) -> Iterator[list[memoryview]]:
    """As reads of a socket bring it: some pieces a turn, and the memory is used again for the next turn."""
    buffer = bytearray(3 * size)
    for start in range(0, len(data_set), len(buffer)):
        part = data_set[start : start + len(buffer)]
        buffer[: len(part)] = part
        whole = memoryview(buffer)[: len(part)]
        yield [whole[at : at + size] for at in range(0, len(part), size)]
        buffer[:] = bytes(len(buffer))


def cut_off(data_set: bytes) -> Iterator[list[memoryview]]:
    yield from turns_of(data_set[: len(data_set) // 2])
    raise SenderGone


def test_a_data_set_in_pieces_is_kept_byte_for_byte_and_settled(keeping: Keeping) -> None:
    image = ct(Rows=128, Columns=128, PixelData=os.urandom(128 * 128 * 2))
    assert keeping.keep(image) == SUCCESS
    known = keeping.registry.instance(str(image.SOPInstanceUID))
    assert known is not None
    path = keeping.store.absolute(known.path)
    assert path.read_bytes()[data_set_offset(path) :] == encoded(image)
    assert is_settled(path)
    assert keeping.agrees()


def test_the_file_says_that_it_was_promised_before_the_sender_hears_it(keeping: Keeping) -> None:
    """A kill between the two, and a start on an older copy of the database: the file would be taken for a half one."""
    image = ct()
    assert keeping.keeper.store(keeping.request(image), turns_of(encoded(image))).success
    known = keeping.registry.instance(str(image.SOPInstanceUID))
    assert known is not None
    assert is_settled(keeping.store.absolute(known.path))


def test_a_sender_that_goes_away_in_mid_object_leaves_nothing(keeping: Keeping) -> None:
    image = ct(PixelData=bytes(512))
    with pytest.raises(SenderGone):
        keeping.keep(image, cut_off(encoded(image)))
    assert keeping.written() == []
    assert keeping.keep(image) == SUCCESS
    assert keeping.agrees()


def test_what_is_refused_on_its_header_is_not_read_to_its_end(keeping: Keeping) -> None:
    image, other = ct(), ct()
    turns = turns_of(encoded(image) + bytes(1 << 20))
    answer = keeping.keeper.store(keeping.request(other), turns)
    assert (answer.outcome, answer.success) == ("other_instance", False)
    assert next(turns, None) is not None
    assert keeping.written() == []


def test_a_full_disk_is_said_before_the_first_piece_is_asked_for(keeping: Keeping) -> None:
    keeping.store.reserve_bytes = 1 << 60
    turns = turns_of(encoded(image := ct()))
    assert keeping.keep(image, turns) == OUT_OF_RESOURCES
    assert next(turns) is not None
    assert keeping.written() == []


def test_a_disk_that_fails_its_sync_gives_a700_and_takes_the_row_back(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ct()
    sync = os.fdatasync

    def failing(descriptor: int) -> None:
        if "/dicomnode.db" not in os.readlink(f"/proc/self/fd/{descriptor}"):  # noqa: PTH115
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    with monkeypatch.context() as failure:
        failure.setattr(os, "fdatasync", failing)
        assert keeping.keep(image) == OUT_OF_RESOURCES
    assert keeping.registry.instance(str(image.SOPInstanceUID)) is None
    assert keeping.written() == []
    assert keeping.keep(image) == SUCCESS
    assert keeping.agrees()


def test_if_the_row_cannot_be_taken_back_the_file_stays_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping = Keeping(tmp_path, "parallel")  # the serial order has no row before the bytes are durable
    image = ct()

    class Away(Registry):
        def forget_instances(self, sop_instance_uids: Sequence[str]) -> int:  # noqa: ARG002
            raise DatabaseUnreachable("the database does not answer", "wait")

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failure:
        failure.setattr(os, "fdatasync", failing)
        failure.setattr(keeping.registry, "__class__", Away)
        assert keeping.keep(image) == PROCESSING_FAILURE
    assert keeping.agrees()
    assert keeping.keep(image) == SUCCESS  # the same again, and its bytes are synced before that is said
    assert keeping.agrees()
    keeping.close()


def test_a_row_that_fails_takes_its_file_with_it(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    image = ct()

    class Full(Registry):
        def add_instance(self, received: Received, *, ours: bool, replaces: bool = False) -> InstanceKeys:  # noqa: ARG002
            raise DatabaseUnreachable("the database does not answer", "wait")

    with monkeypatch.context() as failure:
        failure.setattr(keeping.registry, "__class__", Full)
        assert keeping.keep(image) == PROCESSING_FAILURE
    assert keeping.written() == []
    assert keeping.keep(image) == SUCCESS


def test_the_same_instance_at_once_is_kept_once_and_both_are_answered(keeping: Keeping) -> None:
    image = ct(Rows=256, Columns=256, PixelData=os.urandom(256 * 256 * 2))
    statuses: list[int] = []
    senders = [threading.Thread(target=lambda: statuses.append(keeping.keep(image))) for _ in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert statuses == [SUCCESS] * 8
    assert len(keeping.written()) == 1
    assert keeping.agrees()


def test_an_orderly_end_leaves_nothing_to_recover_and_nothing_made_ahead(keeping: Keeping) -> None:
    images = [ct() for _ in range(3)]
    assert [keeping.keep(image) for image in images] == [SUCCESS] * 3
    keeping.store.close()
    assert list((keeping.root / "open").iterdir()) == []
    assert len([path for path in (keeping.root / "instances").rglob("*") if path.is_file()]) == 3
    assert recover(keeping.store, keeping.registry) == Recovered()
    assert keeping.agrees()


def test_of_a_running_node_nothing_is_in_doubt_for_another_process(keeping: Keeping) -> None:
    image = ct()
    pulled, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[list[memoryview]]:
        yield from turns_of(encoded(image))
        pulled.set()
        go_on.wait(10)

    sender = threading.Thread(target=lambda: keeping.keep(image, slowly()))
    sender.start()
    assert pulled.wait(10)
    assert Store(keeping.root, reserve_bytes=0).left_open() == []
    assert keeping.agrees()  # bytes without a row, but in flight
    go_on.set()
    sender.join()
    assert keeping.registry.instance(str(image.SOPInstanceUID)) is not None


def test_only_storage_classes_of_their_context_are_taken(keeping: Keeping) -> None:
    image = ct()
    request = keeping.request(image)
    wrong = StoreRequest(CT, request.sop_instance_uid, "1.2.840.10008.5.1.4.1.1.4", ELE, "M", "N", "127.0.0.1", "")
    turns = turns_of(encoded(image))
    assert keeping.keeper.store(wrong, turns).outcome == "other_context"
    assert next(turns) is not None
