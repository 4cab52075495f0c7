"""The disk fills up while instances arrive, to the last byte; then somebody makes room. No restart in between."""

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dicomnode.domain.errors import DicomNodeError
from dicomnode.registry import Registry
from dicomnode.storage import KnownFile, Store, fsck
from dicomnode.storage.reserve import free_bytes
from tests.faults.disks import Disk, small_disk
from tests.peers.waiting import wait_until
from tests.receiving.load import Bookkeeping, Images, read_back, send_one
from tests.receiving.raw import ASSOCIATE_AC, RELEASE_RP, RawSender
from tests.receiving.receive_process import ReceiveProcess

ORDERS = ("serial", "parallel")
OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path, "ext4", 64) as made:
        yield made


@pytest.mark.parametrize("order", ORDERS)
def test_a_full_disk_is_a700_loses_nothing_and_is_over_when_there_is_room_again(tmp_path: Path, disk: Disk, order: str) -> None:
    node = ReceiveProcess(tmp_path / "node", data_dir=disk.folder / "data", settings={"storage": {"order": order}})
    book, images = Bookkeeping(), Images(pixel_bytes=1 << 20)
    with node, closing(node.registry()) as registry:
        reserve = node.data_dir / "reserve"
        assert reserve.exists()
        with RawSender(node.port) as sender:
            assert sender.associate() == ASSOCIATE_AC
            wait_until(lambda: send_one(sender, images, book) == OUT_OF_RESOURCES, every_s=0, what="A700")
            assert set(book.statuses) == {0, OUT_OF_RESOURCES}
            assert len(book.acknowledged) > 20
            assert reserve.exists(), "instances stop before they touch what is set aside"
            other = somebody_else_fills(disk)
            assert send_one(sender, images, book) == OUT_OF_RESOURCES
            wait_until(lambda: not reserve.exists(), timeout_s=10, what="the reserve to be given up")
            wait_until(lambda: can_write(registry), timeout_s=10, what="the database to write")
            assert send_one(sender, images, book) == OUT_OF_RESOURCES, "the reserve is the database's, not for images"
            other.unlink()
            remove_some(node, book, registry)
            wait_until(lambda: send_one(sender, images, book) == 0, every_s=0.2, what="images to be taken again")
            wait_until(reserve.exists, timeout_s=10, what="the reserve to be set aside again")
            assert sender.release() == RELEASE_RP
        store = Store(node.data_dir, reserve_bytes=0)
        assert list(read_back(registry, store, book.acknowledged)) == []
        report = fsck(store, (KnownFile(*one) for one in registry.known_files()), verify_digests=True)
        assert report.ok, report


@pytest.mark.parametrize("order", ORDERS)
def test_the_very_last_byte_taken_by_somebody_else_in_mid_stream_loses_nothing(tmp_path: Path, disk: Disk, order: str) -> None:
    """No check before it helps: the file's own write, the folder's or the database's meets the end of the disk."""
    node = ReceiveProcess(
        tmp_path / "node", data_dir=disk.folder / "data", settings={"storage": {"order": order, "reserve_file_mb": 0}}
    )
    book, images = Bookkeeping(), Images(pixel_bytes=1 << 18)
    with node, closing(node.registry()) as registry:
        with RawSender(node.port) as sender:
            assert sender.associate() == ASSOCIATE_AC
            assert send_one(sender, images, book) == 0
            other = somebody_else_fills(disk, leave_bytes=2 << 20)
            statuses = [send_one(sender, images, book) for _ in range(30)]
            assert statuses[0] == 0
            assert all(statuses[-5:])
            assert set(statuses) <= {0, OUT_OF_RESOURCES, 0x0110}
            other.unlink()
            wait_until(lambda: send_one(sender, images, book) == 0, every_s=0.2, what="images to be taken again")
        store = Store(node.data_dir, reserve_bytes=0)
        refused = set(book.data_sets) - set(book.acknowledged)
        assert [uid for uid in refused if registry.instance(uid) is not None] == [], "rows of what was not acknowledged"
        assert list(read_back(registry, store, book.acknowledged)) == []
        report = fsck(store, (KnownFile(*one) for one in registry.known_files()), verify_digests=True)
        assert report.ok, report


def somebody_else_fills(disk: Disk, leave_bytes: int = 0) -> Path:
    path = disk.folder / "somebody-else"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free_bytes(disk.folder) - leave_bytes))
        if not leave_bytes:
            with suppress(OSError):
                while file.write(bytes(4096)):
                    file.flush()
    return path


def can_write(registry: Registry) -> bool:
    """A small change, as `cancel` or the note of a delivery makes one."""
    try:
        registry.association_ended(registry.association_opened("X", "Y", "192.0.2.1"), "released")
    except DicomNodeError:
        return False
    return True


def remove_some(node: ReceiveProcess, book: Bookkeeping, registry: Registry) -> None:
    """An administrator purges ten images, rows and files."""
    gone = list(book.acknowledged)[:10]
    paths = [known.path for uid in gone if (known := registry.instance(uid)) is not None]
    registry.forget_instances(gone)
    for path in paths:
        (node.data_dir / path).unlink()
    for uid in gone:
        del book.acknowledged[uid]
