"""Whatever speaks the protocol, behind a real listener and in front of a handler that notes what it is given."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from dicomnode.network import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, Permissions
from dicomnode.receiving import Limits, SenderGone, StoreAnswer, StoreRequest
from dicomnode.receiving.listener import Listener
from tests.receiving.raw import DATA, RawSender, pdu, pdv, store_command


class Speaker(Protocol):
    """`receiving.acceptor.Acceptor`, and the stock handler that it is compared with."""

    def serve(self, connection: socket.socket, address: str, calling_ae: str) -> None: ...
    def drain(self, drain_s: float) -> None: ...


class Recorder:
    """An `InstanceHandler` that keeps copies. `answer` may be replaced."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.kept: list[tuple[StoreRequest, bytes]] = []
        self.gone: list[bytes] = []  # what was there of data sets that did not end
        self.begun = threading.Event()
        self.answer: Callable[[StoreRequest, Iterator[Sequence[memoryview]]], StoreAnswer] = self.keep

    def store(self, request: StoreRequest, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        self.begun.set()
        return self.answer(request, data_set)

    def keep(self, request: StoreRequest, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        data = b""
        try:
            for pieces in data_set:
                assert all(pieces), "an empty piece"
                assert len(pieces) <= 512
                data += b"".join(pieces)
        except SenderGone:
            self.gone.append(data)
            raise
        self.kept.append((request, data))
        return StoreAnswer(0, "stored")


class NotedEnds:
    """How associations ended, in the order of their ends."""

    def __init__(self) -> None:
        self.opened = 0
        self.ends: dict[str, str] = {}

    def association_opened(self, *_: str) -> str:
        self.opened += 1
        return f"A{self.opened}"

    def association_ended(self, key: str, how: str) -> None:
        self.ends[key] = how


class Speaking:
    """`with Speaking(Acceptor) as node:` listens on a free port of the loopback."""

    def __init__(self, speaker: Callable[..., Speaker], limits: Limits | None = None) -> None:
        self.handler, self.ledger = Recorder(), NotedEnds()
        limits = limits or Limits()
        self.speaker = speaker(
            self.handler,
            self.ledger,
            Permissions([]),
            ae_titles=["DICOMNODE", "SECOND"],
            sop_classes=STORAGE_SOP_CLASSES,
            transfer_syntaxes=TRANSFER_SYNTAXES,
            limits=limits,
        )
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self._listener = Listener(listening, lambda _: True, self.speaker.serve, limits)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_listening()
        self.speaker.drain(0)

    def stop_listening(self) -> None:
        if self._listener.alive:
            self._listener.stop()

    def sender(self) -> RawSender:
        return RawSender(self.port)


def response_of(sender: RawSender) -> Dataset:
    """The command set of the next response, which is one PDV after another in as many PDUs as the requestor asked for."""
    encoded, last = b"", False
    while not last:
        kind, body = sender.receive()
        assert kind == DATA, f"PDU type {kind}"
        last = bool(body[5] & 2)
        assert body[5] & 1, "a data set came where a command was due"
        encoded += body[6:]
    stream: Any = DicomBytesIO(encoded)
    return read_dataset(stream, is_implicit_VR=True, is_little_endian=True)


def message(data: bytes, instance: str = "1.2.3", message_id: int = 1, context: int = 1) -> bytes:
    """A C-STORE, command and data set in a PDU each."""
    said = pdv(store_command(instance, message_id=message_id), command=True, last=True, context=context)
    return pdu(DATA, said) + pdu(DATA, pdv(data, command=False, last=True, context=context))
