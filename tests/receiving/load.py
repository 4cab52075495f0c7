"""Senders under which a node is killed, cut off from power or filled: raw sockets, small images, exact bookkeeping."""

import hashlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Self

from dicomnode.registry import Registry
from dicomnode.storage import Store
from tests.receiving.raw import ASSOCIATE_AC, RawSender, pdu, pdv, store_command
from tests.receiving.samples import ct, encoded

_UIDS = count(10**37)  # all of one length, so that they can be put into an encoded data set


def new_uid() -> str:
    """A UID of always the same even length, new in this session."""
    return f"2.25.{next(_UIDS)}0"


class Images:
    """One encoded image, given out with another SOP Instance UID each time: no encoder in the senders' way."""

    def __init__(self, pixel_bytes: int = 2048) -> None:
        self._uid = new_uid()
        rows = max(1, pixel_bytes // 64)
        image = ct(SOPInstanceUID=self._uid, Rows=rows, Columns=32, PixelData=bytes(rows * 64))
        self._template = encoded(image)
        assert self._template.count(self._uid.encode()) == 1

    def next(self) -> tuple[str, bytes]:
        """(SOP Instance UID, data set): every one has another digest."""
        uid = new_uid()
        return uid, self._template.replace(self._uid.encode(), uid.encode())


class TheSameImages(Images):
    """Gives the same images to every sender at about the same time: the retries of an impatient modality."""

    def __init__(self, senders: int) -> None:
        super().__init__()
        self._lock, self._turns, self._senders = threading.Lock(), 0, senders
        self._image = super().next()

    def next(self) -> tuple[str, bytes]:
        """A new one after so many turns as there are senders."""
        with self._lock:
            if self._turns == self._senders:
                self._turns, self._image = 0, super().next()
            self._turns += 1
            return self._image


@dataclass
class Bookkeeping:
    """What one or more senders sent and were told. acknowledged: SOP Instance UID → SHA-256 of the data set."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    data_sets: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)


def request(uid: str, data_set: bytes, message_id: int = 1) -> bytes:
    """A C-STORE-RQ with its data set, as PDUs."""
    command = pdu(4, pdv(store_command(uid, message_id=message_id), command=True, last=True))
    pieces = [data_set[start : start + 65_536] for start in range(0, len(data_set), 65_536)]
    return command + b"".join(
        pdu(4, pdv(piece, command=False, last=number == len(pieces))) for number, piece in enumerate(pieces, start=1)
    )


def send_one(sender: RawSender, images: Images, book: Bookkeeping) -> int:
    """One C-STORE on an association; its status, noted."""
    uid, data_set = images.next()
    digest = hashlib.sha256(data_set).hexdigest()
    book.data_sets[uid] = data_set
    sender.send(request(uid, data_set))
    status = sender.receive_status()
    book.statuses.append(status)
    if status == 0:
        book.acknowledged[uid] = digest
    return status


class Senders:
    """Threads that send, each on its own association, until the node is gone; `with` waits for their end."""

    def __init__(
        self, port: int, book: Bookkeeping, *, count: int = 3, pixel_bytes: int = 2048, images: Images | None = None
    ) -> None:
        self._port, self._book, self._images = port, book, images or Images(pixel_bytes)
        self._halt = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a sender hangs"

    def wait(self, timeout_s: float = 60.0) -> None:
        """Until all have ended by themselves, because the node is gone."""
        for thread in self._threads:
            thread.join(timeout_s)

    def _send(self) -> None:
        # Whatever way the connection ends, it ends because the node was killed: what counts stands in the book.
        with suppress(OSError, AssertionError, struct.error, socket.timeout), RawSender(self._port) as sender:
            if sender.associate() != ASSOCIATE_AC:
                return
            while not self._halt.is_set() and send_one(sender, self._images, self._book) in {0, 0xA700}:
                pass


def read_back(registry: Registry, store: Store, acknowledged: dict[str, str]) -> Iterator[str]:
    """What is wrong with what was acknowledged, one line each: no row, no file, other bytes."""
    for uid, digest in acknowledged.items():
        known = registry.instance(uid)
        if known is None:
            yield f"{uid}: no row"
        elif known.sha256 != digest:
            yield f"{uid}: the row has another digest"
        elif not store.verify(known.path, known.size_bytes, digest):
            yield f"{uid}: the file is gone or has other bytes"
