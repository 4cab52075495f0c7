"""The protocol by stock pynetdicom in front of an `InstanceHandler`: what the node's own loop is compared with.

It holds each object whole and counts its associations itself; otherwise it promises what `receiving.acceptor` promises.
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import Verification, register_uid, uid_to_service_class
from pynetdicom.transport import AddressInformation

from dicomnode.domain.statuses import CANNOT_UNDERSTAND
from dicomnode.network import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Permissions
from dicomnode.receiving.association import AssociationLedger
from dicomnode.receiving.handler import InstanceHandler, StoreRequest
from dicomnode.receiving.limits import Limits
from tests.receiving.stock_transport import BoundedDimse, BoundedSocket

_log = structlog.get_logger("receiving")

# A-ASSOCIATE-RJ: result, source, reason (PS3.8 Table 9-21).
_UNKNOWN_CALLING = (1, 1, 3)
_UNKNOWN_CALLED = (1, 1, 7)
_CONGESTION = (2, 3, 1)
_LIMIT_EXCEEDED = (2, 3, 2)
_IDLE_S = 1.0


class _Rejection(Exception):
    """The association is refused. `code`: one word for logs."""

    def __init__(self, code: str, reason: tuple[int, int, int]) -> None:
        super().__init__(code)
        self.code, self.reason = code, reason


@dataclass(slots=True)
class _Session:
    """What we note of one association. `busy`: a request is being answered right now."""

    address: str
    key: str = ""
    calling_ae: str = ""
    called_ae: str = ""
    busy: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)


class ServedAssociation(Association):  # type: ignore[misc]
    """An association whose end is always noticed."""

    def __init__(self, entity: AE, connection: socket.socket, limits: Limits, at_end: "type_at_end") -> None:
        super().__init__(entity, MODE_ACCEPTOR)
        self.dimse = BoundedDimse(self, limits)
        self.bounded_socket = BoundedSocket(self, connection, limits)
        self.set_socket(self.bounded_socket)
        self.dul.daemon = True  # a thread that waits for a peer must not keep the process
        self.dul._run_loop_delay = 0
        self._at_end = at_end

    def run_reactor(self) -> None:
        """The thread's life."""
        try:
            super().run_reactor()
        finally:
            self.dul.kill_dul()
            self.bounded_socket.close_gently()
            self._at_end(self)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        # pynetdicom leaves a C-STORE-RQ that lacks a field or its data set without any answer: the sender would wait for ever.
        if isinstance(msg, C_STORE) and msg.MessageIDBeingRespondedTo is None and not msg.is_valid_request:
            if msg.MessageID is None or context_id not in self._accepted_cx:
                self.abort()
                return
            answer = C_STORE()
            answer.MessageIDBeingRespondedTo = msg.MessageID
            answer.AffectedSOPClassUID = msg.AffectedSOPClassUID
            answer.AffectedSOPInstanceUID = msg.AffectedSOPInstanceUID
            answer.Status = CANNOT_UNDERSTAND
            answer.ErrorComment = "the request has no data set or lacks a field"
            self.dimse.send_msg(answer, context_id)
            return
        super()._serve_request(msg, context_id)


type_at_end = Callable[[ServedAssociation], None]


