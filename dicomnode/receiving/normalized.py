"""DIMSE-N requests beside the image stream (PS3.7 10): what reaches a handler, and how it is answered. No I/O.

They are rare and small: the data set is read whole, up to a bound, and parsed by pydicom.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from dicomnode.domain.routes import Peer
from dicomnode.receiving.pdu import MustAbort

N_EVENT_REPORT_RQ, N_ACTION_RQ = 0x0100, 0x0130  # Command Field values (PS3.7 E.1)
LARGEST_DATA_SET = 16 << 20

_AS_RESPONSE = 0x8000
_NO_DATA_SET = 0x0101
_ELEMENT = struct.Struct("<HHL")
# Of each request: who names the SOP class, who the instance, and which number says what is asked (PS3.7 10.3.1, 10.3.4).
_FIELDS: Mapping[int, tuple[str, str, str]] = {
    N_EVENT_REPORT_RQ: ("AffectedSOPClassUID", "AffectedSOPInstanceUID", "EventTypeID"),
    N_ACTION_RQ: ("RequestedSOPClassUID", "RequestedSOPInstanceUID", "ActionTypeID"),
}
_TYPE_ELEMENT = {N_EVENT_REPORT_RQ: 0x1002, N_ACTION_RQ: 0x1008}


@dataclass(frozen=True, slots=True)
class NormalizedRequest:
    """One request. type_id: Event Type ID or Action Type ID."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    type_id: int
    peer: Peer
    data_set: Dataset


class NormalizedHandler(Protocol):
    """Answers DIMSE-N requests of the SOP classes that it names."""

    sop_classes: frozenset[str]

    def serve(self, request: NormalizedRequest) -> int:
        """The status of the response; what it promises is durable by then. Never raises for what the peer sent."""
        ...


def is_normalized(field: int) -> bool:
    """Whether this Command Field is one that a handler may answer."""
    return field in _FIELDS


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
            sop_instance_uid=str(command[names[1]].value),
            type_id=int(command[names[2]].value),
            peer=peer,
            data_set=content,
        )
    except Exception as error:  # boundary: pydicom raises whatever its parsing ran into
        raise MustAbort("normalized_request") from error


def response(request: NormalizedRequest, status: int) -> bytes:
    """The command set of the response, without a data set (PS3.7 10.3.1.2, 10.3.4.2)."""
    body = (
        _uid(0x0002, request.sop_class_uid)
        + _us(0x0100, request.field | _AS_RESPONSE)
        + _us(0x0120, request.message_id)
        + _us(0x0800, _NO_DATA_SET)
        + _us(0x0900, status)
        + _uid(0x1000, request.sop_instance_uid)
        + _us(_TYPE_ELEMENT[request.field], request.type_id)
    )
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(body)) + body


def _us(element: int, value: int) -> bytes:
    return _ELEMENT.pack(0, element, 2) + struct.pack("<H", value)


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    value += b"\0" * (len(value) % 2)
    return _ELEMENT.pack(0, element, len(value)) + value
