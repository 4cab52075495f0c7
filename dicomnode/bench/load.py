"""The load generator, run as a file and a process of its own: a job as JSON on stdin, the outcome as JSON on stdout.

Images are encoded once into P-DATA-TF PDUs (PS3.8 9.3.5); between two images only the message ID and the counting digits of
the SOP Instance UID are patched, so that the sender costs as little as it can. Imports nothing but the standard library.
"""

import json
import socket
import struct
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RP = 2, 3, 4, 6
RELEASE_RQ = struct.pack(">BBLL", 5, 0, 4, 0)
LONGEST_PDU = 131072
FILLER_PERIOD = 256
_BLOCK_BYTES = 4 << 20
_STATUS = 0x0900
_MAXIMUM_LENGTH_ITEM = struct.pack(">BBH", 0x51, 0, 4)  # PS3.8 D.1.1
_SILENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to send where. `bare`: no DICOM, only the same bytes, each image answered with one byte (the floor)."""

    port: int
    associate_rq: str  # hexadecimal
    command_set: str  # hexadecimal
    head_file: str
    uid: str
    counter_digits: int
    filler_bytes: int  # of bytes 0 to 255 over and over, after the head
    images: int
    associations: int
    one_each: bool = False  # an association for every image
    bare: bool = False


@dataclass
class Outcome:
    """`seconds` from before the first connection to after the last answer and release; times of one image in ms."""

    seconds: float = 0.0
    images_ms: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    failures: list[str] = field(default_factory=list)
    announced_pdu: int = 0


class Rejected(Exception):
    """The peer refused the association."""


class Stream:
    """One image as it goes over the wire, ready to be patched."""

    def __init__(self, job: Job, announced: int) -> None:
        head, command = Path(job.head_file).read_bytes(), bytes.fromhex(job.command_set)
        fragment = (min(LONGEST_PDU, announced or LONGEST_PDU) - 6) & ~1
        data = bytearray(_pdu(command, command=True, last=True))
        for start in range(0, len(head), fragment):
            piece, ends = head[start : start + fragment], start + fragment >= len(head)
            data += _pdu(piece, command=False, last=ends and not job.filler_bytes)
        self.first = data
        self._digits = job.counter_digits
        self._counters = _places(data, job.uid.encode(), len(job.uid) - job.counter_digits)
        message_id = struct.pack("<HHL", 0x0000, 0x0110, 2)
        self._message_id = data.index(message_id) + len(message_id)
        self.block, self.blocks, self.end = _filler(job, fragment)

    def patch(self, index: int) -> None:
        """Makes it the image with this index."""
        digits = b"%0*d" % (self._digits, index)
        for place in self._counters:
            self.first[place : place + self._digits] = digits
        struct.pack_into("<H", self.first, self._message_id, index % 65535 + 1)

    def send(self, connection: socket.socket) -> None:
        """All of it."""
        connection.sendall(self.first)
        for _ in range(self.blocks):
            connection.sendall(self.block)
        if self.end:
            connection.sendall(self.end)

    @property
    def size_bytes(self) -> int:
        """On the wire."""
        return len(self.first) + self.blocks * len(self.block) + len(self.end)


def _pdu(data: bytes, *, command: bool, last: bool) -> bytes:
    value = struct.pack(">LBB", len(data) + 2, 1, command | last << 1) + data
    return struct.pack(">BBL", DATA, 0, len(value)) + value


def _places(data: bytearray, uid: bytes, offset: int) -> list[int]:
    places, found = [], data.find(uid)
    while found >= 0:
        places.append(found + offset)
        found = data.find(uid, found + 1)
    if len(places) < 2:
        raise ValueError("the SOP Instance UID stands in command and data set, each within one PDU")
    return places


def _filler(job: Job, fragment: int) -> tuple[bytes, int, bytes]:
    """A block of PDUs, how often it is sent, and the PDUs after it, the last of which ends the data set."""
    if not job.filler_bytes:
        return b"", 0, b""
    period = bytes(range(FILLER_PERIOD))
    whole = period * (fragment // FILLER_PERIOD)  # so each fragment begins where the period does
    full, rest = divmod(job.filler_bytes - 1, len(whole))  # the last fragment is never empty
    middle = _pdu(whole, command=False, last=False)
    per_block = max(1, _BLOCK_BYTES // len(middle))
    blocks, single = divmod(full, per_block)
    return middle * per_block, blocks, middle * single + _pdu(whole[: rest + 1], command=False, last=True)


class Connection:
    """One association, or one bare connection."""

    def __init__(self, job: Job) -> None:
        self._socket = socket.create_connection(("127.0.0.1", job.port), timeout=_SILENCE_S)
        self._socket.settimeout(None)  # a timeout would add a poll() to every call
        wait = struct.pack("ll", int(_SILENCE_S), 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._bare = job.bare

    def associate(self, request: bytes) -> int:
        """The largest PDU that the peer reads (0: any). Raises Rejected."""
        self._socket.sendall(request)
        kind, body = self._pdu()
        if kind == ASSOCIATE_RJ:
            raise Rejected
        if kind != ASSOCIATE_AC:
            raise ConnectionError(f"PDU type {kind} in answer to A-ASSOCIATE-RQ")
        at = body.find(_MAXIMUM_LENGTH_ITEM)
        return int(struct.unpack_from(">L", body, at + 4)[0]) if at >= 0 else 0

    def greet(self, size_bytes: int) -> None:
        """Tells a bare receiver how long images are."""
        self._socket.sendall(struct.pack(">Q", size_bytes))

    def store(self, stream: Stream) -> int:
        """One image; its status."""
        stream.send(self._socket)
        if self._bare:
            return 0 if self._socket.recv(1) == b"\1" else -1
        kind, body = self._pdu()
        if kind != DATA:
            raise ConnectionError(f"PDU type {kind} in answer to C-STORE-RQ")
        return status_of(body)

    def release(self) -> None:
        """The orderly end."""
        if not self._bare:
            self._socket.sendall(RELEASE_RQ)
            kind, _ = self._pdu()
            if kind != RELEASE_RP:
                raise ConnectionError(f"PDU type {kind} in answer to A-RELEASE-RQ")
        self.close()

    def close(self) -> None:
        """The end."""
        self._socket.close()

    def _pdu(self) -> tuple[int, bytes]:
        data = bytearray()
        while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError("the peer closed the connection")
            data += piece
        return data[0], bytes(data[6:])


def status_of(body: bytes) -> int:
    """The value of (0000,0900) in a P-DATA-TF with a whole command set in one PDV."""
    position = 6  # PDV length, context ID and message control header (PS3.8 9.3.5.1)
    while position + 8 <= len(body):
        _, element, length = struct.unpack_from("<HHL", body, position)
        if element == _STATUS:
            return int(struct.unpack_from("<H", body, position + 8)[0])
        position += 8 + length
    raise ConnectionError("a response without a status")


class Load:
    """A job under way: one thread an association."""

    def __init__(self, job: Job) -> None:
        self._job, self.outcome = job, Outcome()
        self._request = bytes.fromhex(job.associate_rq)
        self._lock = threading.Lock()
        self.outcome.announced_pdu = self._announced()

    def _announced(self) -> int:
        if self._job.bare:
            return LONGEST_PDU
        connection = Connection(self._job)
        announced = connection.associate(self._request)
        connection.release()
        return announced

    def run(self) -> Outcome:
        """Sends everything."""
        job, senders = self._job, []
        start = threading.Barrier(job.associations + 1)
        shares = [len(range(number, job.images, job.associations)) for number in range(job.associations)]
        for number, share in enumerate(shares):
            stream, first = Stream(job, self.outcome.announced_pdu), sum(shares[:number])
            sender = threading.Thread(target=self._sender, args=(start, stream, range(first, first + share)))
            sender.start()
            senders.append(sender)
        start.wait()
        began = time.perf_counter()
        for sender in senders:
            sender.join()
        self.outcome.seconds = time.perf_counter() - began
        return self.outcome

    def _sender(self, start: threading.Barrier, stream: Stream, indices: range) -> None:
        start.wait()
        images_ms: list[float] = []
        statuses: Counter[str] = Counter()
        turns = [range(index, index + 1) for index in indices] if self._job.one_each else [indices]
        try:
            for turn in turns:
                self._association(stream, turn, images_ms, statuses)
        except Rejected:
            with self._lock:
                self.outcome.rejected += 1
        except OSError as error:
            with self._lock:
                self.outcome.failures.append(f"{type(error).__name__}: {error}")
        with self._lock:
            self.outcome.images_ms += images_ms
            self.outcome.statuses += statuses

    def _association(self, stream: Stream, indices: range, images_ms: list[float], statuses: Counter[str]) -> None:
        connection = Connection(self._job)
        try:
            if self._job.bare:
                connection.greet(stream.size_bytes)
            else:
                connection.associate(self._request)
            for index in indices:
                stream.patch(index)
                began = time.perf_counter()
                status = connection.store(stream)
                images_ms.append((time.perf_counter() - began) * 1000)
                statuses[f"{status:04X}"] += 1
            connection.release()
        finally:
            connection.close()


def main() -> None:
    """One job."""
    asked: dict[str, Any] = json.load(sys.stdin)
    outcome = Load(Job(**asked)).run()
    json.dump(vars(outcome), sys.stdout)


if __name__ == "__main__":
    main()
