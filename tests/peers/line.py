"""A line between two programs that a test can cut or deaden: a TCP proxy on the loopback."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Line:
    """Forwards `port` to `target`. Each connection is two sockets of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._words: list[bytes] = []
        self._mute_at = b""
        self._dead = threading.Event()
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        self._cut()

    def cut_at_answer_to(self, *words: bytes) -> None:
        """Once clients have said these, one after the other, and the last was answered, all connections are cut: no answer."""
        self._words += words

    def mute_at(self, word: bytes) -> None:
        """Once a client has said this, nothing comes back to it any more; what it says still gets through."""
        self._mute_at = word

    def deaden(self) -> None:
        """From now on nothing gets through, on connections old and new, and nobody is told: no FIN, no RST."""
        self._dead.set()

    def revive(self) -> None:
        """New connections get through again; the old ones stay dead."""
        self._mute_at = b""
        self._dead.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                if self._dead.is_set():
                    self._ends.append(near)
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                self._ends += [near, far]
                said, mute = threading.Event(), threading.Event()
                for source, sink, listens in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._forward, args=(source, sink, said, mute, listens), daemon=True).start()

    def _forward(
        self, source: socket.socket, sink: socket.socket, said: threading.Event, mute: threading.Event, listens: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._dead.is_set():
                    return  # without a word to either end
                if listens and self._mute_at and self._mute_at in data:
                    mute.set()
                if mute.is_set() and not listens:
                    return
                if listens and self._words and self._words[0] in data:
                    self._words.pop(0)
                    if not self._words:
                        said.set()
                elif not listens and said.is_set():
                    self.cuts += 1
                    self._cut()
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _cut(self) -> None:
        ends, self._ends = self._ends, []  # not those that come anew meanwhile
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
