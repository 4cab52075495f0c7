"""Peers that are broken or mean harm end only themselves."""

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from dicomnode.network import echo
from dicomnode.receiving import Limits
from tests.peers.waiting import wait_until
from tests.receiving import raw
from tests.receiving.raw import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RP, RawSender, pdu, pdv, store_command
from tests.receiving.reception import Reception, local_peer
from tests.receiving.samples import CT, ELE, ct, encoded, saved

QUICK = Limits(association_deadline_s=2.0, max_waiting=40)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@contextmanager
def open_connections(port: int, count: int, first_bytes: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(socket.create_connection(("127.0.0.1", port)))) for _ in range(count)]
        for connection in connections:
            connection.setblocking(False)
            try:
                connection.send(first_bytes)
            except OSError:
                continue  # cut off already
        yield connections


@pytest.mark.parametrize(
    "first_bytes",
    [
        b"",
        b"\x01\x00",
        raw.associate_rq()[:-1],
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x01\x00\xff\xff\xff\xff" + bytes(1000),
        b"\x04\x00\xff\xff\xff\xff" + bytes(1000),
    ],
    ids=["silent", "two bytes", "a request less one byte", "HTTP", "TLS", "request of 4 GiB", "data of 4 GiB"],
)
def test_a_hundred_connections_that_ask_for_nothing_leave_the_node_serving(
    make_reception: Callable[..., Reception], first_bytes: bytes
) -> None:
    reception = make_reception(limits=QUICK)
    threads = threading.active_count()
    with open_connections(reception.port, 100, first_bytes) as connections:
        assert echo(local_peer(reception.port), "MODALITY") < 5
        assert threading.active_count() <= threads + 8
        wait_until(lambda: all(_ended(one) for one in connections), timeout_s=10, what="all to be closed")
    assert echo(local_peer(reception.port), "MODALITY") < 5


