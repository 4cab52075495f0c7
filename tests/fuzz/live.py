"""Mutated sessions against a real receive process: it must answer as the protocol says or end the connection, and live on."""

import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pynetdicom.pdu import A_ASSOCIATE_AC

from tests.fuzz import corpus
from tests.fuzz.driver import Outcome
from tests.fuzz.targets import Target
from tests.peers.dcmtk import echoscu
from tests.receiving import raw
from tests.receiving.receive_process import ReceiveProcess

_ANSWERS = {2: "accepted", 3: "rejected", 4: "answered", 6: "released", 7: "aborted"}
_PATIENCE_S = 5.0
_MOST_GROWTH_MB = 60.0
_ALIVE_EVERY = 250


def run(folder: Path, sessions: int, seed: int, save_to: Path) -> Outcome:
    """Every second session asks properly for its association and then goes wrong; the others ask wrongly."""
    inside = Target(tuple(corpus.pdus()), lambda *_: "")
    asking = Target(tuple(corpus.requests()), lambda *_: "")
    outcome = Outcome()
    with ReceiveProcess(folder, settings={"dicom": {"network_timeout_s": 2}}) as node:
        _alive(node, outcome, "at first")  # what is loaded late is loaded now
        before, began = node.rss_mb(), time.perf_counter()
        for number in range(sessions):
            target, proper = (inside, raw.associate_rq()) if number % 2 else (asking, b"")
            data, _, _ = target.case(seed, number)
            end = session(node.port, proper, data)
            outcome.ends[end] += 1
            outcome.cases += 1
            if end == "silent":
                outcome.failures.append(_saved(save_to, seed, number, proper + data, "was neither answered nor ended"))
            if number % _ALIVE_EVERY == 0 and not _alive(node, outcome, f"after session {number} of seed {seed}"):
                break
        _alive(node, outcome, "at last")
        outcome.seconds, outcome.grown_mb = time.perf_counter() - began, node.rss_mb() - before
        said = node.output()
    if outcome.grown_mb > _MOST_GROWTH_MB:
        outcome.failures.append(f"memory grew by {outcome.grown_mb:.0f} MB")
    # What is said as an error of the node, not of the peer; that an instance changed its content is one for the operator.
    for trouble in ("by an error of the node", "cannot be", "could not be", "Traceback"):
        lines = [line for line in said.splitlines() if trouble in line]
        if lines:
            outcome.failures.append(f"the node logged {len(lines)} errors, such as: {lines[0][:300]}")
    return outcome


def session(port: int, proper: bytes, data: bytes) -> str:
    """Send it, end our side, read to the end; how it ended."""
    said: list[int] = []
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as connection:
        with suppress(OSError):  # cut off already
            if proper:
                connection.sendall(proper)
                said += _kinds(_one_pdu(connection))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        try:
            said += _kinds(_all(connection))
        except TimeoutError:
            return "silent"
    if any(kind not in _ANSWERS for kind in said):
        return f"PDU {next(kind for kind in said if kind not in _ANSWERS)}"
    return "+".join(dict.fromkeys(_ANSWERS[kind] for kind in said)) or "closed"


def _one_pdu(connection: socket.socket) -> bytes:
    data = b""
    while len(data) < 6 or len(data) < 6 + struct.unpack_from(">L", data, 2)[0]:
        piece = connection.recv(65_536)
        if not piece:
            break
        data += piece
    return data


def _all(connection: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65_536):
            data += piece
    return data


def _kinds(data: bytes) -> Sequence[int]:
    """The types of the PDUs in what the node sent; it must be whole PDUs, and an A-ASSOCIATE-AC must be readable."""
    kinds, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from(">BxL", data, at)
        assert at + 6 + length <= len(data), "the node sent half a PDU"
        if kind == 2:
            A_ASSOCIATE_AC().decode(data[at : at + 6 + length])
        kinds.append(kind)
        at += 6 + length
    return kinds


def _alive(node: ReceiveProcess, outcome: Outcome, when: str) -> bool:
    answer = echoscu(node.port)
    if not answer.ok:
        outcome.failures.append(f"no C-ECHO {when}: {answer.output[-300:]}")
    return answer.ok


def _saved(folder: Path, seed: int, number: int, data: bytes, why: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"live-{seed}-{number}.bin"
    path.write_bytes(data)
    return f"{path}: {why}"
