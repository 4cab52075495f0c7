"""`Acceptor`: serves connections that ask for an association, each in a thread of its own."""

import socket
import threading
import time
from collections.abc import Iterable, Sequence

from dicomnode.network import Permissions
from dicomnode.network.dimse import QueryHandler
from dicomnode.receiving.association import Association, AssociationLedger, Node
from dicomnode.receiving.handler import InstanceHandler
from dicomnode.receiving.limits import Limits
from dicomnode.receiving.link import Link
from dicomnode.receiving.negotiation import Negotiator
from dicomnode.receiving.normalized import NormalizedHandler
from dicomnode.receiving.places import Merit, Places
from dicomnode.receiving.workers import Workers

# Who has given up his place still has a moment to say farewell.
_THREADS_PER_PLACE = 2
_LAST_WORDS_S = 5.0


class Acceptor:
    """The acceptor's side of associations, in front of an `InstanceHandler`. Safe for many threads."""

    def __init__(
        self,
        handler: InstanceHandler,
        ledger: AssociationLedger,
        permissions: Permissions,
        *,
        ae_titles: Iterable[str],
        sop_classes: Iterable[str],
        transfer_syntaxes: Sequence[str],
        limits: Limits,
        normalized: NormalizedHandler | None = None,
        queries: QueryHandler | None = None,
    ) -> None:
        """ae_titles: those under which we may be called. sop_classes: storage classes that are accepted.

        transfer_syntaxes: those that are accepted, in the order of choice. normalized: for DIMSE-N requests. queries: for
        C-FIND, C-MOVE and C-GET.
        """
        services = normalized.sop_classes if normalized is not None else ()
        negotiator = Negotiator(
            sop_classes,
            transfer_syntaxes,
            limits.announced_pdu_bytes,
            services,
            by_right=None if queries is None else queries.sop_classes,
            extended=None if queries is None else queries.extended,
            held=None if queries is None else queries.syntaxes,
        )
        called = frozenset(title.strip() for title in ae_titles)
        self._node = Node(handler, ledger, permissions, negotiator, called, limits, normalized, queries)
        self._places = Places(limits)
        self._workers = Workers(_THREADS_PER_PLACE * (limits.max_associations + limits.max_giving))
        self._associations: set[Association] = set()
        self._changed = threading.Condition()

    def make_room(self, address: str, calling_ae: str) -> bool:
        """Whether this caller may be served; ask before each `serve`."""
        return self._places.make_room(address, calling_ae)

    def merit(self, address: str, calling_ae: str) -> Merit:
        """Whom to let in first where several wait."""
        return self._places.merit(address, calling_ae)

    def serve(self, connection: socket.socket, address: str, calling_ae: str) -> None:
        """Begin to speak with a connection whose association request has come in, through TLS or not. Returns at once.

        Raises RuntimeError if no thread can be started; the connection is then still the caller's.
        """
        association = Association(self._node, Link(connection, self._node.limits), address, calling_ae)
        with self._changed:
            self._associations.add(association)
        self._places.enter(association)
        try:
            self._workers.submit(lambda buffer: self._run(association, buffer))
        except BaseException:
            self._forget(association)
            raise

    def _run(self, association: Association, buffer: bytearray) -> None:
        try:
            association.serve(buffer)
        finally:
            self._forget(association)

    def _forget(self, association: Association) -> None:
        self._places.leave(association)
        with self._changed:
            self._associations.discard(association)
            self._changed.notify_all()

    def drain(self, drain_s: float) -> None:
        """Let associations end by themselves; abort those that fall silent between messages, and all after `drain_s`."""
        for association in self._left():
            association.wind_up()
        self._wait_for_all(drain_s)
        for association in self._left():
            association.give_way()
        self._wait_for_all(_LAST_WORDS_S)

    def _left(self) -> tuple[Association, ...]:
        with self._changed:
            return tuple(self._associations)

    def _wait_for_all(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: not self._associations, max(until - time.monotonic(), 0))
