"""A large study leaves in bounded memory, and images come in while it does: the receive role as a process of its own."""

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.archive.holding import Holding
from tests.archive.speaking import LEVEL, Asker, key, request
from tests.peers.processes import tool
from tests.receiving.raw import DATA, RawSender, pdu, pdv, store_command
from tests.receiving.receive_process import ReceiveProcess
from tests.receiving.samples import changed, ct, encoded

INSTANCES = 2000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiveProcess]:
    """It holds a study of 2,000 images of 64 KB; their bytes are those of one file."""
    folder = tmp_path_factory.mktemp("load")
    one = Holding(folder)
    image = ct(StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.1.1", SOPInstanceUID="1.2.1.1.1", Rows=181, Columns=181)
    image.PixelData = bytes(181 * 181 * 2)
    one.take(image)
    one.rows_like("1.2.1.1.1", INSTANCES - 1, same_series=True)
    one.stop()
    with ReceiveProcess(folder, data_dir=folder / "node") as process:
        yield process


class Stream:
    """A modality that sends one image after the other, as fast as it is answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered_s: list[float] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        image = ct(StudyInstanceUID="1.5.1", SeriesInstanceUID="1.5.1.1")
        with RawSender(self._port) as sender:
            assert sender.associate() == 2
            number = 0
            while not self._stopping.is_set():
                number += 1
                uid = f"1.5.1.1.{time.monotonic_ns()}.{number}"
                data = encoded(changed(image, SOPInstanceUID=uid))
                began = time.monotonic()
                sender.send(pdu(DATA, pdv(store_command(uid, message_id=number % 60000), command=True, last=True)))
                sender.send(pdu(DATA, pdv(data, command=False, last=True)))
                assert sender.receive_status() == 0
                self.answered_s.append(time.monotonic() - began)


def all_images(port: int) -> int:
    """How many images of the large study one C-FIND lists."""
    wanted = key(0x00080052, "CS", "IMAGE") + key(0x0020000D, "UI", "1.2.1\0") + key(0x0020000E, "UI", "1.2.1.1\0")
    with Asker(port) as asker:
        asker.ask(wanted)
        count = 0
        while (said := asker.heard()) is not None and said.status == 0xFF00:
            count += 1
        assert said is not None
        assert said.status == 0x0000
    return count


def test_two_thousand_images_are_listed_and_given_back_in_flat_memory(node: ReceiveProcess, tmp_path: Path) -> None:
    with Asker(node.port) as asker:  # what is loaded once
        asker.ask(LEVEL, head=request())
        assert asker.last() == 0
    node.forget_peak()
    before = node.rss_mb()
    assert all_images(node.port) == INSTANCES
    listing = node.peak_mb() - before
    command = [tool("getscu", "dcmtk"), "--ignore", "-S", "-aec", "DICOMNODE", "-aet", "VIEWER"]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.1"]
    done = subprocess.run([*command, *keys, "127.0.0.1", str(node.port)], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    giving = node.peak_mb() - before
    print(f"\npeak over {before:.0f} MB: {listing:.1f} MB listing, {giving:.1f} MB giving back")
    assert max(listing, giving) < 25  # the study has 130 MB


def test_images_come_in_while_large_studies_are_listed_and_given_back(node: ReceiveProcess) -> None:
    with Stream(node.port) as alone:
        time.sleep(1)
    stopping = threading.Event()

    def list_again_and_again() -> None:
        while not stopping.is_set():
            all_images(node.port)

    viewers = [threading.Thread(target=list_again_and_again) for _ in range(2)]
    for one in viewers:
        one.start()
    try:
        with Stream(node.port) as beside:
            time.sleep(3)
    finally:
        stopping.set()
        for one in viewers:
            one.join()
    quiet, busy = sorted(alone.answered_s), sorted(beside.answered_s)
    print(f"\nanswered: alone {len(quiet)}, median {quiet[len(quiet) // 2] * 1e3:.1f} ms; beside two viewers {len(busy)}, "
          f"median {busy[len(busy) // 2] * 1e3:.1f} ms, longest {busy[-1] * 1e3:.0f} ms")  # fmt: skip
    assert len(busy) >= 3
    assert busy[-1] < 10.0  # seconds, on a machine that does other things at once
