"""`Receiver`: the listener of one node, wired from store, ledger and settings."""

import errno
import socket
import ssl
from collections.abc import Sequence

import structlog

from dicomnode.domain.clock import type_clock, utc_now
from dicomnode.domain.errors import SettingsError
from dicomnode.domain.routes import Peer
from dicomnode.domain.transfer_syntaxes import preferred_first
from dicomnode.network import STORAGE_SOP_CLASSES, Permissions
from dicomnode.network.dimse import QueryHandler
from dicomnode.receiving.acceptor import Acceptor
from dicomnode.receiving.ends import Ends
from dicomnode.receiving.keeper import InstanceKeeper
from dicomnode.receiving.ledger import InstanceLedger
from dicomnode.receiving.limits import DEFAULT_LIMITS, Limits
from dicomnode.receiving.listener import Listener
from dicomnode.receiving.normalized import NormalizedHandler
from dicomnode.receiving.recovery import recover
from dicomnode.storage import Store

_log = structlog.get_logger("receiving")
_BACKLOG = 128
_REMEDIES = {
    errno.EADDRINUSE: ("is in use", "stop the program that listens there, or set dicom.port to another port"),
    errno.EACCES: ("may not be opened by this user", "set dicom.port to a port above 1023, such as 11112"),
    errno.EADDRNOTAVAIL: ("is not on an address of this machine", "set dicom.host to one of its addresses"),
}


class Receiver:
    """Receives instances by C-STORE and answers C-ECHO, from `start` to `stop`."""

    def __init__(
        self,
        store: Store,
        ledger: InstanceLedger,
        *,
        ae_title: str,
        also_called: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 11112,
        peers: Sequence[Peer] = (),
        extra_sop_classes: Sequence[str] = (),
        transfer_syntaxes: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        limits: Limits = DEFAULT_LIMITS,
        normalized: NormalizedHandler | None = None,
        queries: QueryHandler | None = None,
        clock: type_clock = utc_now,
    ) -> None:
        """port: 0 takes a free one. peers: who may send; without any, whoever is on this machine.

        extra_sop_classes: private storage classes to accept besides those of the standard. transfer_syntaxes: which to choose
        first where a sender offers several; all others follow. tls: None for plain DICOM (`network.tls`).
        normalized: for DIMSE-N requests. queries: for C-FIND, C-MOVE and C-GET.
        """
        self._store, self._ledger = store, ledger
        self._host, self._port, self._limits, self._tls = host, port, limits, tls
        self._permissions = Permissions(peers)
        self._ends = Ends(ledger, clock)
        self._acceptor = Acceptor(
            InstanceKeeper(store, ledger, max_inflated_bytes=limits.max_inflated_bytes, clock=clock),
            self._ends,
            self._permissions,
            ae_titles=(ae_title, *also_called),
            sop_classes=STORAGE_SOP_CLASSES | frozenset(extra_sop_classes),
            transfer_syntaxes=preferred_first(transfer_syntaxes),
            limits=limits,
            normalized=normalized,
            queries=queries,
        )
        self._listener: Listener | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return self._listener is not None and self._listener.alive

    def renew_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS with this from the next connection on; those that are open keep what they agreed on."""
        self._tls = context
        if self._listener is not None:
            self._listener.renew_tls(context)

    def start(self) -> None:
        """Listen. Raises SettingsError if that is not possible there, StorageError without a usable folder."""
        self._store.prepare()
        recover(self._store, self._ledger)
        self._store.make_ahead()
        listening = _listen(self._host, self._port)
        self._port = listening.getsockname()[1]
        self._listener = Listener(
            listening,
            self._permissions.admits,
            self._acceptor.serve,
            self._limits,
            make_room=self._acceptor.make_room,
            merit=self._acceptor.merit,
            tls=self._tls,
        )
        self._ends.start()
        self._listener.start()
        _log.info("listening", host=self._host, port=self._port)

    def stop(self, drain_s: float = 10.0) -> None:
        """Accept nothing more, let running transfers end within `drain_s`, abort the rest."""
        if self._listener is None:
            return
        self._listener.stop()
        self._listener = None
        self._acceptor.drain(drain_s)
        self._ends.stop()
        self._store.close()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise SettingsError(f"dicom.host {host!r} is unknown", "set it to an address of this machine") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        what, remedy = _REMEDIES.get(error.errno or 0, (f"cannot be opened: {error.strerror}", "set dicom.host and dicom.port"))
        raise SettingsError(f"DICOM port {port} on {host} {what}", remedy) from None
    return listening
