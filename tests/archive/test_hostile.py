"""Requests as nobody should make them: each gets an answer or an abort, in bounded time, and nobody else notices."""

import random
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from dicomnode.archive import ArchiveLimits
from dicomnode.domain.routes import Peer
from dicomnode.receiving import Limits
from tests.archive.holding import MOVE, STUDY_ROOT, Holding
from tests.archive.speaking import FIND_RQ, LEVEL, MOVE_RQ, Asker, cancel, key, request
from tests.peers.waiting import wait_until
from tests.receiving.raw import DATA, element, pdu, pdv
from tests.receiving.samples import ELE, changed, ct

NAME, PATIENT_ID, STUDY_UID = 0x00100010, 0x00100020, 0x0020000D


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Holding]:
    one = Holding(tmp_path_factory.mktemp("archive"))
    one.take(changed(ct(), StudyInstanceUID="1.2.3"))
    yield one
    one.stop()


def sequences(depth: int) -> bytes:
    """Items in items, of undefined length."""
    opening = struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return opening * depth


@pytest.mark.parametrize(
    ("identifier", "status"),
    [
        (None, 0xA900),
        (b"", 0xA900),
        (b"no data set at all", 0xC000),
        (b"\xff" * 1000, 0xC000),
        (struct.pack("<HH2sH", 0x0008, 0x0052, b"CS", 0xFFFE) + b"STUDY ", 0xC000),
        (LEVEL + sequences(2000), 0xC000),
        (LEVEL + b"".join(key(0x00110000 + number, "LO", "x") for number in range(2000)), 0xC000),
        (LEVEL + key(NAME, "PN", "*"), 0x0000),
        (LEVEL + b"\x10\x00\x10\x00PN\xfe\xff" + b"*" * 0xFFFE, 0x0000),
        (LEVEL + key(NAME, "PN", "*?" * 30000), 0x0000),
        (LEVEL + key(NAME, "UN", "*a" * (1 << 19)), 0xA900),
        (LEVEL + key(NAME, "UN", "*a" * ((1 << 19) - 100)), 0x0000),
        (LEVEL + key(STUDY_UID, "UI", "\\".join(f"1.2.{number}" for number in range(6000))), 0x0000),
        (LEVEL + key(NAME, "PN", "\x1b$B" * 2000), 0xC000),
        (LEVEL + key(PATIENT_ID, "LO", "'; DROP TABLE studies; --"), 0x0000),
        (key(0x00080005, "CS", "ISO 2022 IR 87\\no such set") + LEVEL + key(NAME, "PN", "\x1b(J\xff"), 0x0000),
    ],
    ids=lambda value: f"{len(value)}" if isinstance(value, bytes) else None,
)
def test_an_identifier_that_is_none_gets_its_status_and_the_association_goes_on(
    archive: Holding, identifier: bytes | None, status: int
) -> None:
    began = time.process_time()
    with Asker(archive.port) as asker:
        if identifier == b"":
            asker.sender.send(pdu(DATA, pdv(request(), command=True, last=True) + pdv(b"", command=False, last=True)))
        else:
            asker.ask(identifier)
        assert asker.last() == status
        asker.ask(LEVEL)
        assert asker.last() == 0x0000
    assert time.process_time() - began < 3.0


@pytest.mark.parametrize(
    ("may", "model", "field"),
    [("query", STUDY_ROOT, MOVE_RQ), ("query", STUDY_ROOT, 0x0010), ("retrieve", MOVE, FIND_RQ)],
    ids=["move", "get", "find"],
)
def test_a_context_of_another_service_does_not_stretch_a_right(
    make_holding: Callable[..., Holding], may: str, model: str, field: int
) -> None:
    holding = make_holding(peers=[Peer("raw", "RAW", "127.0.0.1", 104, frozenset({may}))])
    with Asker(holding.port, [(model, (ELE,))]) as asker:
        asker.ask(LEVEL + key(STUDY_UID, "UI", "1.2.3"), head=request(field, element(0x0600, b"RAW "), model=model))
        assert asker.heard() is None, "the association is aborted"


def test_random_identifiers_get_a_status(archive: Holding) -> None:
    chance = random.Random(11)  # noqa: S311 - the same cases each time
    good = LEVEL + key(NAME, "PN", "Doe*") + key(STUDY_UID, "UI", "1.2.3")
    with Asker(archive.port) as asker:
        for _ in range(150):
            spoilt = bytearray(good)
            for _ in range(chance.randrange(1, 6)):
                spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
            asker.ask(bytes(spoilt[: chance.randrange(1, len(spoilt))]))
            assert asker.last() in (0x0000, 0xA900, 0xC000)


