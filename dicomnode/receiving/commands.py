"""Command sets: read by an own small reader, answered from templates or element by element (PS3.7 6.3, 9.3). No I/O.

A command set is Implicit VR Little Endian, group 0000 alone, and short. What does not fit that is refused; what the standard
lets a receiver overlook (the group length, unknown elements) is overlooked.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from dicomnode.receiving.pdu import MustAbort

LONGEST_COMMAND = 1 << 16

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001  # Command Field values (PS3.7 E.1)
C_ECHO_RQ, C_ECHO_RSP = 0x0030, 0x8030
C_CANCEL_RQ = 0x0FFF
AS_RESPONSE = 0x8000  # added to a request's Command Field

NO_DATA_SET, DATA_SET = 0x0101, 0x0001  # Command Data Set Type (PS3.7 E.1)
_LONGEST_COMMENT = 64  # Error Comment is an LO
_ELEMENT = struct.Struct("<HHL")  # group, element, length (PS3.7 6.3.1)
_US = struct.Struct("<H")

_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_MOVE_DESTINATION = 0x0600
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_US_ELEMENTS = frozenset({_COMMAND_FIELD, _MESSAGE_ID, _MESSAGE_ID_BEING_RESPONDED_TO, 0x0700, _COMMAND_DATA_SET_TYPE, _STATUS})
_PADDED_BY_SPACES = frozenset({_MOVE_DESTINATION, _ERROR_COMMENT, 0x1030})  # AE and LO; UIDs by NUL (PS3.5 6.2)

_RESPONSE_HEAD = struct.Struct("<HHLL")  # (0000,0000) with its value
_RESPONSE_MIDDLE = struct.Struct("<HHLH HHLH HHLH HHLH")  # Command Field, Message ID Being Responded To, Data Set Type, Status


@dataclass(frozen=True, slots=True)
class Command:
    """A request (PS3.7 9.3, 10.3). sop_class, sop_instance: the UIDs' encoded values as they came, None where there is none.

    regarding: Message ID Being Responded To, of responses and C-CANCEL. status: of a response. move_destination: of a C-MOVE.
    """

    field: int
    message_id: int | None
    has_data_set: bool
    sop_class: bytes | None
    sop_instance: bytes | None
    regarding: int | None = None
    status: int | None = None
    move_destination: str = ""

    @property
    def sop_class_uid(self) -> str:
        """Affected SOP Class UID (0000,0002); "" without one."""
        return _uid(self.sop_class)

    @property
    def sop_instance_uid(self) -> str:
        """Affected SOP Instance UID (0000,1000); "" without one."""
        return _uid(self.sop_instance)


def _uid(value: bytes | None) -> str:
    """What is no UID at all becomes one that no data set has; it is compared, never used."""
    return (value or b"").rstrip(b"\0 ").decode("ascii", "backslashreplace")


def read_command(encoded: bytes) -> Command:
    """Read a whole command set. Raises MustAbort."""
    values: dict[int, bytes] = {}
    position, end = 0, len(encoded)
    while position < end:
        if end - position < _ELEMENT.size:
            raise MustAbort("command_cut")
        group, element, length = _ELEMENT.unpack_from(encoded, position)
        position += _ELEMENT.size + length
        if group or position > end:
            raise MustAbort("command_group" if group else "command_cut")
        if element in values or (element in _US_ELEMENTS and length != _US.size):
            raise MustAbort("command_element")
        values[element] = encoded[position - length : position]
    if _COMMAND_FIELD not in values or _COMMAND_DATA_SET_TYPE not in values:
        raise MustAbort("command_incomplete")
    message_id, regarding, status = map(values.get, (_MESSAGE_ID, _MESSAGE_ID_BEING_RESPONDED_TO, _STATUS))
    return Command(
        _us(values[_COMMAND_FIELD]),
        None if message_id is None else _us(message_id),
        _us(values[_COMMAND_DATA_SET_TYPE]) != NO_DATA_SET,
        values.get(_AFFECTED_SOP_CLASS_UID),
        values.get(_AFFECTED_SOP_INSTANCE_UID),
        None if regarding is None else _us(regarding),
        None if status is None else _us(status),
        values.get(_MOVE_DESTINATION, b"").decode("ascii", "replace").strip(" \0"),
    )


def _us(value: bytes) -> int:
    return int(_US.unpack(value)[0])


def response(field: int, request: Command, status: int, comment: str = "") -> bytes:
    """The command set of a C-STORE or C-ECHO response (PS3.7 9.3.1.2, 9.3.5.2); the request's UIDs come back as they were."""
    sop_class = _element(_AFFECTED_SOP_CLASS_UID, request.sop_class)
    middle = _RESPONSE_MIDDLE.pack(
        0, 0x0100, 2, field, 0, 0x0120, 2, request.message_id or 0, 0, 0x0800, 2, NO_DATA_SET, 0, 0x0900, 2, status
    )  # fmt: skip
    said = _element(_ERROR_COMMENT, comment[:_LONGEST_COMMENT].encode("ascii", "replace")) if comment else b""
    sop_instance = _element(_AFFECTED_SOP_INSTANCE_UID, request.sop_instance)
    body = sop_class + middle + said + sop_instance
    return _RESPONSE_HEAD.pack(0, 0, 4, len(body)) + body


def command_set(values: Mapping[int, int | bytes | None]) -> bytes:
    """Any command set: element of group 0000 → number (US) or encoded text; None: without this element."""
    body = b"".join(
        _ELEMENT.pack(0, element, _US.size) + _US.pack(value) if isinstance(value, int) else _element(element, value)
        for element, value in sorted(values.items())
    )
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(body)) + body


def _element(element: int, value: bytes | None) -> bytes:
    if value is None:
        return b""
    if len(value) % 2:
        value += b" " if element in _PADDED_BY_SPACES else b"\0"
    return _ELEMENT.pack(0, element, len(value)) + value
