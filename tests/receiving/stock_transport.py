"""pynetdicom's socket and message assembly with the bounds that it lacks (known for 3.0.4; a test fails when it changes)."""

import math
import select
import socket
import time
from contextlib import suppress

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicomnode.receiving.limits import Limits

_PIECE = 1 << 18
_POLL_MS = 1
_LINGER_S = 1.0
_SLOWEST_BYTES_PER_S = 1000.0
_LONGEST_COMMAND = 1 << 16
_MOST_PIPELINED = 16


class PduTooLong(ValueError):
    """A PDU header announces more than we read. pynetdicom's loop answers an exception that is no OSError with A-ABORT."""


class BoundedSocket(AssociationSocket):  # type: ignore[misc]
    """The socket of one association. pynetdicom calls `ready`, `recv` and `send` from its DUL thread."""

    def __init__(self, association: Association, connection: socket.socket, limits: Limits) -> None:
        super().__init__(association, client_socket=connection)
        self._limits = limits
        self.last_heard = time.monotonic()
        self._be_patient_for(limits.association_deadline_s, slowest_bytes_per_s=math.inf)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _be_patient_for(self, seconds: float, *, slowest_bytes_per_s: float) -> None:
        """A peer that stops inside a PDU, or sends it byte by byte, must not hold the thread."""
        self._patience_s, self._slowest_bytes_per_s = seconds, slowest_bytes_per_s
        self.socket.settimeout(seconds)

    def request_is_in(self) -> None:
        """The A-ASSOCIATE-RQ was read: from now on the network timeout counts, and long PDUs get more time."""
        self._be_patient_for(self._limits.network_timeout_s, slowest_bytes_per_s=_SLOWEST_BYTES_PER_S)

    @property
    def ready(self) -> bool:
        """Whether bytes, or the end, can be read. Waits a moment: pynetdicom's loop sleeps otherwise and notices later."""
        connection = self.socket
        if connection is None or not self._is_connected:
            time.sleep(_POLL_MS / 1000)
            return False
        poll = select.poll()  # select() fails for descriptors above 1,023
        try:
            poll.register(connection, select.POLLIN)
            return bool(poll.poll(_POLL_MS))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # PS3.8 Table 9-10: transport connection closed
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or fewer where the connection ended. Raises OSError, PduTooLong before anything is allocated."""
        if nr_bytes > self._limits.max_pdu_bytes:
            raise PduTooLong("a PDU is longer than the node reads")
        connection, received = self.socket, bytearray()
        until = time.monotonic() + self._patience_s + nr_bytes / self._slowest_bytes_per_s
        while connection is not None and len(received) < nr_bytes:
            piece = connection.recv(min(nr_bytes - len(received), _PIECE))
            if not piece:
                break
            received += piece
            if time.monotonic() > until:
                raise TimeoutError("a PDU came in too slowly")
            # Senders that leave Nagle on wait for our acknowledgement; the option falls back after each use.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self.last_heard = time.monotonic()
        return received

    def close_gently(self) -> None:
        """Close, if that has not happened yet."""
        self._shutdown_socket()

    def _shutdown_socket(self) -> None:
        """Close so that the peer still reads our last PDU: closing over unread input would send a reset in its place."""
        connection = self.socket
        if connection is None:
            return
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            until = time.monotonic() + _LINGER_S
            while (left := until - time.monotonic()) > 0:
                connection.settimeout(left)
                if not connection.recv(_PIECE):
                    break
        connection.close()


class BoundedDimse(DIMSEServiceProvider):  # type: ignore[misc]
    """Assembles messages; ends the association of a peer whose message or queue of messages grows beyond the limits."""

    def __init__(self, association: Association, limits: Limits) -> None:
        super().__init__(association)
        self.message: DIMSEMessage | None = None
        self._limits = limits

    def receive_primitive(self, primitive: P_DATA) -> None:
        """One P-DATA primitive. Called from the DUL thread."""
        super().receive_primitive(primitive)
        message = self.message
        too_long = message is not None and (
            message.encoded_command_set.tell() > _LONGEST_COMMAND
            or (message.data_set is not None and message.data_set.tell() > self._limits.max_object_bytes)
        )
        if too_long or self.msg_queue.qsize() > _MOST_PIPELINED:
            self.message = None
            self.dul.event_queue.put("Evt19")  # PS3.8 Table 9-10: invalid PDU; sends A-ABORT
