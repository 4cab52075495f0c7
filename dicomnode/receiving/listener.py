"""Accepts connections and keeps those apart that do not (yet) ask for an association.

One thread polls all of them. A connection gets threads and buffers only when the kernel holds its A-ASSOCIATE-RQ: who sends
nothing, two bytes, HTTP or a TLS greeting costs one descriptor until the deadline, or until others need the place.
"""

import select
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

import structlog

from dicomnode.receiving.limits import Limits

_log = structlog.get_logger("receiving")

type_deliver = Callable[[socket.socket, str], None]

_PDU_HEADER = struct.Struct(">BxL")
_ASSOCIATE_RQ = 0x01  # PS3.8 9.3.2
_LONGEST_RQ = 1 << 20  # 128 contexts with 50 transfer syntaxes each take 200 KB
# A longer request is handed on when this much of it is there: a receive buffer need not hold it all unread.
_ENOUGH = 16_384
_TICK_S = 0.5
_ENDED = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class _Waiting:
    """A connection without an association request."""

    def __init__(self, connection: socket.socket, address: str, deadline: float) -> None:
        self.connection, self.address, self.deadline = connection, address, deadline
        self.wake_at(_PDU_HEADER.size)

    def wake_at(self, count: int) -> None:
        """Let poll() report this connection only when `count` bytes are there, or it has ended."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def peek(self, count: int) -> bytes:
        """What is there, up to `count` bytes, left in place."""
        try:
            return self.connection.recv(count, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""


def _needed(start: bytes) -> int | None:
    """How many bytes must be there before the request is handed on; None if this begins no association request."""
    if len(start) < _PDU_HEADER.size:
        return _PDU_HEADER.size
    pdu_type, length = _PDU_HEADER.unpack_from(start)
    if pdu_type != _ASSOCIATE_RQ or length > _LONGEST_RQ:
        return None
    return min(_PDU_HEADER.size + int(length), _ENOUGH)


class Listener:
    """`deliver(connection, address)` is called, in the listener's thread, for each connection that asks for an association."""

    def __init__(self, listening: socket.socket, admits: Callable[[str], bool], deliver: type_deliver, limits: Limits) -> None:
        self._listening = listening
        self._admits = admits
        self._deliver = deliver
        self._limits = limits
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()  # by descriptor, oldest first
        self._poll = select.poll()  # no limit at 1,024 descriptors as select has
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dicom-listener", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._listening.setblocking(False)
        self._poll.register(self._listening, select.POLLIN)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether connections are still accepted."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Accept nothing more and close what waits."""
        self._stopping.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes poll()
        self._thread.join()
        self._listening.close()
        for one in tuple(self._waiting.values()):
            self._drop(one)

    def _run(self) -> None:
        while not self._stopping.is_set():
            ready = dict(self._poll.poll(_TICK_S * 1000))
            # Accepted last: a new connection may get the descriptor of one that is dropped in this turn.
            knocking = ready.pop(self._listening.fileno(), None)
            for descriptor, events in ready.items():
                if descriptor in self._waiting:
                    self._look(self._waiting[descriptor], ended=bool(events & _ENDED))
            if knocking is not None and not self._stopping.is_set():
                self._accept()
            self._drop_late()

    def _accept(self) -> None:
        try:
            connection, (address, *_) = self._listening.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors left: make room, the next turn of the loop tries again
            _log.error("a connection could not be accepted", error=type(error).__name__)
            if self._waiting:
                self._drop(next(iter(self._waiting.values())))
            else:
                time.sleep(0.05)
            return
        if not self._admits(address):
            _log.warning("a connection from an unknown address was closed", address=address)
            connection.close()
            return
        with suppress(OSError):  # reset by the peer already
            one = _Waiting(connection, address, time.monotonic() + self._limits.association_deadline_s)
            self._waiting[connection.fileno()] = one
            self._poll.register(connection, select.POLLIN | select.POLLRDHUP)
            if len(self._waiting) > self._limits.max_waiting:
                self._drop(next(iter(self._waiting.values())))

    def _look(self, one: _Waiting, *, ended: bool) -> None:
        """Enough bytes came, or the end."""
        try:
            start = one.peek(_ENOUGH)
            enough = _needed(start)
            if enough is None or (ended and len(start) < enough):
                self._drop(one)
                return
            if len(start) < enough:
                one.wake_at(enough)
                return
            one.wake_at(1)
            self._forget(one)
            self._deliver(one.connection, one.address)
        except OSError:
            self._drop(one)
        except Exception as error:  # noqa: BLE001 - boundary: one connection's trouble is not the listener's
            _log.error("an association could not be started", error=type(error).__name__)
            self._drop(one)

    def _drop_late(self) -> None:
        now = time.monotonic()
        while self._waiting:
            oldest = next(iter(self._waiting.values()))
            if oldest.deadline > now:
                return
            self._drop(oldest)

    def _forget(self, one: _Waiting) -> None:
        descriptor = one.connection.fileno()
        if self._waiting.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def _drop(self, one: _Waiting) -> None:
        self._forget(one)
        one.connection.close()
