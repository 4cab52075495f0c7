"""DIMSE-N requests beside the image stream (PS3.7 10): what reaches a handler, and how it is answered. No I/O.

They are rare and small: the data set is read whole, up to a bound, and parsed by pydicom.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, generate_uid

from dicomnode.domain.routes import Peer
from dicomnode.receiving.pdu import MustAbort

# Command Field values (PS3.7 E.1)
N_EVENT_REPORT_RQ, N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ = 0x0100, 0x0120, 0x0130, 0x0140
LARGEST_DATA_SET = 16 << 20

_AS_RESPONSE = 0x8000
_NO_DATA_SET = 0x0101
_ELEMENT = struct.Struct("<HHL")
# Of each request: who names the SOP class, who the instance, and which number says what is asked (PS3.7 10.3.1 to 10.3.5).
_FIELDS: Mapping[int, tuple[str, str, str]] = {
    N_EVENT_REPORT_RQ: ("AffectedSOPClassUID", "AffectedSOPInstanceUID", "EventTypeID"),
    N_SET_RQ: ("RequestedSOPClassUID", "RequestedSOPInstanceUID", ""),
    N_ACTION_RQ: ("RequestedSOPClassUID", "RequestedSOPInstanceUID", "ActionTypeID"),
    N_CREATE_RQ: ("AffectedSOPClassUID", "AffectedSOPInstanceUID", ""),
}
_TYPE_ELEMENT = {N_EVENT_REPORT_RQ: 0x1002, N_ACTION_RQ: 0x1008}
_LONGEST_COMMENT = 64  # Error Comment is an LO
_NO_SUCH_SOP_CLASS = 0x0118  # PS3.7 C.5.17


@dataclass(frozen=True, slots=True)
class NormalizedRequest:
    """One request. type_id: Event Type ID or Action Type ID, 0 where there is none."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    type_id: int
    peer: Peer
    data_set: Dataset


@dataclass(frozen=True, slots=True)
class NormalizedAnswer:
    """A status with what else the response may say: Error Comment (0000,0902) and Error ID (0000,0903)."""

    status: int
    comment: str = ""
    error_id: int | None = None


class NormalizedHandler(Protocol):
    """Answers DIMSE-N requests of the SOP classes that it names."""

    @property
    def sop_classes(self) -> frozenset[str]:
        """Abstract syntaxes that are accepted for it."""

    def refusal(self, field: int, sop_class_uid: str, peer: Peer) -> int | None:
        """The status for a peer that may not ask this: its data set is then neither kept nor parsed. None: `serve` answers."""
        ...

    def serve(self, request: NormalizedRequest) -> int | NormalizedAnswer:
        """The status of the response; what it promises is durable by then. Never raises for what the peer sent."""
        ...


class NormalizedHandlers:
    """Several as one, each for its own SOP classes."""

    def __init__(self, handlers: Sequence[NormalizedHandler]) -> None:
        self._by_class = {sop_class: handler for handler in handlers for sop_class in handler.sop_classes}

    @property
    def sop_classes(self) -> frozenset[str]:
        """See NormalizedHandler."""
        return frozenset(self._by_class)

    def refusal(self, field: int, sop_class_uid: str, peer: Peer) -> int | None:
        """See NormalizedHandler."""
        handler = self._by_class.get(sop_class_uid)
        return _NO_SUCH_SOP_CLASS if handler is None else handler.refusal(field, sop_class_uid, peer)

    def serve(self, request: NormalizedRequest) -> int | NormalizedAnswer:
        """See NormalizedHandler."""
        handler = self._by_class.get(request.sop_class_uid)
        return _NO_SUCH_SOP_CLASS if handler is None else handler.serve(request)


def is_normalized(field: int) -> bool:
    """Whether this Command Field is one that a handler may answer."""
    return field in _FIELDS


def joined(pieces: Iterable[Iterable[memoryview]], *, keep: bool) -> bytes:
    """A data set, read to its end; nothing of it where it is not to be kept. Raises MustAbort for one that is too long."""
    data_set, size = bytearray(), 0
    for some in pieces:
        for piece in some:
            size += len(piece)
            if keep:
                data_set += piece
        if size > LARGEST_DATA_SET:
            raise MustAbort("object_too_long")
    return bytes(data_set)


def read_request(command_set: bytes, data_set: bytes, transfer_syntax_uid: str, peer: Peer) -> NormalizedRequest:
    """Raises MustAbort for what cannot be read."""
    try:
        command = read_dataset(BytesIO(command_set), is_implicit_VR=True, is_little_endian=True)
        field = int(command.CommandField)
        names = _FIELDS[field]
        syntax = UID(transfer_syntax_uid)
        content = read_dataset(BytesIO(data_set), syntax.is_implicit_VR, syntax.is_little_endian)
        content.walk(lambda _data_set, _element: None)  # parsed now, not when somebody looks
        return NormalizedRequest(
            field=field,
            message_id=int(command.MessageID),
            sop_class_uid=str(command[names[0]].value),
            sop_instance_uid=_instance_named(command, field, names[1]),
            type_id=int(command[names[2]].value) if names[2] else 0,
            peer=peer,
            data_set=content,
        )
    except Exception as error:  # boundary: pydicom raises whatever its parsing ran into
        raise MustAbort("normalized_request") from error


def _instance_named(command: Dataset, field: int, keyword: str) -> str:
    """The instance of the request; who creates one may leave its name to us (PS3.7 10.1.5.1.3)."""
    if field == N_CREATE_RQ and not command.get(keyword):
        return str(generate_uid(prefix=None))  # 2.25 of a random UUID
    return str(command[keyword].value)


def response(request: NormalizedRequest, answered: int | NormalizedAnswer) -> bytes:
    """The command set of the response, without a data set (PS3.7 10.3.1.2 to 10.3.5.2)."""
    answer = answered if isinstance(answered, NormalizedAnswer) else NormalizedAnswer(answered)
    type_element = _TYPE_ELEMENT.get(request.field)
    body = (
        _uid(0x0002, request.sop_class_uid)
        + _us(0x0100, request.field | _AS_RESPONSE)
        + _us(0x0120, request.message_id)
        + _us(0x0800, _NO_DATA_SET)
        + _us(0x0900, answer.status)
        + (_text(0x0902, answer.comment[:_LONGEST_COMMENT]) if answer.comment else b"")
        + (b"" if answer.error_id is None else _us(0x0903, answer.error_id))
        + _uid(0x1000, request.sop_instance_uid)
        + (b"" if type_element is None else _us(type_element, request.type_id))
    )
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(body)) + body


def _us(element: int, value: int) -> bytes:
    return _ELEMENT.pack(0, element, 2) + struct.pack("<H", value)


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    value += b"\0" * (len(value) % 2)
    return _ELEMENT.pack(0, element, len(value)) + value


def _text(element: int, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    value += b" " * (len(value) % 2)
    return _ELEMENT.pack(0, element, len(value)) + value
