"""The power goes while instances arrive: what was not synced is gone, what was acknowledged is not.

kill -9 leaves the kernel's page cache alone, so it cannot tell a synced file from an unsynced one. Here the file system itself
is cut off under load, and mounted again as after a restart of the machine.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.storage import KnownFile, Store, fsck
from tests.faults.disks import Disk, small_disk
from tests.faults.shims import compiled
from tests.peers.waiting import wait_until
from tests.receiving.load import Bookkeeping, Images, Senders, TheSameImages, read_back
from tests.receiving.receive_process import ReceiveProcess

ORDERS = ("serial", "parallel")
SIZES_MB = {"ext4": 64, "xfs": 320}  # xfs is not made smaller than 300 MB


@pytest.fixture(params=sorted(SIZES_MB))
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path, request.param, SIZES_MB[request.param]) as made:
        yield made


def cut_under_load(node: ReceiveProcess, disk: Disk, book: Bookkeeping, enough: int, images: Images | None = None) -> None:
    with Senders(node.port, book, images=images):
        target = len(book.acknowledged) + enough
        wait_until(lambda: len(book.acknowledged) >= target, every_s=0.001, what="acknowledgements")
        promised = dict(book.acknowledged)
        disk.cut_power()
        node.kill()
    # Without power nobody hears anything. Here the node lives on for milliseconds, and ext4 answers 0 to an fdatasync that was
    # under way, though it threw its transaction away (seen with strace): what was acknowledged in these does not count.
    book.acknowledged = promised
    disk.unmount()
    disk.mount()


@pytest.mark.parametrize("order", ORDERS)
def test_a_power_cut_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path, disk: Disk, order: str) -> None:
    node = ReceiveProcess(tmp_path / "node", data_dir=disk.folder / "data", settings={"storage": {"order": order}})
    book = Bookkeeping()
    for enough in (1, 25, 60):  # in a first folder's making, in the first pool, later
        node.start()
        cut_under_load(node, disk, book, enough)
    with node, closing(node.registry()) as registry:
        store = Store(node.data_dir, reserve_bytes=0)
        assert list(read_back(registry, store, book.acknowledged)) == []
        report = fsck(store, (KnownFile(*one) for one in registry.known_files()), verify_digests=True)
        assert report.ok, report
    disk.unmount()


@pytest.mark.parametrize("order", ORDERS)
def test_a_duplicate_is_only_acknowledged_when_the_first_one_is_durable(tmp_path: Path, order: str) -> None:
    with small_disk(tmp_path, "ext4", SIZES_MB["ext4"]) as disk:
        node = ReceiveProcess(tmp_path / "node", data_dir=disk.folder / "data", settings={"storage": {"order": order}})
        book = Bookkeeping()
        for enough in (5, 40):
            node.start()
            cut_under_load(node, disk, book, enough, images=TheSameImages(3))
        with node, closing(node.registry()) as registry:
            assert list(read_back(registry, Store(node.data_dir, reserve_bytes=0), book.acknowledged)) == []
        disk.unmount()


def test_without_syncs_the_same_power_cut_loses_images(tmp_path: Path) -> None:
    """The check of the check: were this node's syncs not needed, the test above would prove nothing."""
    library = compiled("no_sync", tmp_path)
    with small_disk(tmp_path, "ext4", SIZES_MB["ext4"]) as disk:
        node = ReceiveProcess(tmp_path / "node", data_dir=disk.folder / "data", environment={"LD_PRELOAD": str(library)})
        book = Bookkeeping()
        node.start()
        cut_under_load(node, disk, book, 25)
        present = len(list((node.data_dir / "instances").rglob("*.dcm"))) if node.data_dir.exists() else 0
        assert present < len(book.acknowledged)
        disk.unmount()
