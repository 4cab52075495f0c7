"""A sender that writes its own PDUs, so that it can write wrong ones (PS3.8 9.3)."""

import socket
import struct
from collections.abc import Sequence
from typing import Self

from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from tests.receiving.samples import CT, ELE

ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RP, ABORT = 2, 3, 4, 6, 7


def associate_rq(
    contexts: Sequence[tuple[str, Sequence[str]]] = ((CT, (ELE,)),),
    called: str = "DICOMNODE",
    *,
    calling: str = "RAW",
    items: Sequence[object] = (),
    longest_pdu: int = 16384,
) -> bytes:
    """An A-ASSOCIATE-RQ; `items`: further user information, as pynetdicom's primitives."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = longest_pdu, UID("1.2.3.4")
    primitive.user_information = [length, implementation, *items]
    proposed = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts]
    for index, context in enumerate(proposed):
        context.context_id = 2 * index + 1
    primitive.presentation_context_definition_list = proposed
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def pdv(data: bytes, *, command: bool, last: bool, context: int = 1) -> bytes:
    return struct.pack(">LBB", len(data) + 2, context, command | last << 1) + data


def element(number: int, value: bytes | int) -> bytes:
    """An element of a command set (PS3.7 6.3.1); an int stands for a US."""
    if isinstance(value, int):
        value = struct.pack("<H", value)
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def command(*elements: bytes) -> bytes:
    """A command set in Implicit VR Little Endian, with its group length."""
    body = b"".join(elements)
    return element(0x0000, struct.pack("<L", len(body))) + body


def store_command(sop_instance: str, sop_class: str = CT, message_id: int = 1) -> bytes:
    """A C-STORE-RQ command set (PS3.7 9.3.1.1)."""
    return command(
        element(0x0002, sop_class.encode()),
        element(0x0100, 1),
        element(0x0110, message_id),
        element(0x0700, 0),
        element(0x0800, 1),
        element(0x1000, sop_instance.encode()),
    )


def echo_command(message_id: int = 1) -> bytes:
    """A C-ECHO-RQ command set (PS3.7 9.3.5.1)."""
    return command(
        element(0x0002, b"1.2.840.10008.1.1"), element(0x0100, 0x30), element(0x0110, message_id), element(0x0800, 0x0101)
    )


class RawSender:
    """One connection; `with` closes it."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def associate(self, **options: object) -> int:
        """Ask for an association; the type of the answering PDU."""
        self.send(associate_rq(**options))  # type: ignore[arg-type]
        return self.receive()[0]

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: type and body; type 0 for the end of the connection."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", header)
        return kind, self._exactly(length)

    def receive_status(self) -> int:
        """The status of a C-STORE response: element (0000,0900)."""
        kind, body = self.receive()
        assert kind == DATA, f"PDU type {kind}"
        position = body.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int(struct.unpack_from("<H", body, position)[0])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                break
            if not piece:
                break
            data += piece
        return data

    def release(self) -> int:
        self.send(pdu(5, bytes(4)))
        return self.receive()[0]
