"""A start after a sudden end looks into the folders that were left open, and not for longer than it may."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicomnode.receiving import recovery
from dicomnode.receiving.recovery import Recovered, recover
from dicomnode.registry import Registry
from dicomnode.storage import KnownFile, Store, fsck

CHECKOUT = Path(__file__).parents[2]
SUDDEN_END = """
import os, sys
from pathlib import Path
from tests.receiving.samples import ct
from tests.receiving.test_keeper import Keeping

keeping = Keeping(Path(sys.argv[1]), "parallel")
assert [keeping.keep(ct()) for _ in range(3)] == [0, 0, 0]
half = keeping.store.begin_instance(b"head")
half.write([b"half a data set"])
os._exit(0)
"""


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Three acknowledged instances and a half one, of a process that is gone."""
    subprocess.run([sys.executable, "-c", SUDDEN_END, str(tmp_path)], check=True, cwd=CHECKOUT)
    return tmp_path


@pytest.fixture
def registry(left: Path) -> Iterator[Registry]:
    with closing(Registry(f"sqlite:///{left / 'dicomnode.db'}")) as one:
        yield one


def test_half_a_file_goes_and_what_was_acknowledged_stays(left: Path, registry: Registry) -> None:
    store = Store(left, reserve_bytes=0)
    assert recover(store, registry) == Recovered(unnamed=1)
    assert recover(store, registry) == Recovered(), "nothing is left in doubt"
    assert list((left / "open").iterdir()) == []
    assert [path for path in (left / "instances").rglob("*") if path.is_file() and not path.stat().st_size] == []
    report = fsck(store, (KnownFile(*one) for one in registry.known_files()), verify_digests=True)
    assert (report.ok, report.looked_at) == (True, 3)


@pytest.mark.parametrize(("may_be_read", "found"), [(1 << 30, 1), (0, 0)])
def test_damage_under_what_was_acknowledged_is_reported_as_far_as_it_may_be_read(
    left: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, may_be_read: int, found: int
) -> None:
    monkeypatch.setattr(recovery, "_MOST_READ_BYTES", may_be_read)
    store = Store(left, reserve_bytes=0)
    path = store.absolute(next(registry.known_files())[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert recover(store, registry) == Recovered(unnamed=1, damaged=found)
    assert len(list(registry.known_files())) == 3


def test_bytes_that_once_had_a_row_are_put_aside(left: Path, registry: Registry) -> None:
    paths = [path for path, _, _ in registry.known_files()]
    registry.forget_instances([row.sop_instance_uid for row in registry.instances_since(None)])
    assert recover(Store(left, reserve_bytes=0), registry) == Recovered(unnamed=1, aside=3)
    assert len(list((left / "quarantine" / "no_row").iterdir())) == len(paths) == 3
