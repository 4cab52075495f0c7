"""Releases, aborts and breaches of the protocol, by the node's own loop and, where it has an answer, by stock pynetdicom."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from dicomnode.receiving import StoreAnswer, StoreRequest
from tests.peers.waiting import wait_until
from tests.receiving.raw import (
    ABORT,
    ASSOCIATE_AC,
    DATA,
    RELEASE_RP,
    command,
    echo_command,
    element,
    pdu,
    pdv,
    store_command,
)
from tests.receiving.samples import CT, ILE
from tests.receiving.speaking import Speaking, message, response_of

RELEASE_RQ = pdu(5, bytes(4))
ABORT_PDU = pdu(7, bytes(4))
VERIFICATION, MR = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.4"


def test_a_release_inside_a_data_set_is_answered_and_the_object_is_gone(node: Speaking) -> None:
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(pdu(DATA, pdv(store_command("1.2.3"), command=True, last=True)))
        sender.send(pdu(DATA, pdv(bytes(1000), command=False, last=False)) + RELEASE_RQ)
        assert sender.receive()[0] == RELEASE_RP
    key = f"A{node.ledger.opened}"
    wait_until(lambda: key in node.ledger.ends, timeout_s=5, what="the end")
    assert node.ledger.ends[key] == "released"
    assert node.handler.kept == []


def test_an_orderly_end_is_noted_as_such_and_an_abort_too(node: Speaking) -> None:
    for last_words, how in ((RELEASE_RQ, "released"), (ABORT_PDU, "aborted"), (b"", "aborted")):
        with node.sender() as sender:
            assert sender.associate() == ASSOCIATE_AC
            sender.send(message(b"12"))
            assert response_of(sender).Status == 0
            sender.send(last_words)
        key = f"A{node.ledger.opened}"
        wait_until(lambda key=key: key in node.ledger.ends, timeout_s=5, what="the end")
        assert node.ledger.ends[key] == how


@pytest.mark.parametrize("end", [ABORT_PDU, b""], ids=["A-ABORT", "closed"])
def test_an_end_anywhere_in_a_message_leaves_nothing_and_the_next_association_is_served(node: Speaking, end: bytes) -> None:
    whole = message(bytes(300))
    before = node.ledger.opened
    places = range(0, len(whole) - 10, 23)  # nearer to the end, the A-ABORT would complete the data set
    for place in places:
        with node.sender() as sender:
            assert sender.associate() == ASSOCIATE_AC
            sender.send(whole[:place] + end)
    wait_until(lambda: len(node.ledger.ends) == before + len(places), timeout_s=30, what="all ends")
    assert node.handler.kept == []
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(whole)
        assert response_of(sender).Status == 0
    assert [len(data) for _, data in node.handler.kept] == [300]


@pytest.mark.parametrize(
    "wrong",
    [
        pdu(1, bytes(68)),  # A-ASSOCIATE-RQ within an association
        pdu(2, bytes(68)),
        pdu(9, b"1234"),
        struct.pack(">BBL", DATA, 0, 0xFFFFFFF0),
        pdu(DATA, b"\x00\x00\x00\x01\x01"),  # PDV of length 1
        pdu(DATA, struct.pack(">LBB", 5000, 1, 3) + bytes(10)),  # PDV longer than its PDU
        pdu(DATA, pdv(store_command("1.2.3", message_id=1)[:-3], command=True, last=True)),
        pdu(DATA, pdv(store_command("1.2.3"), command=True, last=True, context=99)),
        pdu(DATA, pdv(b"data", command=False, last=True)),
        pdu(DATA, pdv(store_command("1.2.3"), command=True, last=True) + pdv(echo_command(), command=True, last=True)),
    ],
    ids=[
        "request",
        "accept",
        "unknown type",
        "4 GiB",
        "PDV of length 1",
        "PDV beyond PDU",
        "command cut",
        "other context",
        "data first",
        "command in a data set",
    ],
)
def test_what_breaks_the_protocol_is_aborted_after_what_came_before_it_was_answered(own: Speaking, wrong: bytes) -> None:
    """Ours alone: stock pynetdicom leaves a command that it cannot decode, or one on an unknown context, without any answer."""
    with own.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(message(b"before") + wrong)
        assert response_of(sender).Status == 0
        kind, body = sender.receive()
        assert kind == ABORT
        assert body[2] == 2  # source: the service provider
        assert sender.receive() == (0, b"")
    assert [data for _, data in own.handler.kept] == [b"before"]


def request_of(field: int, *, data: bool = False, message_id: int = 4) -> bytes:
    said = command(
        element(0x0002, CT.encode()),
        element(0x0100, field),
        element(0x0110, message_id),
        element(0x0800, 1 if data else 0x0101),
    )
    return pdu(DATA, pdv(said, command=True, last=True))


@pytest.mark.parametrize("field", [0x0020, 0x0021, 0x0010, 0x0100, 0x0130, 0x8001], ids=lambda one: f"{one:04X}")
def test_services_that_nobody_negotiated_are_aborted(own: Speaking, field: int) -> None:
    """C-FIND, C-MOVE, C-GET, N-EVENT-REPORT, N-ACTION, a response. Stock pynetdicom ignores the response."""
    with own.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(request_of(field))
        assert sender.receive()[0] == ABORT


def test_a_request_without_data_set_or_without_instance_is_answered_with_c000(own: Speaking) -> None:
    """Stock pynetdicom takes the former for an empty data set."""
    fields = [element(0x0100, 1), element(0x0110, 5), element(0x0700, 0)]
    no_data = command(element(0x0002, CT.encode()), *fields, element(0x0800, 0x0101), element(0x1000, b"1.2.3"))
    no_instance = command(element(0x0002, CT.encode()), *fields, element(0x0800, 1))
    with own.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(pdu(DATA, pdv(no_data, command=True, last=True)))
        assert response_of(sender).Status == 0xC000
        sender.send(pdu(DATA, pdv(no_instance, command=True, last=True) + pdv(b"12", command=False, last=True)))
        assert response_of(sender).Status == 0xC000
        sender.send(message(b"good"))
        assert response_of(sender).Status == 0
    assert [data for _, data in own.handler.kept] == [b"good"]


def test_a_cancel_is_overlooked(node: Speaking) -> None:
    said = command(element(0x0100, 0x0FFF), element(0x0120, 4), element(0x0800, 0x0101))
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(pdu(DATA, pdv(said, command=True, last=True)) + message(b"12"))
        assert response_of(sender).Status == 0


def test_an_object_on_the_verification_context_is_refused_and_not_kept(own: Speaking) -> None:
    """Stock pynetdicom looks at the command's class alone and calls the handler."""
    with own.sender() as sender:
        assert sender.associate(contexts=[(VERIFICATION, (ILE,))]) == ASSOCIATE_AC
        sender.send(message(b"12"))
        assert response_of(sender).Status == 0x0122
    assert own.handler.kept == []


