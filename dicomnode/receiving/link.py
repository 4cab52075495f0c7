"""The connection of one association: reads and writes with patience that ends, and a farewell that the peer sees."""

import select
import socket
import ssl
import struct
import time
from contextlib import suppress

from dicomnode.receiving.limits import Limits
from dicomnode.receiving.pdu import ABORTED_BY_USER, NOT_SPECIFIED, PDU_HEADER, UNEXPECTED_PDU, MustAbort, Pdu

_TIMEVAL = struct.Struct("ll")
# A thread that waits for its peer looks up this often, to see whether it must end. Timeouts of the kernel cost nothing
# where bytes come; Python's own add a poll() to each read.
_TICK_S = 0.5
_LONGEST_REQUEST = 1 << 18  # 128 contexts with 50 transfer syntaxes each take 200 KB
_LINGER_S = 1.0
_AT_REST_S = 1.0
_SILENT_S = 0.1
_STUCK_S = 5.0
_SLOWEST_BYTES_PER_S = 1000.0


class PeerGone(Exception):
    """The connection ended without a word. `code`: one word for logs."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Link:
    """Used by the association's own thread, except for `give_way`, `wind_up` and the numbers."""

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        self._connection, self._limits = connection, limits
        self._secure = isinstance(connection, ssl.SSLSocket)
        self._buffer = bytearray()
        self._memory = memoryview(self._buffer)
        self._waited_s, self._received = 0.0, 0  # since the last whole message
        self._must_end = self._winding_up = self._saying = False
        self.last_heard = self.last_said = time.monotonic()
        self.received_bytes = 0

    def open(self, buffer: bytearray) -> None:
        """Begin; `buffer` is what is read into. Raises PeerGone."""
        self._buffer, self._memory = buffer, memoryview(buffer)
        self.last_heard = time.monotonic()  # until now it was not listened to
        try:
            self._connection.setblocking(True)
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_TICK_S))
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self._limits.network_timeout_s))
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            raise PeerGone("connection_lost") from None

    def give_way(self) -> None:
        """End with A-ABORT at the next opportunity. From any thread."""
        self._must_end = True
        now = time.monotonic()
        if self._saying and now - self.last_said > _STUCK_S:  # it takes nothing, so it will not take a farewell either
            with suppress(OSError):
                socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
            return
        # Who sends is told at the next read. Not by closing our ear to him: Linux would answer his bytes with a reset, and the
        # A-ABORT be lost. Who is silent keeps the thread waiting, and this wakes it; through TLS, where the end of the stream
        # would break the way out too, the tick has to do.
        if not self._secure and now - self.last_heard > _SILENT_S:
            with suppress(OSError):
                socket.socket.shutdown(self._connection, socket.SHUT_RD)

    def wind_up(self) -> None:
        """End with A-ABORT when the peer has been silent for a moment between two messages. From any thread."""
        self._winding_up = True

    def read_request(self) -> bytes:
        """The A-ASSOCIATE-RQ, whole. Raises MustAbort, PeerGone."""
        until = time.monotonic() + self._limits.association_deadline_s
        header = self._exactly(PDU_HEADER.size, until)
        pdu_type, length = PDU_HEADER.unpack(header)
        if pdu_type != Pdu.ASSOCIATE_RQ or length > _LONGEST_REQUEST:
            raise MustAbort("no_association_request", UNEXPECTED_PDU)
        return header + self._exactly(length, until)

    def _exactly(self, count: int, until: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                piece = self._connection.recv(count - len(data))
            except (BlockingIOError, TimeoutError):
                piece = None
            except OSError:
                raise PeerGone("connection_lost") from None
            if piece == b"":
                raise PeerGone("connection_closed")
            if piece is not None:
                data += piece
                self._heard(len(piece), time.monotonic())
            if self._must_end or time.monotonic() > until:
                raise MustAbort("gave_way" if self._must_end else "association_deadline", NOT_SPECIFIED)
        return bytes(data)

    def read(self, *, at_rest: bool) -> memoryview:
        """What comes next; valid until the next call. at_rest: no message has begun. Raises MustAbort, PeerGone."""
        began = time.monotonic()
        while True:
            try:
                count = self._connection.recv_into(self._buffer)
            except (BlockingIOError, TimeoutError):
                count = -1
            except OSError:
                raise PeerGone("connection_lost") from None
            now = time.monotonic()
            if self._must_end:
                raise MustAbort("gave_way", ABORTED_BY_USER)
            # Only the peer's time counts, not ours: a disk that is slow to take an object must not cost its sender the link.
            waited_s = self._waited_s + now - began
            if waited_s > self._limits.network_timeout_s + self._received / _SLOWEST_BYTES_PER_S:
                raise MustAbort("too_slow" if self._received else "silent", NOT_SPECIFIED)
            if count > 0:
                self._waited_s = waited_s
                self._received += count
                self._heard(count, now)
                return self._memory[:count]
            if count == 0:
                raise PeerGone("connection_closed")
            if at_rest and self._winding_up and now - self.last_heard > _AT_REST_S:
                raise MustAbort("stopping", ABORTED_BY_USER)

    def _heard(self, count: int, now: float) -> None:
        self.last_heard = now
        self.received_bytes += count
        # Senders that leave Nagle on wait for our acknowledgement; the option falls back after each use.
        with suppress(OSError):
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def readable(self, wait_s: float) -> bool:
        """Whether `read` would find something, or the end, within this time. Raises MustAbort."""
        if self._must_end:
            raise MustAbort("gave_way", ABORTED_BY_USER)
        if isinstance(self._connection, ssl.SSLSocket) and self._connection.pending():
            return True
        poll = select.poll()  # no limit at 1,024 descriptors as select has
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(wait_s * 1000))

    def message_ended(self) -> None:
        """The peer's patience account begins anew."""
        self._waited_s, self._received = 0.0, 0

    def send(self, data: bytes | bytearray) -> None:
        """Send all of it, in one segment where it fits. Raises PeerGone."""
        self._saying = True
        try:
            if self._secure:  # there, one time stands for reading and writing
                self._connection.settimeout(self._limits.network_timeout_s)
                self._connection.sendall(data)
                self._connection.settimeout(_TICK_S)
            else:
                self._connection.sendall(data)
        except OSError:
            raise PeerGone("connection_lost") from None
        finally:
            self._saying = False
        self.last_said = time.monotonic()

    def close(self, farewell: bytes = b"") -> None:
        """Close so that the peer still reads our last PDU: closing over unread input would send a reset in its place."""
        with suppress(OSError, PeerGone):
            if farewell:
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_LINGER_S))
                self.send(farewell)
            self._connection.shutdown(socket.SHUT_WR)
            until = time.monotonic() + _LINGER_S
            while time.monotonic() < until:
                with suppress(BlockingIOError, TimeoutError):
                    # Below TLS: what is in it matters no more.
                    if not socket.socket.recv_into(self._connection, self._buffer):
                        break
        self._connection.close()


def _timeval(seconds: float) -> bytes:
    return _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