def test_a_request_may_come_in_pieces_and_the_next_one_before_its_answer(archive: Holding) -> None:
    with Asker(archive.port) as asker:
        asker.ask(LEVEL, portion=1)
        asker.ask(LEVEL, head=request(message_id=2))
        asker.ask(LEVEL, head=request(message_id=3))
        said = [asker.heard() for _ in range(6)]
        assert [(one.regarding, one.status) for one in said if one is not None] == [
            (number, status) for number in (1, 2, 3) for status in (0xFF00, 0x0000)
        ]


def test_who_leaves_in_the_middle_of_the_answers_ends_only_his_own(make_holding: Callable[..., Holding]) -> None:
    holding = many(make_holding, 200)
    for farewell in (pdu(7, bytes(4)), b"", pdu(5, bytes(4))):  # A-ABORT, nothing, A-RELEASE
        with Asker(holding.port) as asker:
            asker.ask(LEVEL)
            assert asker.heard() is not None
            asker.sender.send(farewell) if farewell else None
    assert len(holding.found("STUDY", StudyInstanceUID="")) == 200
    wait_until(lambda: len(holding.reception.receiver._acceptor._associations) == 0, what="all associations to end")


def many(make_holding: Callable[..., Holding], count: int, *, guard: Limits | None = None, **limits: int) -> Holding:
    """As many studies of one image, of which only the rows are real."""
    holding = make_holding(limits=ArchiveLimits(**limits), guard=guard)
    image = changed(ct(), StudyInstanceUID="1.9", SeriesInstanceUID="1.9.1", SOPInstanceUID="1.9.1.1")
    holding.take(image)
    holding.rows_like("1.9.1.1", count - 1)
    return holding


def test_a_cancelled_query_ends_and_says_so(make_holding: Callable[..., Holding]) -> None:
    holding = many(make_holding, 300)
    with Asker(holding.port) as asker:
        asker.ask(LEVEL, behind=cancel(message_id=9) + cancel())  # the first of no request
        assert asker.last() == 0xFE00
        asker.ask(LEVEL + key(STUDY_UID, "UI", "1.9"), head=request(message_id=2), behind=cancel(message_id=1))  # too late
        assert asker.last() == 0x0000
        asker.ask(LEVEL, head=request(message_id=3))
        assert asker.heard() is not None
        asker.sender.send(cancel(message_id=3))
        assert asker.last() in (0xFE00, 0x0000), "it may all have been on its way"


def test_who_does_not_read_his_answers_holds_up_nobody(make_holding: Callable[..., Holding]) -> None:
    holding = many(make_holding, 1200, max_queries=3)
    lazy = [Asker(holding.port) for _ in range(3)]
    try:
        for one in lazy:
            for number in range(20):  # answers of 6 MB, more than the kernel takes for one who does not read
                one.ask(LEVEL + key(NAME, "PN", "*") + key(0x00081030, "LO", ""), head=request(message_id=number + 1))
        wait_until(lambda: holding.archive._queries._value == 0, what="all places to be taken")
        assert holding.answers("STUDY", StudyInstanceUID="1.9") == ([], [0xA700])
        holding.take(*(changed(ct(), StudyInstanceUID="1.9.9") for _ in range(3)))
        assert holding.registry.upgrade()  # takes the database for itself
        assert holding.archive._queries._value == 0, "they are still at it"
    finally:
        for one in lazy:
            one.sender.socket.close()
    wait_until(lambda: holding.archive._queries._value == 3, what="all places to be free")
    assert len(holding.found("STUDY", StudyInstanceUID="1.9.9")) == 1


def test_queries_that_last_keep_no_modality_from_the_only_place(make_holding: Callable[..., Holding]) -> None:
    holding = many(make_holding, 1200, guard=Limits(max_associations=1), max_queries=2)
    lazy = [Asker(holding.port)]
    try:
        for _ in range(2):
            for number in range(20):
                lazy[-1].ask(LEVEL + key(NAME, "PN", "*") + key(0x00081030, "LO", ""), head=request(message_id=number + 1))
            taken = 2 - len(lazy)
            wait_until(lambda left=taken: holding.archive._queries._value == left, what="the query to be served")  # type: ignore[misc]
            holding.take(changed(ct(), StudyInstanceUID=f"1.9.9.{len(lazy)}"))
            if len(lazy) < 2:
                lazy.append(Asker(holding.port))
        assert holding.archive._queries._value == 0, "both are still at it"
    finally:
        for one in lazy:
            one.sender.socket.close()