def _ended(connection: socket.socket) -> bool:
    try:
        while connection.recv(64):
            continue
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def test_a_pdu_of_4_gib_inside_an_association_ends_it_before_memory_grows(reception: Reception) -> None:
    with RawSender(reception.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        before = resident_bytes()
        sender.send(struct.pack(">BBL", DATA, 0, 0xFFFFFFF0))
        assert sender.receive()[0] == ABORT
        with suppress(ConnectionError):
            for _ in range(100):
                sender.send(bytes(1 << 20))
        assert resident_bytes() - before < 32 << 20


def test_a_data_set_beyond_the_limit_is_aborted(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(limits=Limits(max_object_bytes=1 << 20))
    with RawSender(reception.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(pdu(DATA, pdv(store_command("1.2.3"), command=True, last=True)))
        piece = pdu(DATA, pdv(bytes(60_000), command=False, last=False))
        with suppress(ConnectionError):
            for _ in range(200):
                sender.send(piece)
        assert sender.receive()[0] in {0, ABORT}
    assert echo(local_peer(reception.port), "MODALITY") < 5


def test_many_peers_in_mid_object_hold_no_memory_and_a_small_image_still_gets_in(
    make_reception: Callable[..., Reception], tmp_path: Path
) -> None:
    reception = make_reception(limits=Limits(max_associations=8))
    piece = pdu(DATA, pdv(bytes(60_000), command=False, last=False))
    with ExitStack() as stack:
        senders = [stack.enter_context(RawSender(reception.port)) for _ in range(4)]
        for sender in senders:
            assert sender.associate() == ASSOCIATE_AC
            sender.send(pdu(DATA, pdv(store_command("1.2.3"), command=True, last=True)))
        before = resident_bytes()
        for sender in senders:
            for _ in range(300):
                sender.send(piece)
        assert resident_bytes() - before < 24 << 20  # of 72 MB that came in
        assert reception.send(*(saved(ct(), tmp_path) for _ in range(20))) == [0] * 20


def test_who_finds_no_place_is_rejected_and_nobody_is_cut_in_mid_object(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(limits=Limits(max_associations=3))
    images = [ct() for _ in range(3)]
    with ExitStack() as stack:
        held = [stack.enter_context(RawSender(reception.port)) for _ in images]
        assert [sender.associate() for sender in held] == [ASSOCIATE_AC] * 3
        for sender, image in zip(held, images, strict=True):
            first = ct()
            sender.send(message_of(first))
            assert sender.receive_status() == 0
            sender.send(message_of(image)[:-100])
        with RawSender(reception.port) as fourth:
            fourth.send(raw.associate_rq())
            assert fourth.receive() == (ASSOCIATE_RJ, bytes([0, 2, 3, 2]))  # transient, local limit exceeded
        for sender, image in zip(held, images, strict=True):
            sender.send(message_of(image)[-100:])
            assert sender.receive_status() == 0
        assert held[0].release() == RELEASE_RP
        wait_until(lambda: _echo_works(reception), timeout_s=5, what="a free place")


def message_of(image: object) -> bytes:
    """Command and data set, each in a PDU of its own."""
    command = pdv(store_command(image.SOPInstanceUID), command=True, last=True)  # type: ignore[attr-defined]
    return pdu(DATA, command) + pdu(DATA, pdv(encoded(image), command=False, last=True))  # type: ignore[arg-type]


def _echo_works(reception: Reception) -> bool:
    try:
        return echo(local_peer(reception.port), "MODALITY") < 5
    except Exception:  # noqa: BLE001 - not yet
        return False


def test_an_established_peer_that_falls_silent_is_aborted(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(limits=Limits(network_timeout_s=1.0))
    with RawSender(reception.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        started = time.monotonic()
        assert sender.receive()[0] == ABORT
        assert time.monotonic() - started < 5


def test_a_peer_that_stops_inside_a_pdu_is_cut_off(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(limits=Limits(network_timeout_s=1.0))
    with RawSender(reception.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(struct.pack(">BBL", DATA, 0, 10_000) + bytes(100))
        assert sender.receive()[0] in {0, ABORT}


def test_a_long_request_that_stops_or_dribbles_is_cut_off_at_the_deadline(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception(limits=Limits(association_deadline_s=1.5, max_associations=2))
    classes = [(f"1.2.3.{number}", (ELE,)) for number in range(128)]
    request = raw.associate_rq(contexts=[(uid, [ELE] + [f"1.2.3.4.{n}" for n in range(40)]) for uid, _ in classes])
    assert len(request) > 60_000
    with RawSender(reception.port) as stopping, RawSender(reception.port) as dribbling:
        stopping.send(request[:20_000])
        dribbling.send(request[:20_000])
        started = time.monotonic()
        with suppress(ConnectionError):
            for byte in request[20_000:20_030]:
                dribbling.send(bytes([byte]))
                time.sleep(0.1)
        assert stopping.receive()[0] in {0, ABORT}
        assert time.monotonic() - started < 8
    wait_until(lambda: _echo_works(reception), timeout_s=8, what="both places to be free again")


def test_an_abort_at_any_place_of_a_message_leaves_nothing_and_the_node_serves_on(reception: Reception) -> None:
    image = ct()
    data = encoded(image)
    message = pdu(DATA, pdv(store_command(image.SOPInstanceUID), command=True, last=True)) + pdu(
        DATA, pdv(data, command=False, last=True)
    )
    chosen = random.Random(7)  # noqa: S311
    for cut in (0, 3, 6, 12, *chosen.sample(range(len(message) - 1), 12)):
        with RawSender(reception.port) as sender:
            assert sender.associate() == ASSOCIATE_AC
            sender.send(message[:cut])
            if cut % 2:
                sender.send(pdu(ABORT, bytes(4)))
    assert reception.send(saved(image, reception.root)) == [0]
    assert len(reception.files()) == 1


def pieces_of(image: object, sizes: Iterator[int]) -> bytes:
    """The data set in PDVs of the given sizes, each in a PDU of its own, ended by an empty one."""
    data, stream, position = encoded(image), b"", 0  # type: ignore[arg-type]
    while position < len(data):
        size = next(sizes)
        stream += pdu(DATA, pdv(data[position : position + size], command=False, last=False))
        position += size
    return stream + pdu(DATA, pdv(b"", command=False, last=True))


def test_any_legal_cut_into_pdus_and_pdvs_is_understood(reception: Reception) -> None:
    """Command in two halves; PDVs of any size, several in a PDU, command and data together, an empty last one (PS3.8 E)."""
    chosen = random.Random(11)  # noqa: S311
    with RawSender(reception.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        first, second = ct(), ct()
        command = store_command(first.SOPInstanceUID)
        stream = pdu(DATA, pdv(command[:9], command=True, last=False))
        stream += pdu(DATA, pdv(command[9:], command=True, last=True))
        sender.send(stream + pieces_of(first, iter(lambda: chosen.randint(1, 700), None)))
        assert sender.receive_status() == 0
        data = encoded(second)
        together = pdv(store_command(second.SOPInstanceUID), command=True, last=True)
        together += pdv(data[:101], command=False, last=False) + pdv(data[101:], command=False, last=True)
        whole = pdu(DATA, together)
        for start in range(0, len(whole), 97):
            sender.send(whole[start : start + 97])
        assert sender.receive_status() == 0
        assert sender.release() == RELEASE_RP
    assert reception.kept_data_set(first.SOPInstanceUID) == encoded(first)
    assert reception.kept_data_set(second.SOPInstanceUID) == data


def test_requests_sent_without_waiting_are_answered_one_by_one(reception: Reception) -> None:
    images = [ct() for _ in range(4)]
    with RawSender(reception.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        for number, image in enumerate(images):
            command = pdv(store_command(image.SOPInstanceUID, message_id=number), command=True, last=True)
            sender.send(pdu(DATA, command + pdv(encoded(image), command=False, last=True)))
        assert [sender.receive_status() for _ in images] == [0] * 4
    assert len(reception.files()) == 4


def test_128_contexts_are_negotiated(reception: Reception) -> None:
    from dicomnode.network import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES

    classes = [CT, *sorted(STORAGE_SOP_CLASSES - {CT})][:128]
    image = ct()
    with RawSender(reception.port) as sender:
        assert sender.associate(contexts=[(uid, TRANSFER_SYNTAXES[:40]) for uid in classes]) == ASSOCIATE_AC
    with RawSender(reception.port) as sender:
        assert sender.associate(contexts=[(uid, (ELE,)) for uid in classes]) == ASSOCIATE_AC
        command = pdv(store_command(image.SOPInstanceUID), command=True, last=True)
        sender.send(pdu(DATA, command + pdv(encoded(image), command=False, last=True)))
        assert sender.receive_status() == 0


def test_a_context_that_was_never_agreed_is_aborted(reception: Reception) -> None:
    image = ct()
    with RawSender(reception.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        command = pdv(store_command(image.SOPInstanceUID), command=True, last=True, context=99)
        sender.send(pdu(DATA, command + pdv(encoded(image), command=False, last=True, context=99)))
        assert sender.receive()[0] == ABORT
    assert reception.files() == []


def test_many_associations_one_after_the_other_leave_no_threads_and_no_descriptors(reception: Reception) -> None:
    path = saved(ct(), reception.root)
    reception.send(path)
    threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with RawSender(reception.port) as sender:
            assert sender.associate() == ASSOCIATE_AC
            assert sender.release() == RELEASE_RP
    wait_until(lambda: threading.active_count() <= threads, timeout_s=10, what="the threads to end")
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 2


def test_what_we_lean_on_in_pynetdicom_is_where_it_was() -> None:
    """These insides are overridden or called; a release that moves them must fail here and not in a hospital."""
    import pynetdicom
    from pynetdicom.association import Association
    from pynetdicom.dimse import DIMSEServiceProvider
    from pynetdicom.dul import DULServiceProvider
    from pynetdicom.transport import AssociationSocket

    assert pynetdicom.__version__.startswith("3.0.")
    for owner, names in {
        Association: ("_serve_request", "run_reactor", "kill", "abort", "set_socket"),
        AssociationSocket: ("ready", "recv", "_shutdown_socket"),
        DIMSEServiceProvider: ("receive_primitive",),
        DULServiceProvider: ("kill_dul", "run_reactor"),
    }.items():
        for name in names:
            assert name in vars(owner), f"{owner.__name__}.{name}"
    assert "_run_loop_delay" in DULServiceProvider.run_reactor.__code__.co_names
