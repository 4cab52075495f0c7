"""What is done with a case, and what may come of it: the declared exception or an answer that keeps its promises.

Two readings of the same bytes, whole and in portions, must agree: whatever depends on where the network cut is a bug.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dicomnode.network import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from dicomnode.receiving.commands import C_STORE_RSP, LONGEST_COMMAND, read_command, response
from dicomnode.receiving.header import HeaderReader, Refused
from dicomnode.receiving.negotiation import Negotiator, titles
from dicomnode.receiving.pdu import COMMAND_END, COMMAND_PART, DATA_END, DATA_PART, MustAbort, PduReader
from tests.fuzz import corpus
from tests.fuzz.corpus import Sample
from tests.fuzz.mutation import mutated, portions

_MAX_PDU_BYTES = 1 << 20
_AT_MOST_INFLATED = 1 << 20
_MOST_KEPT_BYTES = 2 << 20  # of one header: bounded by the wanted elements, not by what came


@dataclass(frozen=True, slots=True)
class Target:
    """samples: what mutations start from. run: one case; returns how it ended, in a word. Raises what nobody declared."""

    samples: tuple[Sample, ...]
    run: Callable[[bytes, Sample, random.Random], str]

    def case(self, seed: int, number: int) -> tuple[bytes, Sample, random.Random]:
        """The bytes of one case, their sample, and the generator as it stands."""
        rng = random.Random(seed << 40 | number)  # noqa: S311 - reproducible, not secret
        sample = self.samples[rng.randrange(len(self.samples))]
        return mutated(sample, self.samples, rng), sample, rng


type_messages = list[tuple[int, int, bytes]]


def _read_pdus(parts: Sequence[memoryview]) -> tuple[type_messages, str]:
    """Kind, context and bytes, pieces of one value joined; and how reading ended."""
    reader, messages = PduReader(_MAX_PDU_BYTES), type_messages()
    open_value = False
    for part in parts:
        for kind, context_id, piece in reader.feed(part):
            if open_value and messages[-1][1] == context_id and messages[-1][0] | 2 == kind | 2:
                messages[-1] = (kind, context_id, messages[-1][2] + bytes(piece))
            else:
                messages.append((kind, context_id, bytes(piece)))
            open_value = kind in {DATA_PART, COMMAND_PART}
            if kind not in {DATA_PART, DATA_END, COMMAND_PART, COMMAND_END}:
                return messages, "ended"  # nothing behind a release or an abort is the reader's business
        if reader.broken is not None:
            return messages, reader.broken.code
    return messages, "open"


def _pdu(data: bytes, sample: Sample, rng: random.Random) -> str:
    whole = _read_pdus([memoryview(data)])
    parts = portions(data, rng)
    if len(parts) > 1:
        assert _read_pdus(parts) == whole, "portions change what is read"
    assert sum(len(value) for _, _, value in whole[0]) <= len(data), "more comes out than went in"
    for kind, _, value in whole[0]:
        if kind == COMMAND_END and len(value) <= LONGEST_COMMAND:
            _command(value, sample, rng)
    return whole[1]


def _command(data: bytes, _: Sample, __: random.Random) -> str:
    try:
        command = read_command(data)
    except MustAbort as error:
        return error.code
    assert len(command.sop_class_uid) + len(command.sop_instance_uid) <= 4 * len(data)
    answer = response(C_STORE_RSP, command, 0xC000, "nothing of the object")
    assert read_command(answer).field == C_STORE_RSP
    assert len(answer) <= len(data) + 200
    return "read"


def _header(data: bytes, sample: Sample, rng: random.Random) -> str:
    whole = _read_header(data, sample.kind, [memoryview(data)])
    parts = portions(data, rng)
    if len(parts) > 1:
        in_parts = _read_header(data, sample.kind, parts)
        # zlib keeps back what it had inflated before a fault in the same portion: then another fault may be the first.
        both_refused = sample.kind == corpus.DEFLATED and "read" not in {whole[0], in_parts[0]}
        assert in_parts == whole or both_refused, f"portions change the header: {whole[0]}, {in_parts[0]}"
    return whole[0]


def _read_header(data: bytes, syntax: str, parts: Sequence[memoryview]) -> tuple[str, object]:
    reader = HeaderReader(syntax, at_most_inflated=_AT_MOST_INFLATED)
    try:
        header = None
        for part in parts:
            header = reader.feed([part])
            if header is not None:
                break
        header = header or reader.finish()
    except Refused as refused:
        return refused.code, refused.status
    kept = sum(map(len, header.attributes.values())) + len(header.contributing_equipment)
    assert kept <= _MOST_KEPT_BYTES, f"{kept} bytes are kept of {len(data)}"
    assert 0 < len(header.sop_instance_uid) <= 64
    if header.pixels is not None:
        assert 0 < header.pixels[0] <= max(len(data), _AT_MOST_INFLATED)
    return "read", header


@lru_cache
def _negotiator() -> Negotiator:
    return Negotiator(STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES, 131_072)


def _request(data: bytes, _: Sample, __: random.Random) -> str:
    try:
        called = titles(data)
        agreement = _negotiator().agree(data, may={"store"})
    except MustAbort as error:
        return error.code
    assert len(called.calling_ae) <= 16
    assert agreement.answer[0] == 2
    assert all(context_id in range(256) for context_id in agreement.contexts)
    return "agreed"


def targets() -> Mapping[str, Target]:
    """By name. Built when asked for: building the samples takes a moment."""
    return {
        "pdu": Target(tuple(corpus.pdus()), _pdu),
        "command": Target(tuple(corpus.commands()), _command),
        "header": Target(tuple(corpus.data_sets()), _header),
        "request": Target(tuple(corpus.requests()), _request),
    }
