"""Who is accepted, who waits, and who is closed for whom: real sockets, several addresses of the loopback."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from dicomnode.receiving.limits import Limits
from dicomnode.receiving.listener import Listener
from tests.peers.dcmtk import echoscu
from tests.peers.waiting import wait_until
from tests.receiving import raw
from tests.receiving.receive_process import ReceiveProcess

type_delivered = list[tuple[str, str]]


@contextmanager
def listening(limits: Limits, **options: object) -> Iterator[tuple[int, type_delivered]]:
    """The port, and what was delivered: address and calling AE title."""
    delivered: type_delivered = []
    server = socket.create_server(("0.0.0.0", 0))  # noqa: S104 - connections come from several loopback addresses
    port = server.getsockname()[1]

    def deliver(connection: socket.socket, address: str, calling_ae: str) -> None:
        delivered.append((address, calling_ae))
        connection.close()

    listener = Listener(server, lambda address: address != "127.0.0.9", deliver, limits, **options)  # type: ignore[arg-type]
    listener.start()
    try:
        yield port, delivered
    finally:
        listener.stop()


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0))


def closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(100) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_an_unlisted_address_is_closed_before_a_byte_is_read() -> None:
    with listening(Limits()) as (port, delivered), connect(port, "127.0.0.9") as stranger:
        wait_until(lambda: closed(stranger), timeout_s=5, what="the stranger to be closed")
        with connect(port) as listed:
            listed.sendall(raw.associate_rq())
            wait_until(lambda: delivered, timeout_s=5, what="the listed one to be delivered")
    assert delivered == [("127.0.0.1", "RAW")]


def test_over_the_cap_the_oldest_of_the_address_that_holds_most_is_closed() -> None:
    with listening(Limits(max_waiting=8)) as (port, delivered), ExitStack() as stack:
        alone = stack.enter_context(connect(port, "127.0.0.2"))
        crowd = [stack.enter_context(connect(port, "127.0.0.3")) for _ in range(8)]
        wait_until(lambda: closed(crowd[0]), timeout_s=5, what="the oldest of the crowd to be closed")
        wait_until(lambda: closed(crowd[1]), timeout_s=5, what="its share of three quarters to be kept")
        assert not closed(alone)
        assert not any(closed(one) for one in crowd[2:])
        for one in (alone, crowd[-1]):
            one.setblocking(True)
            one.sendall(raw.associate_rq())
        wait_until(lambda: len(delivered) == 2, timeout_s=5, what="both to be delivered")


def test_two_thousand_sockets_of_one_address_leave_room_for_a_request_from_the_same_address() -> None:
    with listening(Limits(max_waiting=64)) as (port, delivered), ExitStack() as stack:
        for _ in range(2000):
            stack.enter_context(connect(port))
        modality = stack.enter_context(connect(port))
        modality.sendall(raw.associate_rq())
        wait_until(lambda: delivered, timeout_s=5, what="the modality to be delivered")


def test_who_waits_for_a_place_gets_it_in_order_of_merit_and_is_rejected_when_none_comes() -> None:
    gate = threading.Event()
    merit: Callable[[str, str], int] = lambda address, _: 0 if address == "127.0.0.4" else 1  # noqa: E731
    limits = Limits(place_wait_s=1.5)
    with listening(limits, make_room=lambda *_: gate.is_set(), merit=merit) as (port, delivered), ExitStack() as stack:
        first, second, third = (stack.enter_context(connect(port, f"127.0.0.{last}")) for last in (2, 4, 3))
        for one in (first, second):
            one.sendall(raw.associate_rq())
        with suppress(TimeoutError):
            wait_until(lambda: delivered, timeout_s=0.6)
        gate.set()
        wait_until(lambda: len(delivered) == 2, timeout_s=5, what="both to be let in")
        assert [address for address, _ in delivered] == ["127.0.0.4", "127.0.0.2"]
        gate.clear()
        third.sendall(raw.associate_rq())
        assert third.recv(100) == bytes((3, 0, 0, 0, 0, 4, 0, 2, 3, 2))  # PS3.8 9.3.4: transient, local limit exceeded


def test_a_farewell_is_read_by_a_peer_that_goes_on_sending() -> None:
    with listening(Limits(association_deadline_s=0.5)) as (port, _), connect(port) as talking:
        talking.sendall(raw.associate_rq()[:60])
        assert talking.recv(100) == bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 0))  # A-ABORT, before the connection's end
        with suppress(ConnectionError):
            for _ in range(20):
                talking.sendall(bytes(1000))


@pytest.mark.parametrize("descriptors", [200])
def test_a_process_with_few_descriptors_serves_although_more_connections_are_open(tmp_path: Path, descriptors: int) -> None:
    with ReceiveProcess(tmp_path, prefix=["prlimit", f"--nofile={descriptors}:{descriptors}"]) as node, ExitStack() as stack:
        for _ in range(2 * descriptors):
            stack.enter_context(connect(node.port))
        assert echoscu(node.port).ok
        assert len(list(Path(f"/proc/{node.pid}/fd").iterdir())) < descriptors
