"""C-FIND, C-MOVE and C-GET beside the image stream: `Dialogue` is the `Conversation` of one request (PS3.7 9.1.2 - 9.1.4)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from dicomnode.domain.routes import Peer
from dicomnode.network.dimse import LONGEST_IDENTIFIER, QueryRequest, QueryService, StoredObject, SubOperations
from dicomnode.receiving.commands import (
    AS_RESPONSE,
    C_CANCEL_RQ,
    C_STORE_RQ,
    C_STORE_RSP,
    DATA_SET,
    NO_DATA_SET,
    Command,
    command_set,
)
from dicomnode.receiving.negotiation import Agreement, Context, Titles
from dicomnode.receiving.pdu import UNEXPECTED_PDU, MustAbort, data_pdus, data_set_pdus

_TICK_S = 0.5
_WRITTEN_AT_ONCE = 1 << 18
SERVICES = frozenset(service.value for service in QueryService)
# How the SOP classes of each service end (PS3.4 C.6.1.3, C.6.2.3).
_ENDINGS = {QueryService.FIND.value: ".1", QueryService.MOVE.value: ".2", QueryService.GET.value: ".3"}


class Speaker(Protocol):
    """The association, as far as a dialogue needs it."""

    agreement: Agreement

    def interjection(self, wait_s: float, wanted: Callable[[Command], bool]) -> Command | None:
        """A command that the peer sends while we answer, if it is a wanted one; any other is put off until after the answer.

        wait_s: 0 looks; else we wait for it, and whatever else comes breaks the order of messages. Raises MustAbort, PeerGone.
        """
        ...

    def say(self, encoded: bytes | bytearray) -> None:
        """Send PDUs."""
        ...

    def progress(self) -> None:
        """The peer's patience account begins anew."""
        ...


class Dialogue:
    """Responses and sub-operations of one request, in the association's thread."""

    def __init__(self, speaker: Speaker, command: Command, context_id: int, response_timeout_s: float) -> None:
        self._speaker, self._command, self._context_id = speaker, command, context_id
        self._response_timeout_s = response_timeout_s
        self._longest = speaker.agreement.longest_pdu
        self._sends_in = {
            (one.abstract_syntax_uid, one.transfer_syntax_uid): number
            for number, one in speaker.agreement.contexts.items()
            if one.as_scu
        }
        self._cancelled = False
        self._message_id = 0  # of our sub-operations

    def answer(self, status: int, identifier: bytes = b"", *, counts: SubOperations | None = None, comment: str = "") -> None:
        """See Conversation."""
        values: dict[int, int | bytes | None] = {
            0x0002: self._command.sop_class,
            0x0100: self._command.field | AS_RESPONSE,
            0x0120: self._command.message_id or 0,
            0x0800: DATA_SET if identifier else NO_DATA_SET,
            0x0900: status,
            0x0902: comment[:64].encode("ascii", "replace") if comment else None,
        }
        if counts is not None:
            # Each is a US: what has no room in it is said as the most that it can say.
            numbers = {0x1020: counts.remaining, 0x1021: counts.completed, 0x1022: counts.failed, 0x1023: counts.warning}
            values |= {element: min(number, 0xFFFF) for element, number in numbers.items() if number is not None}
        said = bytearray(data_pdus(self._context_id, command_set(values), self._longest))
        if identifier:
            said += b"".join(data_set_pdus(self._context_id, [identifier], len(identifier), self._longest))
        self._speaker.say(said)  # together: one segment where it fits

    def cancelled(self) -> bool:
        """See Conversation."""
        if not self._cancelled and self._speaker.interjection(0.0, self._is_cancel) is not None:
            self._cancelled = True
        return self._cancelled

    def takes(self, sop_class_uid: str, transfer_syntax_uid: str) -> bool:
        """See Conversation."""
        return (sop_class_uid, transfer_syntax_uid) in self._sends_in

    def store(self, instance: StoredObject) -> int | None:
        """See Conversation."""
        context_id = self._sends_in[instance.sop_class_uid, instance.transfer_syntax_uid]
        self._message_id = self._message_id % 0xFFFF + 1
        request = command_set(
            {
                0x0002: instance.sop_class_uid.encode("ascii"),
                0x0100: C_STORE_RQ,
                0x0110: self._message_id,
                0x0700: 0,  # priority medium
                0x0800: DATA_SET,
                0x1000: instance.sop_instance_uid.encode("ascii"),
            }
        )
        said = bytearray(data_pdus(context_id, request, self._longest))
        for pdu in data_set_pdus(context_id, instance.data_set(), instance.size_bytes, self._longest):
            said += pdu
            if len(said) >= _WRITTEN_AT_ONCE:
                self._speaker.say(said)
                said = bytearray()
        self._speaker.say(said)
        return self._response()

    def _response(self) -> int | None:
        """The status of the C-STORE response; a C-CANCEL may come before it."""
        waited_s = 0.0
        while waited_s < self._response_timeout_s:
            heard = self._speaker.interjection(_TICK_S, lambda one: self._is_response(one) or self._is_cancel(one))
            if heard is None:
                waited_s += _TICK_S
            elif heard.field == C_CANCEL_RQ:
                self._cancelled = True
            else:
                self._speaker.progress()
                return heard.status
        raise MustAbort("no_response", UNEXPECTED_PDU)

    def _is_cancel(self, command: Command) -> bool:
        return command.field == C_CANCEL_RQ and command.regarding == self._command.message_id

    def _is_response(self, command: Command) -> bool:
        return command.field == C_STORE_RSP and command.regarding == self._message_id


def belongs_to(field: int, sop_class_uid: str) -> bool:
    """Whether a service is that of the SOP class: else who may only query would retrieve in a context for C-FIND."""
    return sop_class_uid.endswith(_ENDINGS[field])


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was read. identifier: None without one, or for one that is too long."""

    command: Command
    context: Context
    identifier: bytes | None


def request_of(asked: Asked, agreement: Agreement, titles: Titles, peer: Peer, association_key: str) -> QueryRequest:
    """The request for a `QueryHandler`."""
    return QueryRequest(
        service=QueryService(asked.command.field),
        message_id=asked.command.message_id or 0,
        sop_class_uid=asked.context.abstract_syntax_uid,
        transfer_syntax_uid=asked.context.transfer_syntax_uid,
        identifier=asked.identifier,
        move_destination=asked.command.move_destination,
        extended=agreement.extended.get(asked.context.abstract_syntax_uid, b""),
        peer=peer,
        calling_ae=titles.calling_ae,
        called_ae=titles.called_ae,
        association_key=association_key,
    )


def joined(pieces: Iterable[Iterable[memoryview]]) -> bytes | None:
    """An identifier, read to its end; None for one that is too long."""
    identifier = bytearray()
    too_long = False
    for some in pieces:
        for piece in some:
            too_long = too_long or len(identifier) + len(piece) > LONGEST_IDENTIFIER
            if not too_long:
                identifier += piece
    return None if too_long else bytes(identifier)
