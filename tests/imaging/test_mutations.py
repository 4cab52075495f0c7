"""Damaged files: whatever bytes are changed, `scan` and `load` end in values."""

import os
from pathlib import Path

import numpy as np
import pytest

from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, SeriesRef, Volume
from dicomnode.imaging import load, scan
from dicomnode.imaging.decoding import decode_slices
from dicomnode.imaging.headers import read_frames
from dicomnode.imaging.refusing import Refused

_HEADER = 8000  # bytes within which most mutations are placed: pixels are many, headers are what parsers trip over


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, bytes changed in the header or anywhere, or a length field blown up."""
    mutated = bytearray(content)
    header = min(len(content), _HEADER)
    kind = rng.integers(4)
    if kind == 0:
        return content[: rng.integers(132, len(content))]
    if kind == 1:
        at = rng.integers(132, header - 4)
        mutated[at : at + 4] = b"\xff\xff\xff\x7f"
        return bytes(mutated)
    end = header if kind == 2 else len(content)
    for at in rng.integers(132, end, rng.integers(1, 8)):
        mutated[at] = rng.integers(256)
    return bytes(mutated)


def decode_all(series: SeriesRef) -> None:
    """Single slices are refused as too few before their pixels are looked at; here they are looked at."""
    codes = set()
    for instance in series.instances:
        _, frames = read_frames(instance)
        try:
            decode_slices(frames, threads=1)
        except Refused as refused:
            codes.add(refused.refusal.code)
    assert codes <= {RefusalCode.CORRUPT}


def run(test_data: Path, folder: Path, seed: int, rounds: int) -> None:
    rng = np.random.default_rng(seed)
    files = [path for kind in ("syntaxes", "objects") for path in (test_data / kind).iterdir()]
    files = sorted(path for path in files if path.is_file() and path.stat().st_size < 600_000)
    for _ in range(rounds):
        (damaged := folder / "damaged.dcm").write_bytes(mutate(files[rng.integers(len(files))].read_bytes(), rng))
        found = scan([damaged])
        assert len(found.ignored) + len(found.series) == 1
        for series in found.series:
            outcome = load(series)
            assert isinstance(outcome, Volume | Image2D | Refusal)
            if isinstance(outcome, Refusal) and outcome.code == RefusalCode.TOO_FEW:
                decode_all(series)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_damaged_files_end_in_values(test_data: Path, tmp_path: Path) -> None:
    run(test_data, tmp_path, seed=2026, rounds=150)


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_many_damaged_files_end_in_values(test_data: Path, tmp_path: Path) -> None:
    run(test_data, tmp_path, seed=int(os.environ.get("DICOMNODE_FUZZ_SEED", "1")), rounds=20_000)
