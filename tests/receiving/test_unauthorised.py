"""Who may not announce or commit is told so, whatever follows his command: nothing of it is kept, nothing parsed."""

from pathlib import Path

from tests.receiving.raw import ASSOCIATE_AC, DATA, RELEASE_RP, RawSender, command, element, pdu, pdv
from tests.receiving.receive_process import ReceiveProcess
from tests.receiving.samples import ELE

STEP, AVAILABILITY, COMMITMENT = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.4.33", "1.2.840.10008.1.20.1"
NOT_AUTHORIZED = 0x0124
_MB = 1 << 20
_PIECE = b"\xff" * (1 << 16)  # no element of any data set


def peer(name: str, *may: str) -> dict[str, object]:
    return {"name": name, "ae_title": name, "host": "127.0.0.1", "port": 104, "may": may}


def node(folder: Path) -> ReceiveProcess:
    """One that serves announcements and commitment, to the scanner alone."""
    peers = [peer("RAW", "store"), peer("SCANNER", "announce", "commit")]
    return ReceiveProcess(folder, settings={"commitment": {"serve": True}}, lists={"peers": peers})


def created(uid: str) -> bytes:
    return command(
        element(0x0002, STEP.encode()),
        element(0x0100, 0x0140),
        element(0x0110, 7),
        element(0x0800, 1),
        element(0x1000, uid.encode()),
    )


def asked_to_commit(uid: str) -> bytes:
    return command(
        element(0x0003, COMMITMENT.encode()),
        element(0x0100, 0x0130),
        element(0x0110, 8),
        element(0x0800, 1),
        element(0x1001, uid.encode()),
        element(0x1008, 1),
    )


def say(sender: RawSender, head: bytes, *, context: int, megabytes: int) -> None:
    sender.send(pdu(DATA, pdv(head, command=True, last=True, context=context)))
    pieces = megabytes * _MB // len(_PIECE)
    for number in range(pieces):
        sender.send(pdu(DATA, pdv(_PIECE, command=False, last=number == pieces - 1, context=context)))


def test_megabytes_from_who_may_not_ask_are_answered_0124_and_take_no_memory(tmp_path: Path) -> None:
    contexts = [(uid, (ELE,)) for uid in (STEP, AVAILABILITY, COMMITMENT)]
    with node(tmp_path) as one, RawSender(one.port) as guest, RawSender(one.port) as scanner:
        assert guest.associate(contexts=contexts) == ASSOCIATE_AC
        assert scanner.associate(contexts=contexts, calling="SCANNER") == ASSOCIATE_AC
        one.forget_peak()
        before = one.rss_mb()
        for head, context in ((created("1.2.3"), 1), (asked_to_commit("1.2.840.10008.1.20.1.1"), 5)) * 3:
            say(guest, head, context=context, megabytes=15)
            assert guest.receive_status() == NOT_AUTHORIZED
        assert one.peak_mb() - before <= 5
        assert guest.release() == RELEASE_RP
        say(scanner, created("1.2.3"), context=1, megabytes=1)
        assert scanner.receive_status() not in (0, NOT_AUTHORIZED), "who may ask is heard, and told what is wrong"
