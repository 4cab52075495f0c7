"""C-FIND, C-MOVE and C-CANCEL written byte by byte, so that they can be wrong."""

import struct
from collections.abc import Sequence
from typing import Self

from pydicom.uid import UID

from dicomnode.receiving.commands import Command, read_command
from tests.archive.holding import STUDY_ROOT
from tests.receiving.raw import DATA, RawSender, command, element, pdu, pdv
from tests.receiving.samples import ELE

FIND_RQ, MOVE_RQ, CANCEL_RQ = 0x0020, 0x0021, 0x0FFF


def request(field: int = FIND_RQ, *extra: bytes, model: str = STUDY_ROOT, message_id: int = 1, data_set: bool = True) -> bytes:
    """The command set of a C-FIND or C-MOVE (PS3.7 9.3.2.1, 9.3.4.1)."""
    return command(
        element(0x0002, model.encode()),
        element(0x0100, field),
        element(0x0110, message_id),
        *extra,
        element(0x0700, 0),
        element(0x0800, 0x0001 if data_set else 0x0101),
    )


def cancel(message_id: int = 1) -> bytes:
    """C-CANCEL (PS3.7 9.3.2.3), as a PDU."""
    said = command(element(0x0100, CANCEL_RQ), element(0x0120, message_id), element(0x0800, 0x0101))
    return pdu(DATA, pdv(said, command=True, last=True))


def key(tag: int, vr: str, value: str) -> bytes:
    """An element in Explicit VR Little Endian."""
    raw = value.encode()
    raw += b" " * (len(raw) % 2)
    if vr == "UN":
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"UN", 0, len(raw)) + raw
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(raw)) + raw


LEVEL = key(0x00080052, "CS", "STUDY")


class Asker:
    """`with Asker(port) as one:` — associated for C-FIND, Study Root."""

    def __init__(self, port: int, contexts: Sequence[tuple[str, Sequence[str]]] = ((STUDY_ROOT, (ELE,)),)) -> None:
        self.sender = RawSender(port)
        assert self.sender.associate(contexts=[(UID(abstract), syntaxes) for abstract, syntaxes in contexts]) == 2

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sender.socket.close()

    def ask(self, identifier: bytes | None, *, head: bytes | None = None, portion: int = 1 << 16, behind: bytes = b"") -> None:
        """Send a request, its identifier in PDVs of this size, and what follows it, at once."""
        head = request(data_set=identifier is not None) if head is None else head
        said = pdu(DATA, pdv(head, command=True, last=True))
        for start in range(0, len(identifier or b""), portion):
            part = (identifier or b"")[start : start + portion]
            last = start + portion >= len(identifier or b"")
            said += pdu(DATA, pdv(part, command=False, last=last))
        self.sender.send(said + behind)

    def heard(self) -> Command | None:
        """The next response's command set; data sets are skipped. None: no more PDUs of data."""
        while True:
            kind, body = self.sender.receive()
            if kind != DATA:
                return None
            at = 0
            while at < len(body):
                length, _, control = struct.unpack_from(">LBB", body, at)
                if control & 1:
                    return read_command(body[at + 6 : at + 4 + length])
                at += 4 + length

    def last(self) -> int:
        """The status of the final response."""
        while True:
            said = self.heard()
            assert said is not None, "the association ended"
            assert said.status is not None
            if said.status not in (0xFF00, 0xFF01):
                return said.status
