"""One connection, where its peer takes nothing of what we say."""

import socket
import threading
import time

import pytest

from dicomnode.receiving import link
from dicomnode.receiving.limits import Limits
from tests.peers.waiting import wait_until


def test_a_thread_that_is_stuck_in_sending_ends_when_its_place_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would hold on for the whole network timeout, a thread for each such peer."""
    monkeypatch.setattr(link, "_STUCK_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as lazy:
        one = link.Link(server.accept()[0], Limits(network_timeout_s=60))
        one.open(bytearray(1000))
        ends: list[str] = []

        def say() -> None:
            try:
                one.send(bytes(64 << 20))  # more than the kernel takes for one who does not read
            except link.PeerGone as gone:
                ends.append(gone.code)
            one.close(b"farewell")

        speaking = threading.Thread(target=say)
        speaking.start()
        wait_until(lambda: len(lazy.recv(1, socket.MSG_PEEK)) == 1, what="the first bytes")
        time.sleep(0.3)
        began = time.monotonic()
        one.give_way()
        speaking.join(20)
        assert not speaking.is_alive()
        assert (ends, time.monotonic() - began < 5) == (["connection_lost"], True)