class StockScp:
    """Serves connections that ask for an association. Each runs in threads of its own."""

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
    ) -> None:
        """ae_titles: those under which we may be called, our own first. sop_classes: storage classes that are accepted.

        transfer_syntaxes: those that are accepted, in the order of choice.
        """
        self._handler, self._ledger, self._permissions, self._limits = handler, ledger, permissions, limits
        titles = [title.strip() for title in ae_titles]
        self._called = frozenset(titles)
        self._entity = _entity(titles[0], limits)
        self._sop_classes = frozenset(sop_classes)
        _serve_as_storage(self._sop_classes)
        self._transfer_syntaxes = tuple(transfer_syntaxes)
        self._contexts: dict[str, PresentationContext] = {}
        self._sessions: dict[ServedAssociation, _Session] = {}
        self._lock = threading.Lock()

    def serve(self, connection: socket.socket, address: str, calling_ae: str) -> None:  # noqa: ARG002
        """Begin to speak with a connection whose association request has come in. Returns at once."""
        connection.setblocking(True)
        association = ServedAssociation(self._entity, connection, self._limits, self._ended)
        association.name = f"AcceptorThread-{connection.fileno()}"  # pynetdicom finds its acceptors by this word
        association.acceptor.maximum_length = self._limits.announced_pdu_bytes
        association.acceptor.ae_title = self._entity.ae_title
        association.acceptor.address_info = AddressInformation.from_tuple(connection.getsockname())
        association.acceptor.implementation_class_uid = self._entity.implementation_class_uid
        association.acceptor.implementation_version_name = self._entity.implementation_version_name
        association.requestor.address_info = AddressInformation.from_tuple(connection.getpeername())
        association.bind(evt.EVT_REQUESTED, self._on_requested)
        association.bind(evt.EVT_C_STORE, self._on_store)
        association.bind(evt.EVT_ASYNC_OPS, lambda _: (1, 1))
        with self._lock:
            self._sessions[association] = _Session(address)
        try:
            association.start()
        except RuntimeError:  # no thread can be started
            with self._lock:
                del self._sessions[association]
            raise

    def drain(self, drain_s: float) -> None:
        """Let associations end by themselves; abort those that fall silent, and all after `drain_s`."""
        until = time.monotonic() + drain_s
        while (left := self._associations()) and time.monotonic() < until:
            silent_since = time.monotonic() - _IDLE_S
            _abort(one for one, session in left if not session.busy and one.bounded_socket.last_heard < silent_since)
            time.sleep(0.05)
        _abort(one for one, _ in self._associations())

    def _associations(self) -> list[tuple[ServedAssociation, _Session]]:
        with self._lock:
            return list(self._sessions.items())

    def _on_requested(self, event: evt.Event) -> None:
        """Admit or reject, before pynetdicom negotiates."""
        association = event.assoc
        session = self._sessions[association]
        association.bounded_socket.request_is_in()
        try:
            association.acceptor.supported_contexts = self._admit(association, session)
        except _Rejection as rejection:
            _log.warning("an association was rejected", code=rejection.code, address=session.address)
            association.acse.send_reject(*rejection.reason)
            association.kill()  # returns when the rejection is sent

    def _admit(self, association: ServedAssociation, session: _Session) -> list[PresentationContext]:
        """The contexts that this peer may use. Raises _Rejection."""
        request = association.requestor.primitive
        session.calling_ae = request.calling_ae_title.strip()
        session.called_ae = request.called_ae_title.strip()
        if session.called_ae not in self._called:
            raise _Rejection("unknown_called_ae", _UNKNOWN_CALLED)
        peer = self._permissions.caller(session.calling_ae, session.address)
        if peer is None:
            raise _Rejection("unknown_peer", _UNKNOWN_CALLING)
        if len(self._sessions) > self._limits.max_associations:
            raise _Rejection("too_many_associations", _LIMIT_EXCEEDED)
        try:
            session.key = self._ledger.association_opened(session.calling_ae, session.called_ae, session.address)
        except Exception as error:
            _log.error("an association cannot be recorded", error=type(error).__name__)
            raise _Rejection("no_database", _CONGESTION) from error
        allowed = {str(Verification), *(self._sop_classes if "store" in peer.may else ())}
        asked = {str(context.abstract_syntax) for context in request.presentation_context_definition_list}
        return [self._context(uid) for uid in sorted(asked & allowed)]

    def _context(self, abstract_syntax: str) -> PresentationContext:
        """Built once for each class and only read afterwards: copying all of them costs pynetdicom 60 ms a connection."""
        if abstract_syntax not in self._contexts:
            context = self._contexts[abstract_syntax] = build_context(abstract_syntax, list(self._transfer_syntaxes))
            context.scu_role, context.scp_role = True, False
        return self._contexts[abstract_syntax]

    def _on_store(self, event: evt.Event) -> int | Dataset:
        session, request = self._sessions[event.assoc], event.request
        session.busy = True
        try:
            with request.DataSet.getbuffer() as data_set:
                answer = self._handler.store(_store_request(event, session), iter([[data_set]] if data_set else []))
        finally:
            session.busy = False
        session.outcomes[answer.outcome] += 1
        if not answer.success:
            _log.warning("an instance was refused", association=session.key, status=f"{answer.status:04X}", code=answer.outcome)
        status = Dataset()
        status.Status = answer.status
        if answer.comment:
            status.ErrorComment = answer.comment[:64]
        return status

    def _ended(self, association: ServedAssociation) -> None:
        with self._lock:
            session = self._sessions.pop(association)
        if not session.key:
            return
        how = "released" if association.is_released else "aborted"
        try:
            self._ledger.association_ended(session.key, how)
        except Exception as error:  # noqa: BLE001 - boundary: the thread ends here
            _log.error("the end of an association cannot be recorded", association=session.key, error=type(error).__name__)
        counts = {f"{outcome}_count": count for outcome, count in session.outcomes.items()}
        _log.info("association ended", association=session.key, how=how, **counts)


def _abort(associations: Iterable[ServedAssociation]) -> None:
    """A-ABORT to all at once, then wait for each."""
    aborted = list(associations)
    for association in aborted:
        association.abort(block=False)
    for association in aborted:
        association.kill()
        association.join(5.0)


def _serve_as_storage(sop_classes: Iterable[str]) -> None:
    """Let pynetdicom run its Storage service for classes that it does not know: retired and private ones."""
    for uid in sop_classes:
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, "Storage_" + uid.replace(".", "_"), StorageServiceClass)


def _entity(ae_title: str, limits: Limits) -> AE:
    entity = AE(ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = limits.announced_pdu_bytes
    entity.maximum_associations = 1_000_000  # counted by us: pynetdicom counts connections that never ask, too
    entity.acse_timeout = limits.association_deadline_s
    entity.network_timeout = limits.network_timeout_s
    entity.dimse_timeout = limits.network_timeout_s
    return entity


def _store_request(event: evt.Event, session: _Session) -> StoreRequest:
    request, context = event.request, event.context
    return StoreRequest(
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        abstract_syntax_uid=str(context.abstract_syntax),
        transfer_syntax_uid=str(context.transfer_syntax),
        calling_ae=session.calling_ae,
        called_ae=session.called_ae,
        address=session.address,
        association_key=session.key,
    )
