"""Valid bytes made wrong: where the structure is, and anywhere."""

import random
import struct
from collections.abc import Callable, Sequence

from tests.fuzz.corpus import Sample

_LENGTHS = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    0xFE,
    0xFF,
    0x100,
    0x7FFF,
    0xFFFE,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0xFFFFFFF0,
    0xFFFFFFFE,
    0xFFFFFFFF,
)
_FORMS = (">B", ">H", "<H", ">L", "<L")
_LONGEST = 1 << 16


def mutated(sample: Sample, others: Sequence[Sample], rng: random.Random) -> bytes:
    """One to four changes; now and then none, so that the valid way stays exercised."""
    data = bytearray(sample.data)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4))):
        rng.choice(_CHANGES)(data, sample, others, rng)
        if not data:
            break
    return bytes(data[:_LONGEST])


def portions(data: bytes, rng: random.Random) -> list[memoryview]:
    """The same bytes as reads of a socket could bring them: whole, in a few parts, or in very small ones."""
    view, way = memoryview(data), rng.random()
    if way < 0.3 or len(data) < 2:
        return [view]
    if way < 0.9:
        cuts = sorted(rng.randrange(len(data)) for _ in range(rng.randint(1, 6)))
        return [view[start:end] for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True) if start < end]
    size = rng.randint(1, 7)
    return [view[start : start + size] for start in range(0, len(data), size)]


def _at(data: bytearray, sample: Sample, rng: random.Random) -> int:
    """Mostly where the structure is; what earlier changes moved is near there."""
    if sample.marks and rng.random() < 0.75:
        return min(rng.choice(sample.marks), len(data) - 1)
    return rng.randrange(len(data))


def _flip(data: bytearray, sample: Sample, others: Sequence[Sample], rng: random.Random) -> None:
    data[_at(data, sample, rng)] ^= 1 << rng.randrange(8)


def _set_byte(data: bytearray, sample: Sample, others: Sequence[Sample], rng: random.Random) -> None:
    data[_at(data, sample, rng)] = rng.randrange(256)


def _set_number(data: bytearray, sample: Sample, others: Sequence[Sample], rng: random.Random) -> None:
    at, form = _at(data, sample, rng), rng.choice(_FORMS)
    number = rng.choice(_LENGTHS) if rng.random() < 0.7 else len(data) - at + rng.randint(-8, 8)
    size = struct.calcsize(form)
    data[at : at + size] = struct.pack(form, number & (1 << 8 * size) - 1)


def _remove(data: bytearray, sample: Sample, others: Sequence[Sample], rng: random.Random) -> None:
    at = _at(data, sample, rng)
    del data[at : at + rng.choice((1, 2, 4, 6, 8, 64))]


def _insert(data: bytearray, sample: Sample, others: Sequence[Sample], rng: random.Random) -> None:
    at = _at(data, sample, rng)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 6, 8, 64)))


def _repeat(data: bytearray, sample: Sample, others: Sequence[Sample], rng: random.Random) -> None:
    at, size = _at(data, sample, rng), rng.choice((2, 6, 8, 12, 100))
    data[at:at] = data[at : at + size] * rng.choice((1, 1, 2, 50))


def _cut(data: bytearray, sample: Sample, others: Sequence[Sample], rng: random.Random) -> None:
    del data[_at(data, sample, rng) :]


def _splice(data: bytearray, sample: Sample, others: Sequence[Sample], rng: random.Random) -> None:
    """Begin as one message, go on as another."""
    other = rng.choice(others)
    cut = rng.choice(other.marks) if other.marks else 0
    del data[_at(data, sample, rng) :]
    data += other.data[cut:]


_CHANGES: tuple[Callable[[bytearray, Sample, Sequence[Sample], random.Random], None], ...] = (
    _flip, _flip, _set_byte, _set_byte, _set_number, _set_number, _set_number, _remove, _insert, _repeat, _cut, _splice,
)  # fmt: skip
