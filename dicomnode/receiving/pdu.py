"""PDUs of an established association, from bytes to events (PS3.8 9.3). No I/O.

Presentation data values (PDVs) are handed on as slices of what was read, as soon as any part of them is there: neither a PDU
nor a PDV is ever held whole. Only headers that a read has cut (six bytes each) are kept from one turn to the next.
"""

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum

PDU_HEADER = struct.Struct(">BxL")  # type, length (PS3.8 9.3.1)
_PDV_HEADER = struct.Struct(">LBB")  # length, presentation context ID, message control header (PS3.8 9.3.5.1, E.2)
_HEADER_BYTES = 6  # of a PDU and of a PDV
_SHORT_BODY = 4  # A-RELEASE and A-ABORT (PS3.8 9.3.6 - 9.3.8)


class Pdu(IntEnum):
    """PDU types (PS3.8 9.3)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


# What an event is. The first four are the message control header's bits (PS3.8 E.2): 1 command, 2 last fragment. A value counts
# as last only in the event that completes it.
DATA_PART, COMMAND_PART, DATA_END, COMMAND_END = range(4)
RELEASE_RQ, RELEASE_RP, ABORT = 5, 6, 7

type_event = tuple[int, int, memoryview]
"""What; presentation context ID, 0 where there is none; a piece of the value, perhaps empty."""

# A-ABORT: source, reason (PS3.8 9.3.8).
ABORTED_BY_USER = (0, 0)
NOT_SPECIFIED = (2, 0)
UNRECOGNIZED_PDU = (2, 1)
UNEXPECTED_PDU = (2, 2)
INVALID_PARAMETER = (2, 6)

RELEASE_RP_PDU = struct.pack(">BBLL", Pdu.RELEASE_RP, 0, _SHORT_BODY, 0)
# A peer may cut what one read brings into a hundred thousand values of one byte. This many also fit one writev().
MOST_EVENTS = 512
_LAST = frozenset({RELEASE_RQ, RELEASE_RP, ABORT})
_NOTHING = memoryview(b"")
_LONGEST_SENT = 131_072  # of a PDU; senders with DCMTK use no longer ones


class MustAbort(Exception):
    """The association ends here, with A-ABORT. `code`: one word for logs; `reason`: source and reason of the A-ABORT."""

    def __init__(self, code: str, reason: tuple[int, int] = INVALID_PARAMETER) -> None:
        super().__init__(code)
        self.code, self.reason = code, reason


def abort_pdu(source: int, reason: int) -> bytes:
    """A-ABORT (PS3.8 9.3.8)."""
    return struct.pack(">BBLBBBB", Pdu.ABORT, 0, _SHORT_BODY, 0, 0, source, reason)


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return struct.pack(">BBLBBBB", Pdu.ASSOCIATE_RJ, 0, _SHORT_BODY, 0, result, source, reason)


def data_pdus(context_id: int, command: bytes, longest: int) -> bytes:
    """P-DATA-TF of a whole command set: one PDU, more only where the peer's maximum length (PS3.8 D.1; 0: any) asks for it."""
    if not longest or len(command) + _HEADER_BYTES <= longest:
        return b"".join(
            (
                PDU_HEADER.pack(Pdu.DATA, len(command) + _HEADER_BYTES),
                _PDV_HEADER.pack(len(command) + 2, context_id, COMMAND_END),
                command,
            )
        )
    room = max(longest - _HEADER_BYTES, 1)
    parts = [command[start : start + room] for start in range(0, len(command), room)]
    controls = [COMMAND_PART] * (len(parts) - 1) + [COMMAND_END]
    return b"".join(
        PDU_HEADER.pack(Pdu.DATA, len(part) + _HEADER_BYTES) + _PDV_HEADER.pack(len(part) + 2, context_id, control) + part
        for part, control in zip(parts, controls, strict=True)
    )


