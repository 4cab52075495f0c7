"""The PDU reader alone: bytes in, events out."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.receiving.pdu import (
    ABORT,
    COMMAND_END,
    COMMAND_PART,
    DATA_END,
    DATA_PART,
    MOST_EVENTS,
    RELEASE_RQ,
    PduReader,
    abort_pdu,
    data_pdus,
    reject_pdu,
)
from tests.receiving.raw import DATA, pdu, pdv

CAP = 1 << 20


def events_of(stream: bytes, cuts: list[int], reader: PduReader | None = None) -> list[tuple[int, int, bytes]]:
    """All events, those of parts of one value put together."""
    reader = reader or PduReader(CAP)
    found: list[tuple[int, int, bytes]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        left = memoryview(stream)[start:end]
        while left:
            events = reader.feed(left)
            assert len(events) <= MOST_EVENTS
            for what, context_id, piece in events:
                if found and found[-1][0] in (DATA_PART, COMMAND_PART):
                    found[-1] = (what, context_id, found[-1][2] + piece)
                else:
                    found.append((what, context_id, bytes(piece)))
            left = reader.left
    return found


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.tuples(st.booleans(), st.binary(max_size=40), st.integers(1, 255)), min_size=1, max_size=12),
    sizes=st.lists(st.integers(1, 3), min_size=12, max_size=12),
    cuts=st.lists(st.integers(0, 600), max_size=10),
)
def test_events_are_the_same_wherever_the_stream_is_cut(
    values: list[tuple[bool, bytes, int]], sizes: list[int], cuts: list[int]
) -> None:
    pdvs = [pdv(value, command=is_command, last=True, context=context) for is_command, value, context in values]
    stream, position = b"", 0
    for size in sizes:
        stream += pdu(DATA, b"".join(pdvs[position : position + size])) if pdvs[position : position + size] else b""
        position += size
    stream += pdu(5, bytes(4))
    expected = [(COMMAND_END if is_command else DATA_END, context, value) for is_command, value, context in values[:position]]
    assert events_of(stream, sorted(min(cut, len(stream)) for cut in cuts)) == [*expected, (RELEASE_RQ, 0, b"")]


def test_pieces_are_slices_of_what_was_read_and_nothing_is_copied() -> None:
    buffer = bytearray(pdu(DATA, pdv(b"a value", command=False, last=False)))
    ((_, _, piece),) = PduReader(CAP).feed(memoryview(buffer))
    buffer[12] = ord("A")
    assert bytes(piece) == b"A value"


def test_a_value_counts_as_last_only_when_all_of_it_is_there() -> None:
    reader, stream = PduReader(CAP), pdu(DATA, pdv(b"1234", command=False, last=True, context=7))
    assert [event[:2] for event in reader.feed(memoryview(stream)[:-2])] == [(DATA_PART, 7)]
    assert [(what, bytes(piece)) for what, _, piece in reader.feed(memoryview(stream)[-2:])] == [(DATA_END, b"34")]


def test_what_came_before_a_breach_is_still_given() -> None:
    reader = PduReader(CAP)
    events = reader.feed(memoryview(pdu(DATA, pdv(b"good", command=False, last=True)) + pdu(99, b"")))
    assert [bytes(piece) for _, _, piece in events] == [b"good"]
    assert reader.broken is not None
    assert (reader.broken.code, reader.broken.reason) == ("unexpected_pdu", (2, 1))


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (struct.pack(">BBL", DATA, 0, CAP + 1), "pdu_too_long"),
        (struct.pack(">BBL", DATA, 0, 0xFFFFFFFF), "pdu_too_long"),
        (struct.pack(">BBL", DATA, 0, 5), "length_of_pdu"),
        (pdu(DATA, struct.pack(">LBB", 1, 1, 3)), "length_of_pdv"),
        (pdu(DATA, struct.pack(">LBB", 3, 1, 3)), "length_of_pdv"),
        (pdu(DATA, pdv(b"", command=False, last=True) + b"\0\0\0"), "length_of_pdv"),
        (pdu(5, bytes(5)), "length_of_pdu"),
        (pdu(1, bytes(68)), "unexpected_pdu"),
        (b"GET / HTTP/1.1\r\n", "unexpected_pdu"),
    ],
)
def test_lengths_that_cannot_be_and_other_pdus_break_the_protocol_at_their_header(wrong: bytes, code: str) -> None:
    for cut in range(len(wrong)):
        reader = PduReader(CAP)
        events_of(wrong, [cut], reader)
        assert reader.broken is not None
        assert reader.broken.code == code


def test_nothing_is_read_behind_an_abort() -> None:
    assert events_of(pdu(7, bytes(4)) + pdu(99, b"x"), []) == [(ABORT, 0, b"")]


def test_a_hundred_thousand_values_in_one_read_are_given_in_turns() -> None:
    stream = pdu(DATA, pdv(b"x", command=False, last=False) * 100_000)
    reader, count, left = PduReader(CAP), 0, memoryview(stream)
    while left:
        events = reader.feed(left)
        assert len(events) <= MOST_EVENTS
        count, left = count + len(events), reader.left
    assert count == 100_000


def test_a_command_goes_in_one_pdu_or_in_as_many_as_the_peer_asks_for() -> None:
    command = bytes(range(100))
    assert (
        data_pdus(3, command, 0) == data_pdus(3, command, 16384) == pdu(DATA, pdv(command, command=True, last=True, context=3))
    )
    for longest in (106, 105, 50, 7, 1):
        sent = data_pdus(3, command, longest)
        assert events_of(sent, []) == [(COMMAND_END, 3, command)]
        lengths, position = [], 0
        while position < len(sent):
            lengths.append(struct.unpack_from(">BxL", sent, position)[1])
            position += 6 + lengths[-1]
        assert max(lengths) <= max(longest, 7)


def test_reject_and_abort_say_source_and_reason() -> None:
    assert reject_pdu(1, 2, 3) == bytes((3, 0, 0, 0, 0, 4, 0, 1, 2, 3))
    assert abort_pdu(2, 6) == bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 6))
