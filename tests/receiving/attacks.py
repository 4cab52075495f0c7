"""What a hostile peer does to a node. Each attack is a context: it goes on until the block ends."""

import itertools
import selectors
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from tests.receiving import raw
from tests.receiving.raw import ASSOCIATE_AC, pdu, pdv, store_command
from tests.receiving.samples import CT, ELE, ct, encoded

DEFLATED = "1.2.840.10008.1.2.1.99"
_CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))
_GREETINGS = (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", _CLIENT_HELLO, b"\x16\x03\x01\xff\xff" + bytes(400), b"\x00" * 64)

type_attack = Callable[[int], AbstractContextManager[None]]


def connected(port: int) -> socket.socket:
    """From the same address as everybody."""
    return socket.create_connection(("127.0.0.1", port), timeout=5)


@contextmanager
def _until_the_end(*jobs: Callable[[threading.Event], None]) -> Iterator[None]:
    """Each job in a thread of its own; a connection that is cut off is what they meet, so OSErrors are nothing."""
    stop = threading.Event()

    def guarded(job: Callable[[threading.Event], None]) -> None:
        while not stop.is_set():
            with suppress(OSError):
                job(stop)
            stop.wait(0.05)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def _hold(port: int, count: int, first: bytes) -> Callable[[threading.Event], None]:
    """Keep so many connections open that have sent `first`; who is cut off comes again."""

    def hold(stop: threading.Event) -> None:
        selector = selectors.DefaultSelector()
        try:
            while not stop.is_set():
                while len(selector.get_map()) < count and not stop.is_set():
                    connection = connected(port)
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ)
                    if first:
                        with suppress(OSError):
                            connection.send(first)
                for key, _ in selector.select(0.2):
                    try:
                        over = not key.fileobj.recv(4096)  # type: ignore[union-attr]
                    except OSError:
                        over = True
                    if over:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            selector.close()

    return hold


@contextmanager
def two_bytes(port: int) -> Iterator[None]:
    """200 connections that send two bytes and stop."""
    with _until_the_end(_hold(port, 200, b"\x01\x00")):
        yield


@contextmanager
def open_sockets(port: int) -> Iterator[None]:
    """2,000 connections that send nothing."""
    with _until_the_end(*(_hold(port, 500, b"") for _ in range(4))):
        yield


@contextmanager
def parallel_associations(port: int) -> Iterator[None]:
    """100 associations that are opened and held."""
    with _until_the_end(*(_hold(port, 50, raw.associate_rq()) for _ in range(2))):
        yield


@contextmanager
def one_byte_a_second(port: int) -> Iterator[None]:
    """90 connections that dribble: a third their request, a third their command, a third their data set."""
    command = pdu(4, pdv(store_command("1.2.3"), command=True, last=True))
    data = pdu(4, pdv(bytes(100_000), command=False, last=True))
    starts = (b"", raw.associate_rq(), raw.associate_rq() + command)
    rests = (raw.associate_rq(), command, data)

    def dribble(start: bytes, rest: bytes) -> Callable[[threading.Event], None]:
        def run(stop: threading.Event) -> None:
            with ExitStack() as stack:
                all_of_them = [stack.enter_context(connected(port)) for _ in range(30)]
                for one in all_of_them:
                    with suppress(OSError):
                        one.sendall(start)
                for byte in rest:
                    alive = False
                    for one in all_of_them:
                        with suppress(OSError):
                            one.send(bytes([byte]))
                            alive = True
                    if not alive or stop.wait(1.0):
                        return

        return run

    with _until_the_end(*(dribble(start, rest) for start, rest in zip(starts, rests, strict=True))):
        yield


@contextmanager
def pdus_of_4_gib(port: int) -> Iterator[None]:
    """PDUs whose headers announce 4 GiB, before and in an association, with as much of it as is taken."""
    flood = bytes(1 << 20)

    def send(proper: bytes, header: bytes) -> Callable[[threading.Event], None]:
        def run(stop: threading.Event) -> None:
            with connected(port) as connection:
                connection.sendall(proper + header)
                for _ in itertools.takewhile(lambda _: not stop.is_set(), range(300)):
                    connection.sendall(flood)

        return run

    with _until_the_end(
        send(b"", b"\x01\x00\xff\xff\xff\xff"),
        send(raw.associate_rq(), b"\x04\x00\xff\xff\xff\xf0"),
        send(raw.associate_rq(), pdu(4, struct.pack(">LBB", 0xFFFFFFF0, 1, 2))),
    ):
        yield