def data_set_pdus(context_id: int, pieces: Iterable[bytes], size_bytes: int, longest: int) -> Iterator[bytes]:
    """P-DATA-TFs of a data set of this size, one PDV each, none longer than the peer takes (PS3.8 D.1; 0: any)."""
    room = max(min(longest or _LONGEST_SENT, _LONGEST_SENT) - _HEADER_BYTES, 1)
    held, at, left = b"", 0, size_bytes
    for piece in pieces:
        held, at = held[at:] + piece, 0
        while left and (len(held) - at >= min(room, left)):
            part = held[at : at + room]
            at, left = at + len(part), left - len(part)
            control = DATA_PART if left else DATA_END
            yield (
                PDU_HEADER.pack(Pdu.DATA, len(part) + _HEADER_BYTES)
                + _PDV_HEADER.pack(len(part) + 2, context_id, control)
                + part
            )
    if left:
        raise MustAbort("data_set_ends_early", NOT_SPECIFIED)


class PduReader:
    """Cuts the bytes of one established association, in whatever portions they come, into events."""

    def __init__(self, max_pdu_bytes: int) -> None:
        """max_pdu_bytes: of the PDU-length field; more than that is refused when its header is there."""
        self._max_pdu_bytes = max_pdu_bytes
        self._header = b""  # of a PDU or PDV, cut by the end of the last portion
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._control = 0
        self.broken: MustAbort | None = None
        self.left = _NOTHING

    def feed(self, data: memoryview) -> list[type_event]:
        """The events in these bytes; their pieces are slices of `data`. Nothing is read behind an A-RELEASE or A-ABORT.

        `MOST_EVENTS` at most; feed `left` then, before more. What breaks the protocol is kept in `broken`: what came before it
        is still to be answered.
        """
        events: list[type_event] = []
        try:
            position = self._read(data, events)
        except MustAbort as error:
            self.broken, position = error, len(data)
        self.left = data[position:]
        return events

    def _read(self, data: memoryview, events: list[type_event]) -> int:
        """How far that goes."""
        position, end = 0, len(data)
        while position < end and len(events) < MOST_EVENTS:
            if self._pdv_left:
                position = self._value(data, position, end, events)
                continue
            if self._header or end - position < _HEADER_BYTES:
                taken = data[position : position + _HEADER_BYTES - len(self._header)]
                position += len(taken)
                self._header += taken
                if len(self._header) < _HEADER_BYTES:
                    break
                header, self._header, at = self._header, b"", 0
            else:
                header, at = data, position  # type: ignore[assignment]
                position += _HEADER_BYTES
            if self._pdu_left:
                self._begin_pdv(header, at, events)
            elif self._begin_pdu(header, at, events):
                return end
        return position

    def _begin_pdu(self, header: bytes | memoryview, at: int, events: list[type_event]) -> bool:
        """Whether it is the last one."""
        pdu_type, length = PDU_HEADER.unpack_from(header, at)
        if pdu_type == Pdu.DATA:
            if length > self._max_pdu_bytes:
                raise MustAbort("pdu_too_long")
            if 0 < length < _HEADER_BYTES:
                raise MustAbort("length_of_pdu")
            self._pdu_left = length
            return False
        if pdu_type not in _LAST:
            known = pdu_type in (Pdu.ASSOCIATE_RQ, Pdu.ASSOCIATE_AC, Pdu.ASSOCIATE_RJ)
            raise MustAbort("unexpected_pdu", UNEXPECTED_PDU if known else UNRECOGNIZED_PDU)
        if length != _SHORT_BODY:
            raise MustAbort("length_of_pdu")
        events.append((pdu_type, 0, _NOTHING))
        return True

    def _begin_pdv(self, header: bytes | memoryview, at: int, events: list[type_event]) -> None:
        length, self._context_id, self._control = _PDV_HEADER.unpack_from(header, at)
        self._control &= COMMAND_END  # the other bits are reserved and not tested (PS3.8 E.2)
        self._pdu_left -= length + 4
        if length < 2 or self._pdu_left < 0 or 0 < self._pdu_left < _HEADER_BYTES:
            raise MustAbort("length_of_pdv")
        self._pdv_left = length - 2
        if not self._pdv_left:
            events.append((self._control, self._context_id, _NOTHING))

    def _value(self, data: memoryview, position: int, end: int, events: list[type_event]) -> int:
        """The part of a PDV's value that is there; where it ends."""
        stop = position + self._pdv_left
        if stop <= end:
            self._pdv_left = 0
            events.append((self._control, self._context_id, data[position:stop]))
            return stop
        self._pdv_left = stop - end
        events.append((self._control & COMMAND_PART, self._context_id, data[position:end]))
        return end
