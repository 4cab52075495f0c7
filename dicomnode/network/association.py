"""One way to open an association as SCU, and one way to say why it failed."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association

from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.routes import Peer
from dicomnode.network.client_tls import client_context
from dicomnode.network.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.network.reactor import guard, hold

# pynetdicom's standard handlers write AE titles, UIDs and whole identifiers into logs; none of that may get there.
_config.LOG_HANDLER_LEVEL = "none"
# A path given to send_c_store leaves as the bytes that the file holds, in constant memory; conversions go by Dataset instead.
_config.STORE_SEND_CHUNKED_DATASET = True

type_handlers = Sequence[tuple[Any, Callable[[evt.Event], Any]]]

LARGEST_PDU = 131_072  # DCMTK senders use no longer ones


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, for each association message, for each DIMSE response, of silence on the link."""

    connect_s: float = 10.0
    acse_s: float = 30.0
    dimse_s: float = 120.0
    network_s: float = 120.0


@contextmanager
def associate(
    peer: Peer,
    our_ae_title: str,
    contexts: Sequence[tuple[str, Sequence[str]]],
    *,
    timeouts: Timeouts = Timeouts(),
    handlers: type_handlers = (),
    roles: Sequence[Any] = (),
) -> Iterator[Association]:
    """An established association with at least one accepted context; released at the end, aborted after an exception.

    contexts: (abstract syntax, transfer syntaxes), 128 at most. handlers: (pynetdicom's event, function) for what the peer asks
    of us meanwhile. roles: SCP/SCU Role Selections (PS3.7 D.3.3.4). Raises PeerUnreachable, which says why and what to do.
    """
    association = _request(peer, our_ae_title, contexts, timeouts, handlers, roles)
    try:
        yield association
    except BaseException:
        association.abort()
        raise
    if association.is_established:
        hold(association)
        association.release()


def _request(
    peer: Peer,
    our_ae_title: str,
    contexts: Sequence[tuple[str, Sequence[str]]],
    timeouts: Timeouts,
    handlers: type_handlers,
    roles: Sequence[Any],
) -> Association:
    entity = AE(our_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = timeouts.connect_s
    entity.acse_timeout = timeouts.acse_s
    entity.dimse_timeout = timeouts.dimse_s
    entity.network_timeout = timeouts.network_s
    connected: list[bool] = []

    def connection_open(event: evt.Event) -> None:
        connected.append(True)
        # Without it Nagle and delayed acknowledgement together cost 40 ms for each object.
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    started = time.monotonic()
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            contexts=[build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts],
            ae_title=peer.ae_title,
            max_pdu=LARGEST_PDU,
            ext_neg=list(roles),
            tls_args=None if peer.tls is None else (client_context(peer.tls), peer.host),
            evt_handlers=[(evt.EVT_CONN_OPEN, connection_open), *handlers],
        )
    except OSError as error:  # the host name cannot be resolved
        raise _connection_failed(peer, error) from None
    if not association.is_established:
        raise _why(association, peer, timeouts, connected=bool(connected), waited_s=time.monotonic() - started)
    guard(association)
    return association


def _why(association: Association, peer: Peer, timeouts: Timeouts, *, connected: bool, waited_s: float) -> PeerUnreachable:
    if not connected:
        return _connection_failed(peer, _try_to_connect(peer, timeouts))
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return PeerUnreachable(
            f"{_named(peer)} rejected the association: {answer.reason_str.lower()} ({answer.result_str.lower()})",
            _remedy_of_rejection(answer.reason_str),
        )
    if answer is not None and answer.result == 0:
        return PeerUnreachable(
            f"{_named(peer)} accepted no presentation context",
            "let the peer accept the SOP classes and transfer syntaxes that are sent",
        )
    if waited_s >= timeouts.acse_s:
        return PeerUnreachable(
            f"{_named(peer)} did not answer the association request within {timeouts.acse_s:g} s",
            "check that a DICOM service listens on that port, and no other",
        )
    return PeerUnreachable(
        f"{_named(peer)} broke the connection during association",
        f"check that it speaks DICOM {'with' if peer.tls else 'without'} TLS there and lets this address in",
    )


def _remedy_of_rejection(reason: str) -> str:
    reason = reason.lower()
    if "calling" in reason:
        return "register our AE title (node.ae_title), address and port in the peer's configuration"
    if "called" in reason:
        return "correct ae_title of the peer in the settings"
    return "try again later; if it stays, look at the peer's own log"


def _named(peer: Peer) -> str:
    return f"peer {peer.name!r} ({peer.ae_title} at {peer.host}:{peer.port})"


def _try_to_connect(peer: Peer, timeouts: Timeouts) -> OSError | None:
    """pynetdicom does not say why a connection failed: ask once more."""
    try:
        socket.create_connection((peer.host, peer.port), timeout=min(timeouts.connect_s, 3.0)).close()
    except OSError as error:
        return error
    return None


def _connection_failed(peer: Peer, error: OSError | None) -> PeerUnreachable:
    if isinstance(error, ConnectionRefusedError):
        return PeerUnreachable(
            f"{_named(peer)} refused the connection", "start the peer, or correct its host and port in the settings"
        )
    if isinstance(error, socket.gaierror):
        return PeerUnreachable(
            f"{_named(peer)} has an unknown host name", "correct its host in the settings, or the name service"
        )
    if error is None or isinstance(error, TimeoutError):
        return PeerUnreachable(f"{_named(peer)} does not answer", "check that it runs and that no firewall stands between")
    return PeerUnreachable(f"{_named(peer)} cannot be reached: {error.strerror}", "check its host and port, and the network")
