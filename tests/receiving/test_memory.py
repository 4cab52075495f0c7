"""What the `receive` role costs: memory while it receives, modules, and time to start. Weighed on the real process."""

import hashlib
import struct
import threading
from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.storage import Store
from tests.peers.waiting import wait_until
from tests.receiving.load import new_uid
from tests.receiving.raw import ASSOCIATE_AC, RELEASE_RP, RawSender, pdu, pdv, store_command
from tests.receiving.receive_process import ReceiveProcess
from tests.receiving.samples import ct, encoded

_FRAME = 512 * 512 * 2
_PIECE = bytes(range(256)) * 256  # 64 KB of pixels, sent again and again: the test holds no object either


class LongImage:
    """A multi-frame image that is made while it is sent: head, then pieces of pixels."""

    def __init__(self, frames: int) -> None:
        self.uid = new_uid()
        image = ct(SOPInstanceUID=self.uid, Rows=512, Columns=512, NumberOfFrames=frames, PixelData=b"")
        # The last four bytes are the length of the empty PixelData.
        self._head = encoded(image)[:-4] + struct.pack("<L", frames * _FRAME)
        self._pieces = frames * _FRAME // len(_PIECE)
        self._digest = hashlib.sha256(self._head)

    def send(self, sender: RawSender, *, half_way: threading.Barrier | None = None) -> None:
        """All PDUs of the C-STORE; `half_way` is waited for in the middle of the pixels."""
        sender.send(pdu(4, pdv(store_command(self.uid), command=True, last=True)))
        sender.send(pdu(4, pdv(self._head, command=False, last=False)))
        within, last = pdu(4, pdv(_PIECE, command=False, last=False)), pdu(4, pdv(_PIECE, command=False, last=True))
        for number in range(self._pieces):
            if half_way is not None and number == self._pieces // 2:
                half_way.wait(60)
            sender.send(last if number == self._pieces - 1 else within)
            self._digest.update(_PIECE)

    @property
    def sha256(self) -> str:
        """Of the data set, once it was sent."""
        return self._digest.hexdigest()


def warmed_up(node: ReceiveProcess) -> None:
    """One image through everything that is loaded or made at the first one."""
    with RawSender(node.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        LongImage(1).send(sender)
        assert sender.receive_status() == 0
        assert sender.release() == RELEASE_RP


def test_an_object_of_a_gigabyte_adds_at_most_20_mb(tmp_path: Path) -> None:
    with ReceiveProcess(tmp_path) as node:
        warmed_up(node)
        node.forget_peak()
        before = node.rss_mb()
        image = LongImage(frames=2048)
        with RawSender(node.port, timeout_s=120) as sender:
            assert sender.associate() == ASSOCIATE_AC
            image.send(sender)
            assert sender.receive_status() == 0
        assert node.peak_mb() - before <= 20
        with closing(node.registry()) as registry:
            known = registry.instance(image.uid)
            assert known is not None
            assert known.sha256 == image.sha256
            kept = Store(node.data_dir, reserve_bytes=0).absolute(known.path)
            assert kept.stat().st_size == known.size_bytes > 2048 * _FRAME
            kept.unlink()  # a gigabyte need not stay with the last runs that pytest keeps


def test_sixteen_senders_in_mid_object_keep_the_process_below_120_mb(tmp_path: Path) -> None:
    with ReceiveProcess(tmp_path) as node:
        statuses: list[int] = []
        half_way = threading.Barrier(16)

        def send() -> None:
            with RawSender(node.port, timeout_s=60) as sender:
                assert sender.associate() == ASSOCIATE_AC
                LongImage(16).send(sender, half_way=half_way)
                statuses.append(sender.receive_status())

        senders = [threading.Thread(target=send) for _ in range(16)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert statuses == [0] * 16
        assert node.peak_mb() <= 120


def test_ten_connections_after_another_for_each_sender_leave_memory_flat(tmp_path: Path) -> None:
    """Threads, buffers and connections to the database go when their association does."""

    def sixteen() -> None:
        senders = [threading.Thread(target=warmed_up, args=(node,)) for _ in range(16)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    with ReceiveProcess(tmp_path) as node:
        for _ in range(4):
            sixteen()
        before = node.rss_mb()
        for _ in range(10):
            sixteen()
        assert node.rss_mb() - before <= 5


@pytest.mark.parametrize("forbidden", ["torch", "monai", "highdicom", "imagecodecs", "fastapi", "alembic"])
def test_the_process_never_imports(used_modules: set[str], forbidden: str) -> None:
    assert "dicomnode.receiving" in used_modules  # the list is one of modules
    assert forbidden not in used_modules


@pytest.fixture(scope="module")
def used_modules(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """All that the process has ever imported, from its start to after its first images."""
    node = ReceiveProcess(tmp_path_factory.mktemp("node"), environment={"PYTHONPROFILEIMPORTTIME": "1"})
    with node:
        warmed_up(node)
    lines = (line.rpartition("|")[2].strip() for line in node.output().splitlines() if line.startswith("import time:"))
    return set(lines)


@pytest.mark.alone
def test_the_process_is_ready_within_a_second_and_a_half(tmp_path: Path) -> None:
    """The best of three; on a machine that does other things at once, the processor time that the process took itself."""
    node = ReceiveProcess(tmp_path)
    times = []
    for _ in range(3):
        wall_s = node.start()
        times.append(min(wall_s, node.start_cpu_s))
        with RawSender(node.port) as sender:
            assert wait_until(sender.associate, what="an association") == ASSOCIATE_AC
        node.kill()
    assert min(times) < 1.5
