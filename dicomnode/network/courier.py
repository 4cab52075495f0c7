"""`Courier`: C-STOREs of a C-MOVE in a process of their own.

pynetdicom's two threads an association, and the copies that it makes of each object, would take the interpreter from the images
that come in (two threads that compute make a third that waits for a socket wait 5 ms each time). Whoever asked can also be
answered, and be heard when it cancels, while a destination that has died is waited for.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.routes import Peer

_LONGEST_LINE = 1 << 16
_LAST_WORDS_S = 2.0
_SLOWEST_BYTES_PER_S = 1_000_000  # to a branch behind 8 Mbit/s


def on_the_way_s(size_bytes: int) -> float:
    """How long an object of this size may take to a peer that lives, before its answer is waited for."""
    return size_bytes / _SLOWEST_BYTES_PER_S


class Courier:
    """One association to one peer. `close` ends its process, whatever it is at."""

    def __init__(self, peer: Peer, our_ae_title: str, kinds: Sequence[tuple[str, str]], *, originator: tuple[str, int]) -> None:
        """kinds: (SOP class, transfer syntax) of all that will be sent. originator: AE title and Message ID of the C-MOVE.

        Returns at once; whether the peer is there is the first word of `heard`.
        """
        tls = (
            None
            if peer.tls is None
            else [[str(path) if path else None for path in (peer.tls.certificate, peer.tls.key, peer.tls.ca)], peer.tls.pinned]
        )
        order = {
            "peer": [peer.name, peer.ae_title, peer.host, peer.port],
            "tls": tls,
            "ae_title": our_ae_title,
            "kinds": list(kinds),
            "originator": originator,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dicomnode.network.courier_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries' warnings quote what is sent
        )
        self._said = bytearray()
        self._tell(order)

    def close(self) -> None:
        """No more orders: it releases the association, and is ended if that takes too long."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """End it at once; the peer sees the connection go."""
        self._process.kill()

    def send(self, path: Path) -> None:
        """Begin to send a Part 10 file; `heard` tells how that went. Raises PeerUnreachable when the process is gone."""
        self._tell({"path": str(path)})

    def heard(self, wait_s: float) -> dict[str, Any] | None:
        """What it says next: {"peer": True}, {"status": n, or None without one}; None: nothing within this time.

        Raises PeerUnreachable if there is nothing more to come: the peer is out of reach, or the link was lost.
        """
        until = time.monotonic() + wait_s
        assert self._process.stdout is not None  # noqa: S101 - made as a pipe above
        while b"\n" not in self._said:
            left_s = until - time.monotonic()
            poll = select.poll()
            poll.register(self._process.stdout, select.POLLIN)
            if not poll.poll(max(left_s, 0) * 1000):
                return None
            piece = self._process.stdout.raw.read(_LONGEST_LINE)  # type: ignore[attr-defined]
            if not piece:
                raise PeerUnreachable("the process that sends has ended", "try again; if it stays, look at the peer's own log")
            self._said += piece
        line, _, rest = bytes(self._said).partition(b"\n")
        self._said = bytearray(rest)
        said: dict[str, Any] = json.loads(line)
        if "unreachable" in said:
            raise PeerUnreachable(said["unreachable"], said["remedy"])
        return said

    def _tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - made as a pipe above
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise PeerUnreachable("the process that sends has ended", "try again; look at the peer's own log") from None