def test_a_handler_sees_the_first_bytes_before_the_last_are_sent_and_is_told_when_the_sender_goes(own: Speaking) -> None:
    """Stock pynetdicom calls the handler when all is there."""
    with own.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(pdu(DATA, pdv(store_command("1.2.3"), command=True, last=True)))
        assert own.handler.begun.wait(5)
        sender.send(pdu(DATA, pdv(b"first", command=False, last=False)))
        sender.send(ABORT_PDU)
    wait_until(lambda: own.handler.gone == [b"first"], timeout_s=5, what="the handler to be told")
    assert own.handler.kept == []


def test_a_handler_that_fails_costs_its_sender_the_association_and_nobody_else(own: Speaking) -> None:
    def fail(*_: object) -> StoreAnswer:
        raise ZeroDivisionError

    own.handler.answer = fail
    with own.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(message(b"12"))
        assert sender.receive()[0] == ABORT
    own.handler.answer = own.handler.keep
    with own.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(message(b"12"))
        assert response_of(sender).Status == 0


def test_what_can_wait_is_done_after_the_answer_and_also_where_the_sender_has_gone(own: Speaking) -> None:
    """Ours alone: stock pynetdicom sends the answer when the handler has returned."""
    answered, gone, done = threading.Event(), threading.Event(), threading.Event()

    def wait_for_the_answer() -> None:
        assert answered.wait(5)
        done.set()

    def answer_at_once(_: StoreRequest, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        assert list(data_set)
        return StoreAnswer(0, "stored", afterwards=wait_for_the_answer)

    def answer_nobody(_: StoreRequest, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        assert list(data_set)
        assert gone.wait(5)
        return StoreAnswer(0, "stored", afterwards=done.set)

    own.handler.answer = answer_at_once
    with own.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(message(b"12"))
        assert response_of(sender).Status == 0
        answered.set()
        assert done.wait(5)
        done.clear()
        own.handler.answer = answer_nobody
        sender.send(message(b"34"))
        sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
    gone.set()
    assert done.wait(5)


def test_a_dribbler_is_cut_off_although_it_never_falls_silent(make_own: Callable[..., Speaking]) -> None:
    node = make_own(network_timeout_s=1.0)
    began = time.monotonic()
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(message(bytes(1000))[:-900])
        with suppress(ConnectionError):
            for _ in range(100):
                sender.send(b"\0")
                time.sleep(0.05)
        assert sender.receive()[0] in {ABORT, 0}
    assert time.monotonic() - began < 7
    assert len(node.handler.gone) == 1


def test_our_own_slowness_is_not_counted_against_the_sender(make_own: Callable[..., Speaking]) -> None:
    node = make_own(network_timeout_s=1.0)

    def slowly(request: StoreRequest, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        time.sleep(1.6)
        return node.handler.keep(request, data_set)

    node.handler.answer = slowly
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        for _ in range(2):
            sender.send(message(bytes(3000)))
            assert response_of(sender).Status == 0


def test_a_stop_aborts_who_is_idle_and_lets_an_object_end(own: Speaking) -> None:
    """Stock pynetdicom does not say that an object is under way before all of it is there."""
    whole = message(bytes(200_000))
    with own.sender() as idle, own.sender() as busy:
        assert idle.associate() == busy.associate() == ASSOCIATE_AC
        busy.send(whole)
        assert response_of(busy).Status == 0
        busy.send(whole[:-1000])
        own.stop_listening()
        draining = threading.Thread(target=own.speaker.drain, args=(8.0,))
        draining.start()
        assert idle.receive()[0] == ABORT
        busy.send(whole[-1000:])
        assert response_of(busy).Status == 0
        assert busy.release() == RELEASE_RP
        draining.join(10)
        assert not draining.is_alive()


@pytest.mark.parametrize("keeps_sending", [True, False])
def test_who_is_cut_off_in_mid_object_sees_the_abort(own: Speaking, keeps_sending: bool) -> None:
    piece, ended = pdu(DATA, pdv(bytes(50_000), command=False, last=False)), threading.Event()
    with own.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(pdu(DATA, pdv(store_command("1.2.3"), command=True, last=True)) + piece)
        assert own.handler.begun.wait(5)

        def go_on() -> None:
            while keeps_sending and not ended.is_set():
                sender.send(piece)

        sending = threading.Thread(target=go_on)
        sending.start()
        stopping = threading.Thread(target=own.speaker.drain, args=(0.5,))
        stopping.start()
        assert sender.receive()[0] == ABORT
        ended.set()
        sending.join(10)
    stopping.join(10)
    assert len(own.handler.gone) == 1


def test_one_association_after_the_other_uses_one_thread_again(own: Speaking) -> None:
    before = set(threading.enumerate())
    for _ in range(30):
        with own.sender() as sender:
            assert sender.associate() == ASSOCIATE_AC
            assert sender.release() == RELEASE_RP
            sender.socket.close()
    assert sum(one.name == "association" for one in set(threading.enumerate()) - before) <= 3
