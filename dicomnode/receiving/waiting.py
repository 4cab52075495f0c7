"""A connection that has not yet asked for an association: what it has sent, and how it is turned away."""

import socket
import ssl
import struct
from contextlib import suppress
from enum import Enum

from dicomnode.network.tls import TlsSocket

_PDU_HEADER = struct.Struct(">BxL")
_ASSOCIATE_RQ = 0x01  # PS3.8 9.3.2
_CALLING_AE = slice(26, 42)  # PS3.8 Table 9-11
_LONGEST_RQ = 1 << 18  # 128 contexts with 50 transfer syntaxes each take 200 KB
# A longer request is handed on when this much of it is there: a receive buffer need not hold it all unread.
_ENOUGH = 16_384
_HANDSHAKE_RECORD = 0x16  # RFC 8446 5.1: what a TLS client sends first
_DRAINED_AT_ONCE = 1 << 16

REJECT_BUSY = bytes((0x03, 0, 0, 0, 0, 4, 0, 2, 3, 2))  # PS3.8 9.3.4: rejected-transient, presentation, local-limit-exceeded
_ABORT = bytes((0x07, 0, 0, 0, 0, 4, 0, 0, 2, 0))  # PS3.8 9.3.8: service-provider, reason not specified
_PDU_TYPES = range(0x01, 0x08)


class Next(Enum):
    """What a waiting connection needs."""

    MORE = "more"  # bytes from the peer
    WRITE = "write"  # to be able to send (TLS)
    WORK = "work"  # cryptography: `step` in a worker thread
    READY = "ready"  # its association request is there
    NOTHING = "nothing"  # this begins no association request, or the peer has gone


class Waiting:
    """One connection, from `accept` to the hand-over or the end. Never blocks.

    since: monotonic. `step` may run in another thread; until it has returned nothing else is called.
    """

    def __init__(self, connection: socket.socket, address: str, source: str, since: float, tls: ssl.SSLContext | None) -> None:
        self.connection, self.address, self.source, self.since = connection, address, source, since
        self.descriptor = connection.fileno()
        self._tls = tls
        self._start = b""  # what it began with, as far as that was looked at
        self._read = b""  # through TLS, where nothing can be left in place
        self._handshaken = False
        if tls is None:
            self._wake_at(_PDU_HEADER.size)

    def look(self, *, ended: bool) -> Next:
        """What is there now. Raises OSError."""
        if isinstance(self.connection, TlsSocket):
            return Next.WORK
        start = self._start = _peek(self.connection, 1 if self._tls else _ENOUGH)
        if self._tls:
            if start and start[0] == _HANDSHAKE_RECORD:
                return Next.WORK
            return Next.NOTHING if start or ended else Next.MORE
        enough = _needed(start)
        if enough is None or (ended and len(start) < enough):
            return Next.NOTHING
        if len(start) < enough:
            self._wake_at(enough)
            return Next.MORE
        self._wake_at(1)
        return Next.READY

    def step(self) -> Next:
        """As far through TLS as what has come allows. Raises OSError (ssl.SSLError is one)."""
        try:
            return self._through_tls()
        except ssl.SSLWantReadError:
            return Next.MORE
        except ssl.SSLWantWriteError:
            return Next.WRITE

    @property
    def calling_ae(self) -> str:
        """Who asks, once the request is in."""
        start = self._read if self._tls else self._start
        return start[_CALLING_AE].decode("ascii", "replace").strip(" \0")

    def hand_over(self) -> socket.socket:
        """The connection, nothing of it read yet as far as its next reader sees."""
        if isinstance(self.connection, TlsSocket):
            self.connection.setblocking(True)
            self.connection.unread(self._read)
        # A peer that lost power or its cable is noticed, whatever the timeouts above say.
        for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
            self.connection.setsockopt(socket.IPPROTO_TCP, option, value)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return self.connection

    def turn_away(self, farewell: bytes = _ABORT) -> bool:
        """Say so, if it speaks DICOM, and stop sending. True: its side is still open (`drained`); False: all is over."""
        with suppress(OSError):
            if self._speaks_dicom():
                self.connection.send(farewell)  # the first bytes that we send: there is room for ten
                self.connection.shutdown(socket.SHUT_WR)
                return not self.drained()
        return False

    def drained(self) -> bool:
        """Read away what has come; True if that was all. Closing over unread input would reset: the farewell would be lost."""
        with suppress(BlockingIOError):
            return not socket.socket.recv(self.connection, _DRAINED_AT_ONCE, socket.MSG_DONTWAIT)  # below TLS, too
        return False

    def _through_tls(self) -> Next:
        if not isinstance(self.connection, TlsSocket):
            assert self._tls is not None  # noqa: S101 - only then is there a step
            self.connection.setblocking(False)
            self.connection = self._tls.wrap_socket(self.connection, server_side=True, do_handshake_on_connect=False)
        if not self._handshaken:
            self.connection.do_handshake()
            self._handshaken = True
        while (enough := _needed(self._read)) is not None and len(self._read) < enough:
            piece = self.connection.recv(enough - len(self._read))
            if not piece:
                return Next.NOTHING
            self._read += piece
        return Next.NOTHING if enough is None else Next.READY

    def _speaks_dicom(self) -> bool:
        """As far as it was looked at: to ask the kernel again would cost most where thousands are turned away."""
        start = self._read if self._tls else self._start
        return len(start) >= _PDU_HEADER.size and start[0] in _PDU_TYPES and start[1] == 0

    def _wake_at(self, count: int) -> None:
        """Let poll() report this connection only when `count` bytes are there, or it has ended."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _needed(start: bytes) -> int | None:
    """How many bytes must be there before the request is handed on; None if this begins no association request."""
    if len(start) < _PDU_HEADER.size:
        return _PDU_HEADER.size
    pdu_type, length = _PDU_HEADER.unpack_from(start)
    if pdu_type != _ASSOCIATE_RQ or length > _LONGEST_RQ:
        return None
    return min(_PDU_HEADER.size + int(length), _ENOUGH)


def _peek(connection: socket.socket, count: int) -> bytes:
    """What is there, up to `count` bytes, left in place. Raises OSError."""
    try:
        return connection.recv(count, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""
