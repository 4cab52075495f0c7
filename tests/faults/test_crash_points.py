"""The power goes before the 1st, 2nd, 3rd … system call that changes the disk: on an image's way in, and in a start's sweep."""

from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dicomnode.storage import KnownFile, Store, fsck
from tests.faults.disks import Disk, small_disk
from tests.faults.shims import compiled
from tests.receiving.load import Bookkeeping, Images, Senders, read_back, send_one
from tests.receiving.raw import ASSOCIATE_AC, RawSender
from tests.receiving.receive_process import ReceiveProcess

ORDERS = ("serial", "parallel")


class Walk:
    """One node on one disk, cut off again and again."""

    def __init__(self, folder: Path, disk: Disk, order: str) -> None:
        self.disk, self.control, self.book = disk, folder / "crash-at", Bookkeeping()
        self.node = ReceiveProcess(
            folder / "node",
            data_dir=disk.folder / "data",
            settings={"storage": {"order": order}},
            environment={"LD_PRELOAD": str(compiled("crash_at", folder)), "CRASH_AT": str(self.control)},
        )

    def cut_while_receiving(self, step: int, senders: int) -> None:
        """From a consistent start until the power goes."""
        self.node.start()
        self.must_be_consistent()
        self._arm(step)
        if senders > 1:
            with Senders(self.node.port, self.book, count=senders) as load:
                load.wait()
        else:
            with suppress(OSError, AssertionError), RawSender(self.node.port) as sender:
                assert sender.associate() == ASSOCIATE_AC
                images = Images()
                while send_one(sender, images, self.book) == 0:
                    pass
        self._power_returns()

    def cut_while_starting(self, step: int) -> bool:
        """A start that meets its end before it is ready; whether it did."""
        self._arm(step)
        try:
            self.node.start()
        except RuntimeError:
            return True
        finally:
            self._power_returns()
        return False

    def must_be_consistent(self) -> None:
        store = Store(self.node.data_dir, reserve_bytes=0)
        with closing(self.node.registry()) as registry:
            assert list(read_back(registry, store, self.book.acknowledged)) == []
            report = fsck(store, (KnownFile(*one) for one in registry.known_files()), verify_digests=True)
            assert report.ok, report

    def _arm(self, step: int) -> None:
        fresh = self.control.with_suffix(".new")
        fresh.write_text(f"{step} {self.disk.folder}")
        fresh.rename(self.control)

    def _power_returns(self) -> None:
        self.node.kill()
        self.control.unlink()
        self.disk.unmount()
        self.disk.mount()


def walk(folder: Path, order: str, steps: Iterable[int], *, senders: int) -> None:
    with small_disk(folder, "ext4", 64) as disk:
        one = Walk(folder, disk, order)
        for step in steps:
            one.cut_while_receiving(step, senders)
        one.node.start()
        one.must_be_consistent()
        one.node.kill()
        disk.unmount()


@pytest.mark.parametrize("order", ORDERS)
def test_a_power_cut_at_some_steps_of_an_image_loses_nothing(tmp_path: Path, order: str) -> None:
    """Some of the steps; `make soak` walks over all."""
    walk(tmp_path, order, (1, 2, 3, 5, 8, 13, 21), senders=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("senders", [1, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_a_power_cut_at_every_step_of_an_image_loses_nothing(tmp_path: Path, order: str, senders: int) -> None:
    walk(tmp_path, order, range(1, 80), senders=senders)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("order", ORDERS)
def test_a_power_cut_at_every_step_of_a_start_after_a_crash_loses_nothing(tmp_path: Path, order: str) -> None:
    """The sweep of a start is itself broken off; the next one goes on where that one was."""
    with small_disk(tmp_path, "ext4", 64) as disk:
        one = Walk(tmp_path, disk, order)
        step = 1
        while True:
            one.cut_while_receiving(25 + step % 7, senders=3)
            if not one.cut_while_starting(step):
                break
            step += 1 if step < 40 else 37  # then come hundreds of files made ahead, removed one after the other
        assert step > 3, "a start changes nothing on the disk?"
        one.node.start()
        one.must_be_consistent()
        one.node.kill()
        disk.unmount()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("order", ORDERS)
def test_a_power_cut_at_every_step_of_the_very_first_start_is_survived(tmp_path: Path, order: str) -> None:
    """Folders, marks and pools are half there: the next start finishes them."""
    step, cut = 1, True
    while cut:
        folder = tmp_path / str(step)
        folder.mkdir()
        with small_disk(folder, "ext4", 64) as disk:
            one = Walk(folder, disk, order)
            cut = one.cut_while_starting(step)
            one.node.start()
            with RawSender(one.node.port) as sender:
                assert sender.associate() == ASSOCIATE_AC
                images = Images()
                assert [send_one(sender, images, one.book) for _ in range(3)] == [0] * 3
            one.node.kill()
            one.node.start()
            one.must_be_consistent()
            one.node.kill()
            disk.unmount()
        step += 1
    assert step > 3, "a first start changes nothing on the disk?"