def bomb(inflated_bytes: int) -> bytes:
    """A deflated data set: a private element that announces and holds so many zeros."""
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = struct.pack("<HH2sHL", 0x0009, 0x1010, b"OB", 0, inflated_bytes)
    parts = [deflater.compress(head)]
    piece = bytes(1 << 20)
    parts += [deflater.compress(piece) for _ in range(inflated_bytes >> 20)]
    return b"".join((*parts, deflater.flush()))


_BOMB = bomb(1 << 30)


@contextmanager
def deflate_bombs(port: int) -> Iterator[None]:
    """Two senders of 1 MB that inflates to 1 GB."""

    def run(stop: threading.Event) -> None:
        with raw.RawSender(port) as sender:
            if sender.associate(contexts=[(CT, (DEFLATED,))]) != ASSOCIATE_AC:
                return
            sender.send(pdu(4, pdv(store_command("1.2.3"), command=True, last=True)))
            for start in range(0, len(_BOMB), 60_000):
                piece = _BOMB[start : start + 60_000]
                sender.send(pdu(4, pdv(piece, command=False, last=start + 60_000 >= len(_BOMB))))
            sender.receive()
        stop.wait(0.5)

    with _until_the_end(run, run):
        yield


@contextmanager
def other_protocols(port: int) -> Iterator[None]:
    """HTTP requests, TLS greetings and garbage, one after the other and without a pause."""

    def run(stop: threading.Event) -> None:
        for greeting in itertools.cycle(_GREETINGS):
            if stop.is_set():
                return
            with suppress(OSError), connected(port) as connection:
                connection.sendall(greeting)
                connection.recv(100)
            stop.wait(0.01)

    with _until_the_end(run, run):
        yield


@contextmanager
def aborts_everywhere(port: int) -> Iterator[None]:
    """Associations that are aborted or just left at each place of request, command and data set, in turn."""
    image = ct()
    message = pdu(4, pdv(store_command(image.SOPInstanceUID), command=True, last=True))
    message = raw.associate_rq() + message + pdu(4, pdv(encoded(image), command=False, last=True))

    def leave(abort: bytes) -> Callable[[threading.Event], None]:
        def run(stop: threading.Event) -> None:
            for cut in itertools.takewhile(lambda _: not stop.is_set(), range(0, len(message), 7)):
                with suppress(OSError), connected(port) as connection:
                    connection.sendall(message[:cut] + abort)
                    if cut % 2:  # half of them leave with unread answers: a reset
                        connection.recv(1000)
                stop.wait(0.01)

        return run

    with _until_the_end(leave(pdu(7, bytes(4))), leave(b"")):
        yield


@contextmanager
def enormous_requests(port: int) -> Iterator[None]:
    """Association requests of 250 KB, with far more presentation contexts than there are IDs."""
    request = _enormous_request()

    def run(stop: threading.Event) -> None:
        with connected(port) as connection:
            connection.sendall(request)
            connection.recv(1000)
        stop.wait(0.2)

    with _until_the_end(run, run, run):
        yield


def _enormous_request() -> bytes:
    small = raw.associate_rq(contexts=[(CT, (ELE,))])
    start = small.index(b"\x20\x00", 74)
    (length,) = struct.unpack_from(">H", small, start + 2)
    item = small[start : start + 4 + length]
    body = small[6:start] + item * (250_000 // len(item)) + small[start + len(item) :]
    return struct.pack(">BBL", 1, 0, len(body)) + body


ATTACKS: Mapping[str, type_attack] = {
    attack.__name__: attack
    for attack in (
        two_bytes,
        one_byte_a_second,
        pdus_of_4_gib,
        deflate_bombs,
        parallel_associations,
        open_sockets,
        other_protocols,
        aborts_everywhere,
        enormous_requests,
    )
}


@contextmanager
def all_at_once(port: int) -> Iterator[None]:
    """Every attack of the table."""
    with ExitStack() as stack:
        for attack in ATTACKS.values():
            stack.enter_context(attack(port))
        yield


def wait_for_effect(seconds: float) -> None:
    """An attack needs a moment until it is what it is: places taken, queues full."""
    time.sleep(seconds)
