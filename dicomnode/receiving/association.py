"""One association, from request to end, in one thread: messages in order, each answered before the next (PS3.7, PS3.8)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import structlog

from dicomnode.domain.statuses import SUCCESS
from dicomnode.network import Permissions
from dicomnode.network.dimse import QueryHandler
from dicomnode.receiving import composite, normalized
from dicomnode.receiving.answers import answer
from dicomnode.receiving.commands import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_ECHO_RSP,
    C_STORE_RQ,
    C_STORE_RSP,
    LONGEST_COMMAND,
    Command,
    read_command,
    response,
)
from dicomnode.receiving.handler import InstanceHandler, LastPieces, SenderGone, StoreAnswer, StoreRequest
from dicomnode.receiving.limits import Limits
from dicomnode.receiving.link import Link, PeerGone
from dicomnode.receiving.negotiation import VERIFICATION, Agreement, Context, Negotiator, Titles, titles
from dicomnode.receiving.normalized import NormalizedHandler
from dicomnode.receiving.pdu import (
    ABORT,
    COMMAND_END,
    COMMAND_PART,
    DATA_END,
    DATA_PART,
    NOT_SPECIFIED,
    RELEASE_RP_PDU,
    RELEASE_RQ,
    UNEXPECTED_PDU,
    MustAbort,
    PduReader,
    abort_pdu,
    data_pdus,
    reject_pdu,
    type_event,
)
from dicomnode.receiving.places import Doing

_log = structlog.get_logger("receiving")

# A-ASSOCIATE-RJ: result, source, reason (PS3.8 Table 9-21).
_OTHER_VERSION = (1, 2, 2)
_UNKNOWN_CALLING = (1, 1, 3)
_UNKNOWN_CALLED = (1, 1, 7)
_CONGESTION = (2, 3, 1)


class AssociationLedger(Protocol):
    """Where associations are noted."""

    def association_opened(self, calling: str, called: str, address: str) -> str:
        """Note an association; its key."""
        ...

    def association_ended(self, key: str, how: str) -> None:
        """Note how it ended."""
        ...


@dataclass(frozen=True, slots=True)
class Node:
    """What all associations of one listener share. called_ae: the titles under which we may be called."""

    handler: InstanceHandler
    ledger: AssociationLedger
    permissions: Permissions
    negotiator: Negotiator
    called_ae: frozenset[str]
    limits: Limits
    normalized: NormalizedHandler | None = None  # for DIMSE-N requests
    queries: QueryHandler | None = None  # for C-FIND, C-MOVE and C-GET


class _Rejected(Exception):
    """The association is refused. `code`: one word for logs."""

    def __init__(self, code: str, reason: tuple[int, int, int]) -> None:
        super().__init__(code)
        self.code, self.reason = code, reason


class _Released(Exception):
    """The peer asked for the orderly end."""


class Association:
    """`serve` is its life; the rest is for other threads (`places.Occupant`)."""

    def __init__(self, node: Node, link: Link, address: str, calling_ae: str) -> None:
        self._node, self._link = node, link
        self.say, self.progress = link.send, link.message_ended  # for composite.Dialogue
        self.address = address
        self.doing = Doing.ANSWERING  # our turn, until a thread takes it up
        self.instances = 0
        self._key = ""
        self._titles = Titles(calling_ae, "", 1)
        self.agreement = Agreement(b"", {}, 0)
        self._reader = PduReader(node.limits.max_pdu_bytes)
        self._events: list[type_event] = []
        self._at = 0  # the next of these
        self._put_off: tuple[int, bytes] | None = None  # a command set that came while another request was answered
        self._object_left = 0  # bytes that the data set may still have
        self._end: Exception | None = None  # what ended the association inside a data set
        self._outcomes: Counter[str] = Counter()

    @property
    def calling_ae(self) -> str:
        """Who calls."""
        return self._titles.calling_ae

    @property
    def last_active(self) -> float:
        """Monotonic seconds of the last bytes in either direction."""
        return max(self._link.last_heard, self._link.last_said)

    @property
    def received_bytes(self) -> int:
        """All so far."""
        return self._link.received_bytes

    def give_way(self) -> None:
        """End at the next opportunity."""
        self._link.give_way()

    def wind_up(self) -> None:
        """End when the peer falls silent between messages."""
        self._link.wind_up()

    def serve(self, buffer: bytearray) -> None:
        """From the request to the closed connection."""
        how, code, farewell = "aborted", "", b""
        try:
            self._link.open(buffer)
            self._establish()
            while True:
                self._serve_message()
        except _Rejected as rejection:
            _log.warning("an association was rejected", code=rejection.code, address=self.address)
            farewell = reject_pdu(*rejection.reason)
        except _Released:
            how, farewell = "released", RELEASE_RP_PDU
        except MustAbort as abort:
            code, farewell = abort.code, abort_pdu(*abort.reason)
            _log.warning("an association was aborted", association=self._key, code=code, address=self.address)
        except PeerGone as gone:
            code = gone.code
        except Exception as error:  # noqa: BLE001 - boundary: one association's trouble is not the node's
            code, farewell = "internal_error", abort_pdu(*NOT_SPECIFIED)
            _log.error("an association ended by an error of the node", association=self._key, error=type(error).__name__)
        finally:
            self._link.close(farewell)
            self._note_end(how, code)

    def _establish(self) -> None:
        """Admit and answer, or raise why not."""
        self.doing = Doing.IDLE
        request = self._link.read_request()
        self.doing = Doing.ANSWERING
        self._titles = titles(request)
        if not self._titles.version & 1:
            raise _Rejected("other_version", _OTHER_VERSION)
        if self._titles.called_ae not in self._node.called_ae:
            raise _Rejected("unknown_called_ae", _UNKNOWN_CALLED)
        peer = self._node.permissions.caller(self._titles.calling_ae, self.address)
        if peer is None:
            raise _Rejected("unknown_peer", _UNKNOWN_CALLING)
        self.agreement = self._node.negotiator.agree(request, may=peer.may)
        try:
            self._key = self._node.ledger.association_opened(self._titles.calling_ae, self._titles.called_ae, self.address)
        except Exception as error:
            _log.error("an association cannot be recorded", error=type(error).__name__)
            raise _Rejected("no_database", _CONGESTION) from error
        self._link.send(self.agreement.answer)
        self._link.message_ended()
        self.doing = Doing.IDLE

    def _serve_message(self) -> None:
        context_id, encoded = self._whole_command()
        command = read_command(encoded)
        context = self.agreement.contexts.get(context_id)
        if context is None:
            raise MustAbort("unknown_context")
        serve = _SERVICES.get(command.field)
        if serve is not None:
            serve(self, command, context_id, context)
        elif self._node.normalized is not None and context.abstract_syntax_uid in self._node.normalized.sop_classes:
            self._serve_normalized(self._node.normalized, encoded, command, context_id, context)
        elif self._node.queries is not None and command.field in composite.SERVICES:
            self._serve_query(self._node.queries, command, context_id, context)
        elif command.field != C_CANCEL_RQ or command.has_data_set:  # nothing is left to cancel: all is answered in order
            raise MustAbort("unknown_service")
        self.doing = Doing.IDLE
        self._link.message_ended()

    def _whole_command(self) -> tuple[int, bytes]:
        """The next command set and its context."""
        if self._put_off is not None:
            put_off, self._put_off = self._put_off, None
            return put_off
        what, context_id, piece = self._next()
        encoded = bytes(piece)
        while what == COMMAND_PART:
            what, same_id, piece = self._next()
            encoded += piece
            if same_id != context_id or len(encoded) > LONGEST_COMMAND:
                raise MustAbort("command_cut")
        if what != COMMAND_END:
            raise self._unexpected(what)
        return context_id, encoded

    def _next(self) -> type_event:
        if self._at == len(self._events):
            self._read()
        self._at += 1
        return self._events[self._at - 1]

    def _read(self) -> None:
        """More events, at least one. Pieces of earlier ones are no longer valid."""
        self._at, self._events = 0, []
        while not self._events:
            if self._reader.broken is not None:
                raise self._reader.broken
            self._events = self._reader.feed(self._reader.left or self._link.read(at_rest=self.doing is Doing.IDLE))

    def _unexpected(self, what: int) -> Exception:
        """The end that an event means which does not continue the message."""
        if what == RELEASE_RQ:
            return _Released()
        if what == ABORT:
            return PeerGone("aborted_by_peer")
        return MustAbort("order_of_messages", UNEXPECTED_PDU)

    def _data_set(self, context_id: int) -> Iterator[Sequence[memoryview]]:
        """The data set of the command that was read last, as `InstanceHandler.store` promises it."""
        self.doing = Doing.RECEIVING
        self._object_left = self._node.limits.max_object_bytes
        while self.doing is Doing.RECEIVING:
            try:
                pieces = self._pieces(context_id)
            except (MustAbort, PeerGone, _Released) as end:
                self._end = end
                raise SenderGone from end
            if pieces:
                yield pieces

    def _pieces(self, context_id: int) -> list[memoryview]:
        """What is there of the data set; with its last piece it is our turn (`doing`)."""
        if self._at == len(self._events):
            self._read()
        pieces: list[memoryview] = []
        for what, piece_id, piece in islice(self._events, self._at, None):
            if piece_id != context_id or (what != DATA_PART and what != DATA_END):
                if pieces:
                    break  # these first
                raise self._unexpected(what)
            self._at += 1
            if piece:
                self._object_left -= len(piece)
                pieces.append(piece)
            if what == DATA_END:
                self.doing = Doing.ANSWERING
                break
        if self._object_left < 0:
            raise MustAbort("object_too_long")
        return pieces if self.doing is Doing.RECEIVING else LastPieces(pieces)

    def _store(self, command: Command, context_id: int, context: Context) -> None:
        """C-STORE (PS3.7 9.1.1, PS3.4 B.2)."""
        data_set = self._data_set(context_id) if command.has_data_set else iter(())
        try:
            answered = self._answer_of_handler(command, context, data_set)
            for _ in data_set:  # refused before its end: read, not kept
                pass
        except SenderGone:
            pass
        if self._end is not None:
            raise self._end
        self.doing = Doing.ANSWERING
        self._outcomes[answered.outcome] += 1
        if not answered.success:
            _log.warning(
                "an instance was refused", association=self._key, status=f"{answered.status:04X}", code=answered.outcome
            )
        try:
            self._respond(response(C_STORE_RSP, command, answered.status, answered.comment), context_id)
        finally:
            if answered.afterwards is not None:
                answered.afterwards()
        self.instances += 1

    def _answer_of_handler(self, command: Command, context: Context, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        if context.abstract_syntax_uid == VERIFICATION or not context.as_scp:
            return answer("other_context")
        if not (command.has_data_set and command.sop_class_uid and command.sop_instance_uid):
            return answer("incomplete")
        request = StoreRequest(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            abstract_syntax_uid=context.abstract_syntax_uid,
            transfer_syntax_uid=context.transfer_syntax_uid,
            calling_ae=self._titles.calling_ae,
            called_ae=self._titles.called_ae,
            address=self.address,
            association_key=self._key,
        )
        return self._node.handler.store(request, data_set)

    def _echo(self, command: Command, context_id: int, _: Context) -> None:
        """C-ECHO (PS3.7 9.1.5)."""
        if command.has_data_set:
            raise MustAbort("data_set_of_echo")
        self._respond(response(C_ECHO_RSP, command, SUCCESS), context_id)

    def _serve_normalized(
        self, handler: NormalizedHandler, encoded: bytes, command: Command, context_id: int, context: Context
    ) -> None:
        """N-EVENT-REPORT, N-ACTION (PS3.7 10.1.1, 10.1.4)."""
        peer = self._node.permissions.caller(self._titles.calling_ae, self.address)
        if peer is None or not normalized.is_normalized(command.field):
            raise MustAbort("unknown_service")
        refused = handler.refusal(command.field, context.abstract_syntax_uid, peer)
        try:
            pieces = self._data_set(context_id) if command.has_data_set else ()
            data_set = normalized.joined(pieces, keep=refused is None)
        except SenderGone:
            raise self._end or PeerGone("lost") from None
        self.doing = Doing.ANSWERING
        request = normalized.read_request(encoded, data_set, context.transfer_syntax_uid, peer)
        self._respond(normalized.response(request, handler.serve(request) if refused is None else refused), context_id)

    def _serve_query(self, handler: QueryHandler, command: Command, context_id: int, context: Context) -> None:
        """C-FIND, C-MOVE, C-GET (PS3.7 9.1.2 - 9.1.4)."""
        peer = self._node.permissions.caller(self._titles.calling_ae, self.address)
        right = handler.sop_classes.get(context.abstract_syntax_uid)
        if peer is None or right not in peer.may or not composite.belongs_to(command.field, context.abstract_syntax_uid):
            raise MustAbort("unknown_service")
        try:
            identifier = composite.joined(self._data_set(context_id)) if command.has_data_set else None
        except SenderGone:
            raise self._end or PeerGone("lost") from None
        self.doing = Doing.GIVING
        asked = composite.Asked(command, context, identifier)
        request = composite.request_of(asked, self.agreement, self._titles, peer, self._key)
        handler.serve(request, composite.Dialogue(self, command, context_id, self._node.limits.network_timeout_s))

    def interjection(self, wait_s: float, wanted: Callable[[Command], bool]) -> Command | None:
        """See composite.Speaker."""
        if self._put_off is None:
            if self._at == len(self._events) and (self._reader.left or self._link.readable(wait_s)):
                self._read()
            if self._at == len(self._events):
                return None
            what = self._events[self._at][0]
            if what == ABORT:
                raise self._unexpected(what)
            if what in (COMMAND_PART, COMMAND_END):
                context_id, encoded = self._whole_command()
                command = read_command(encoded)
                if wanted(command) or command.field == C_CANCEL_RQ:  # of another request, which is answered already
                    return command if wanted(command) else None
                self._put_off = context_id, encoded  # read after the answer, as pipelined requests are
        if wait_s:
            raise MustAbort("order_of_messages", UNEXPECTED_PDU)
        return None

    def _respond(self, encoded: bytes, context_id: int) -> None:
        self._link.send(data_pdus(context_id, encoded, self.agreement.longest_pdu))

    def _note_end(self, how: str, code: str) -> None:
        if not self._key:
            return
        try:
            self._node.ledger.association_ended(self._key, how)
        except Exception as error:  # noqa: BLE001 - boundary: the association ends here
            _log.error("the end of an association cannot be recorded", association=self._key, error=type(error).__name__)
        counts = {f"{outcome}_count": count for outcome, count in self._outcomes.items()}
        _log.info("association ended", association=self._key, how=how, code=code, **counts)


type_service = Callable[[Association, Command, int, Context], None]
# A service answers one request: it reads the request's data set to its end, if there is one, and sends the response.
_SERVICES: Mapping[int, type_service] = {
    C_STORE_RQ: Association._store,  # noqa: SLF001
    C_ECHO_RQ: Association._echo,  # noqa: SLF001
}
