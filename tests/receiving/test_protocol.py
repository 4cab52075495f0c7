"""One suite over both, the node's own PDU loop and stock pynetdicom behind the same handler: messages in any legal shape.

They must agree wherever the standard says what is right; a test for one of them alone says why.
"""

import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.receiving import StoreAnswer, StoreRequest
from tests.receiving.raw import (
    ASSOCIATE_AC,
    DATA,
    RELEASE_RP,
    associate_rq,
    command,
    echo_command,
    element,
    pdu,
    pdv,
    store_command,
)
from tests.receiving.samples import CT, ELE, ILE
from tests.receiving.speaking import Speaking, message, response_of

VERIFICATION, MR = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.4"
A700 = StoreAnswer(0xA700, "out_of_resources", "storage is full or failing")

any_cut = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def cut(draw: st.DrawFn, data: bytes, *, is_command: bool) -> list[bytes]:
    """PDVs of any size, odd and zero too; the last one may be empty."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    parts = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    return [pdv(part, command=is_command, last=number == len(parts) - 1) for number, part in enumerate(parts)]


def in_pdus(draw: st.DrawFn, pdvs: list[bytes]) -> bytes:
    """One to four PDVs in each PDU."""
    stream, position = b"", 0
    while position < len(pdvs):
        count = draw(st.integers(1, 4))
        stream += pdu(DATA, b"".join(pdvs[position : position + count]))
        position += count
    return stream


def in_writes(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


type_case = tuple[list[tuple[str, bytes]], list[bytes]]
"""Objects, and the bytes of their C-STOREs as they are written to the socket."""


@st.composite
def streams(draw: st.DrawFn, *, messages_share_pdus: bool) -> type_case:
    """Requests sent ahead, every boundary anywhere."""
    objects, messages = [], []
    for number in range(draw(st.integers(1, 3))):
        instance = "1.2." + str(draw(st.integers(1, 10**9)))
        data = draw(st.binary(min_size=1, max_size=600)) * draw(st.sampled_from([1, 1, 7, 301]))
        objects.append((instance, data))
        said = cut(draw, store_command(instance, message_id=number + 1), is_command=True)
        messages.append(said + cut(draw, data, is_command=False))
    if messages_share_pdus:
        messages = [[one for message in messages for one in message]]
    return objects, in_writes(draw, b"".join(in_pdus(draw, pdvs) for pdvs in messages))


def send_and_compare(node: Speaking, case: type_case) -> None:
    objects, writes = case
    node.handler.kept.clear()
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        for part in writes:
            sender.send(part)
        responses = [response_of(sender) for _ in objects]
        assert sender.release() == RELEASE_RP
    assert [(one.MessageIDBeingRespondedTo, one.Status) for one in responses] == [(n + 1, 0) for n in range(len(objects))]
    assert [(request.sop_instance_uid, data) for request, data in node.handler.kept] == objects


@any_cut
@given(case=streams(messages_share_pdus=False))
def test_any_legal_cut_gives_the_same_objects_answered_in_order(node: Speaking, case: type_case) -> None:
    """Command and data in one PDU, PDVs cut at any byte, several in a PDU, empty and odd ones, requests sent ahead."""
    send_and_compare(node, case)


@any_cut
@given(case=streams(messages_share_pdus=True))
def test_the_end_of_one_message_and_the_next_may_share_a_pdu(own: Speaking, case: type_case) -> None:
    """Ours alone: stock pynetdicom drops what follows the end of a message in its PDU, or ends the association."""
    send_and_compare(own, case)


def test_bytes_that_come_one_by_one_are_understood(node: Speaking) -> None:
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        for byte in message(b"abc"):
            sender.send(bytes([byte]))
        assert response_of(sender).Status == 0
    assert [data for _, data in node.handler.kept] == [b"abc"]


def test_values_of_one_byte_by_the_thousand_are_understood(node: Speaking) -> None:
    values = b"".join(pdv(bytes([n % 251]), command=False, last=False) for n in range(5000))
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(pdu(DATA, pdv(store_command("1.2.3"), command=True, last=True)))
        sender.send(pdu(DATA, values) + pdu(DATA, pdv(b"", command=False, last=True)))
        assert response_of(sender).Status == 0
    assert [data for _, data in node.handler.kept] == [bytes(n % 251 for n in range(5000))]


def test_a_pdu_longer_than_announced_is_read_up_to_the_cap(node: Speaking) -> None:
    data = bytes(range(256)) * 2048  # 512 KB in one PDU; 128 KB were asked for
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(message(data))
        assert response_of(sender).Status == 0
    assert [kept for _, kept in node.handler.kept] == [data]


def test_the_handler_hears_who_sends_what_under_which_context(node: Speaking) -> None:
    with node.sender() as sender:
        assert sender.associate(contexts=[(MR, (ILE,)), (CT, (ILE,)), (CT, (ELE,))], called="SECOND") == ASSOCIATE_AC
        sender.send(message(b"1234", instance="1.2.77", context=5))
        response = response_of(sender)
    (request, _), *_ = node.handler.kept
    assert request == StoreRequest(CT, "1.2.77", CT, ELE, "RAW", "SECOND", "127.0.0.1", request.association_key)
    assert request.association_key in node.ledger.ends or node.ledger.opened
    assert (response.AffectedSOPClassUID, response.AffectedSOPInstanceUID) == (CT, "1.2.77")
    assert (response.CommandField, response.CommandDataSetType) == (0x8001, 0x0101)
    assert response.CommandGroupLength == encoded_length(response)


def encoded_length(response: object) -> int:
    """Of all elements behind the group length."""
    lengths = {"UI": lambda v: len(v) + len(v) % 2, "US": lambda _: 2, "LO": lambda v: len(v) + len(v) % 2}
    return sum(8 + lengths[one.VR](one.value) for one in response if one.tag.element)  # type: ignore[attr-defined]


def test_a_refusal_carries_status_and_comment(node: Speaking) -> None:
    node.handler.answer = lambda _, data_set: StoreAnswer(0xC000, "refused", f"{sum(1 for _ in data_set)} x {'y' * 80}")
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(message(b"12"))
        response = response_of(sender)
    assert response.Status == 0xC000
    assert response.ErrorComment == "1 x " + "y" * 60  # LO: 64 characters


def test_who_answers_before_the_end_gets_the_rest_thrown_away_and_the_next_request_is_served(node: Speaking) -> None:
    node.handler.answer = lambda *_: A700
    pieces = [pdu(DATA, pdv(bytes(60_000), command=False, last=number == 49)) for number in range(50)]
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(pdu(DATA, pdv(store_command("1.2.3", message_id=8), command=True, last=True)) + b"".join(pieces))
        response = response_of(sender)
        assert (response.Status, response.MessageIDBeingRespondedTo) == (0xA700, 8)
        node.handler.answer = node.handler.keep
        sender.send(message(b"next"))
        assert response_of(sender).Status == 0
    assert [data for _, data in node.handler.kept] == [b"next"]


def test_c_echo_is_answered_between_c_stores(node: Speaking) -> None:
    with node.sender() as sender:
        assert sender.associate(contexts=[(CT, (ELE,)), (VERIFICATION, (ILE,))]) == ASSOCIATE_AC
        echo = pdu(DATA, pdv(echo_command(9), command=True, last=True, context=3))
        sender.send(message(b"one") + echo + message(b"two", message_id=2))
        responses = [response_of(sender) for _ in range(3)]
    assert [(one.CommandField, one.Status) for one in responses] == [(0x8001, 0), (0x8030, 0), (0x8001, 0)]
    assert [one.MessageIDBeingRespondedTo for one in responses] == [1, 9, 2]
    assert responses[1].AffectedSOPClassUID == VERIFICATION


def test_a_response_is_cut_for_a_requestor_that_takes_only_short_pdus(node: Speaking) -> None:
    with node.sender() as sender:
        sender.send(associate_rq(longest_pdu=64))
        assert sender.receive()[0] == ASSOCIATE_AC
        sender.send(message(b"12"))
        kind, body = sender.receive()
        assert (kind, len(body)) == (DATA, 64)
        while not body[5] & 2:
            kind, body = sender.receive()
            assert len(body) <= 64
        assert sender.release() == RELEASE_RP


def test_uids_of_odd_length_without_padding_are_understood(node: Speaking) -> None:
    unpadded = struct.pack("<HHL", 0, 0x1000, 5) + b"1.2.3"
    said = command(element(0x0002, CT.encode()), element(0x0100, 1), element(0x0110, 1), element(0x0700, 0), element(0x0800, 1))
    with node.sender() as sender:
        assert sender.associate() == ASSOCIATE_AC
        sender.send(pdu(DATA, pdv(said + unpadded, command=True, last=True) + pdv(b"12", command=False, last=True)))
        response = response_of(sender)
    assert (response.Status, response.AffectedSOPInstanceUID) == (0, "1.2.3")
