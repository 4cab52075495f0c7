"""Association after association, whole or cut off: memory, threads and descriptors stay what they were."""

import struct
import time
from pathlib import Path

import pytest

from tests.peers.waiting import wait_until
from tests.receiving import raw
from tests.receiving.raw import ABORT, ASSOCIATE_AC, DATA, RELEASE_RP, RawSender, pdu, pdv, store_command
from tests.receiving.receive_process import ReceiveProcess
from tests.receiving.samples import ct, encoded

WARM_UP = 150  # until caches of answers, statements and pages are what they will be
MOST_GROWTH_MB = 6.0


REQUEST = raw.associate_rq()
IMAGE = ct()
DATA_SET = encoded(IMAGE)


def message(number: int) -> bytes:
    """A C-STORE of an image that is new by its UID."""
    uid = IMAGE.SOPInstanceUID[:-8] + f"{number + 10_000_000}"
    command = pdu(DATA, pdv(store_command(uid), command=True, last=True))
    return command + pdu(DATA, pdv(DATA_SET.replace(IMAGE.SOPInstanceUID.encode(), uid.encode()), command=False, last=True))


def one_image(port: int, number: int) -> None:
    """An association of its own for one new image."""
    with RawSender(port) as sender:
        sender.send(REQUEST)
        assert sender.receive()[0] == ASSOCIATE_AC
        sender.send(message(number))
        assert sender.receive_status() == 0
        assert sender.release() == RELEASE_RP


def one_aborted(port: int, number: int) -> None:
    """An association that ends somewhere in its message, with an A-ABORT or without a word."""
    whole = message(-1)
    with RawSender(port) as sender:
        sender.send(REQUEST)
        assert sender.receive()[0] == ASSOCIATE_AC
        sender.send(whole[: number * 97 % len(whole)])
        if number % 2:
            sender.send(pdu(ABORT, bytes(4)))


def open_things(node: ReceiveProcess) -> tuple[int, int]:
    """Threads and descriptors."""
    folder = Path(f"/proc/{node.pid}")
    return len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))


def flat_over(node: ReceiveProcess, count: int, *, most_growth_mb: float = MOST_GROWTH_MB) -> None:
    for number in range(WARM_UP):
        one_image(node.port, number)
        one_aborted(node.port, number)
    time.sleep(1)
    before_mb, (threads, descriptors) = node.rss_mb(), open_things(node)
    began = time.monotonic()
    for number in range(count):
        one_image(node.port, WARM_UP + number)
        if number % 100 == 0:
            one_aborted(node.port, number // 100)
    took = time.monotonic() - began
    for number in range(100):
        one_aborted(node.port, number)
    wait_until(lambda: open_things(node)[0] <= threads + 2, timeout_s=20, what="the threads to end")
    wait_until(lambda: open_things(node)[1] <= descriptors + 4, timeout_s=20, what="the descriptors to be closed")
    growth = node.rss_mb() - before_mb
    print(f"{count} associations in {took:.0f} s: memory {before_mb:.1f} MB {growth:+.1f} MB;")
    assert growth < most_growth_mb


def test_500_associations_leave_memory_threads_and_descriptors_flat(tmp_path: Path) -> None:
    with ReceiveProcess(tmp_path) as node:
        flat_over(node, 500)


@pytest.mark.soak
def test_10_000_associations_leave_memory_threads_and_descriptors_flat(tmp_path: Path) -> None:
    with ReceiveProcess(tmp_path) as node:
        flat_over(node, 10_000)


def with_abstract_syntax(uid: bytes) -> bytes:
    """The usual request with another abstract syntax (PS3.8 9.3.2.2.1)."""
    start = REQUEST.index(b"\x20\0", 74)
    (length,) = struct.unpack_from(">H", REQUEST, start + 2)
    old = REQUEST[start + 8 : start + 4 + length]
    (inner,) = struct.unpack_from(">H", old, 2)
    new = struct.pack(">BBH", 0x30, 0, len(uid)) + uid + old[4 + inner :]
    item = REQUEST[start : start + 2] + struct.pack(">H", 4 + len(new)) + REQUEST[start + 4 : start + 8] + new
    body = REQUEST[6:start] + item + REQUEST[start + 4 + length :]
    return struct.pack(">BBL", 1, 0, len(body)) + body


def test_what_libraries_warn_about_in_requests_is_not_kept(tmp_path: Path) -> None:
    """Python keeps each different text of a warning that it has shown; pydicom quotes what the peer sent, here 30 KB a time."""

    def ask(node: ReceiveProcess, first: int, count: int) -> None:
        for number in range(first, first + count):
            with RawSender(node.port) as sender:
                sender.send(with_abstract_syntax(f"1.2.{number}.".encode() * 3000))
                assert sender.receive()[0] in {0, ASSOCIATE_AC, ABORT}

    with ReceiveProcess(tmp_path) as node:
        ask(node, 1000, 200)
        before_mb = node.rss_mb()
        ask(node, 2000, 600)
        assert node.rss_mb() - before_mb < 5
        assert "a library warned" in node.output()
