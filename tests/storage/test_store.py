"""The store: durable, named by itself, refusing before the disk is full; in both orders."""

import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.errors import CorruptInstance, OutOfSpace, StorageError
from dicomnode.storage import FileMeta, Store, StoredBytes, data_set_offset, is_pool_file, is_settled
from dicomnode.storage.store import type_order

HEAD = FileMeta("1.2.840.10008.5.1.4.1.1.7", "1.2.3.4", str(ExplicitVRLittleEndian), "2.25.1", "TEST", "SENDER").encoded()
DATA = bytes(range(256)) * 40


@pytest.fixture(params=["parallel", "serial"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    one = Store(tmp_path / "data", reserve_bytes=0, order=cast("type_order", request.param))
    one.prepare()
    yield one
    one.close()


def write(store: Store, data: bytes = DATA) -> StoredBytes:
    return store.write_instance(HEAD, (data,))


def instances(store: Store) -> list[Path]:
    """Files below instances/ that are not merely made ahead."""
    return [path for path in (store.root / "instances").rglob("*") if path.is_file() and not is_pool_file(path)]


def test_what_was_written_is_there_with_its_digest_and_size(store: Store) -> None:
    stored = write(store)
    path = store.absolute(stored.path)
    assert path.read_bytes() == HEAD + DATA
    assert stored.sha256 == hashlib.sha256(DATA).hexdigest()
    assert stored.size_bytes == path.stat().st_size
    assert store.verify(stored.path, stored.size_bytes, stored.sha256)
    assert list((store.root / "incoming").iterdir()) == []


def test_pieces_are_joined(store: Store) -> None:
    stored = store.write_instance(HEAD, (DATA[:7], memoryview(DATA)[7:5000], b"", DATA[5000:]))
    assert store.absolute(stored.path).read_bytes() == HEAD + DATA
    assert stored.sha256 == hashlib.sha256(DATA).hexdigest()


def test_nothing_is_ever_overwritten(store: Store) -> None:
    first, second = write(store), write(store, b"other")
    assert first.path != second.path
    assert store.verify(first.path, first.size_bytes, first.sha256)


def test_damage_is_noticed(store: Store) -> None:
    stored = write(store)
    path = store.absolute(stored.path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"x", b"x" * len(whole), b""):
        path.write_bytes(damaged)
        assert not store.verify(stored.path, stored.size_bytes, stored.sha256)
    path.unlink()
    assert not store.verify(stored.path, stored.size_bytes, stored.sha256)
    with pytest.raises(CorruptInstance):
        data_set_offset(path)


def test_below_the_reserve_nothing_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path, reserve_bytes=1 << 60)
    store.prepare()
    with pytest.raises(OutOfSpace, match="reserve") as caught:
        write(store)
    assert caught.value.remedy
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_failure_in_the_middle_leaves_nothing(store: Store) -> None:
    def pieces() -> Iterator[bytes]:
        yield DATA
        raise ConnectionError("the sender is gone")

    with pytest.raises(StorageError):  # ConnectionError is an OSError
        store.write_instance(HEAD, pieces())
    assert instances(store) == []
    store.close()
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_what_a_crash_left_half_written_is_cleared_but_nothing_in_flight(store: Store) -> None:
    left = store.root / "incoming" / "left.dcm"
    left.write_bytes(b"half")
    release, held = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        yield DATA
        held.set()
        release.wait(10)

    writer = threading.Thread(target=lambda: store.write_instance(HEAD, slow()))
    writer.start()
    assert held.wait(10)
    assert Store(store.root, reserve_bytes=0).clear_incoming() == 1
    assert Store(store.root, reserve_bytes=0).left_open() == []
    assert not left.exists()
    release.set()
    writer.join()
    assert len(instances(store)) == 1


def test_quarantine_moves_the_file_and_the_same_content_fills_one_place(store: Store) -> None:
    first, second = write(store), write(store)
    aside = store.quarantine(first.path, "pixels")
    assert aside.parts[:2] == ("quarantine", "pixels")
    assert not store.absolute(first.path).exists()
    assert store.quarantine(second.path, "pixels") == aside
    assert store.verify(aside, first.size_bytes, first.sha256)
    with pytest.raises(ValueError, match="one word"):
        store.quarantine(aside, "../out")


def test_discarding_twice_is_no_error(store: Store) -> None:
    stored = write(store)
    store.discard(stored.path)
    store.discard(stored.path)
    assert not store.absolute(stored.path).exists()


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "instances/../../x"])
def test_no_path_leads_out_of_the_root(store: Store, path: str) -> None:
    with pytest.raises(StorageError):
        store.absolute(Path(path))


def test_folders_that_were_cleared_away_are_made_again(store: Store) -> None:
    store.discard(write(store).path)
    for path in sorted((store.root / "instances").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (store.root / "incoming").rmdir()
    again = write(store)
    assert store.verify(again.path, again.size_bytes, again.sha256)
    spool = store.spool_dir("J1")
    spool.rmdir()
    assert store.spool_dir("J1").is_dir()


def test_the_spool_is_sealed_and_discarded_by_job(store: Store) -> None:
    folder = store.spool_dir("J56")
    (folder / "seg.dcm").write_bytes(b"result")
    store.seal(folder / "seg.dcm")
    assert store.relative(folder / "seg.dcm") == Path("spool/J56/seg.dcm")
    store.seal(Path("spool/J56/seg.dcm"))
    store.discard_spool("J56")
    assert not folder.exists()
    with pytest.raises(StorageError):
        store.seal(folder / "seg.dcm")
    with pytest.raises(StorageError):
        store.relative(Path("/etc/passwd"))


def test_a_folder_that_cannot_be_written_is_a_storage_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError) as caught:
        Store(tmp_path / "file" / "data", reserve_bytes=0).prepare()
    assert "node.data_dir" in str(caught.value)


def test_the_head_is_a_conformant_file_meta(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(HEAD)
    meta = dcmread(path).file_meta
    assert data_set_offset(path) == len(HEAD) == 132 + 12 + meta.FileMetaInformationGroupLength
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert (meta.MediaStorageSOPInstanceUID, meta.ImplementationVersionName) == ("1.2.3.4", "TEST")
    assert meta.SourceApplicationEntityTitle == "SENDER"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files and folders that were synced, in that order."""
    seen: list[str] = []

    def noting(sync: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            sync(descriptor)
            seen.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

        return call

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))
    return seen


def test_a_new_folder_is_durable_before_its_first_file(store: Store, synced: list[str]) -> None:
    """Its entry in the parent folder is synced too, else a power cut could take the whole folder."""
    stored = write(store)
    path = store.absolute(stored.path)
    above = [str(path.parents[2]), str(path.parents[1]), str(path.parent)]  # instances, its folder, the file's
    assert [one for one in synced if one in above][-3:] == above
    assert str(store.root / "open") in synced[: synced.index(above[0])], "the mark comes first"


def test_an_instance_of_the_parallel_order_costs_one_sync_and_of_the_serial_order_two(
    tmp_path: Path, synced: list[str]
) -> None:
    orders: tuple[type_order, ...] = ("parallel", "serial")
    for order in orders:
        store = Store(tmp_path / order, reserve_bytes=0, order=order)
        store.prepare()
        store.make_ahead()
        write(store)
        synced.clear()
        path = store.absolute(write(store).path)
        own = [one for one in synced if one.endswith(".dcm") or one == str(path.parent)]
        assert len(own) == (1 if order == "parallel" else 2)
        store.close()


def test_pieces_of_a_big_object_are_hashed_and_written_without_growing(store: Store) -> None:
    part, digest = os.urandom(3 << 20), hashlib.sha256()
    writer = store.begin_instance(HEAD)
    for number in range(12):
        writer.write([memoryview(part)[number:], memoryview(part)[:number]])
        digest.update(part[number:] + part[:number])
    stored = writer.complete()
    writer.durable()
    writer.settle()
    assert (stored.sha256, stored.size_bytes) == (digest.hexdigest(), 12 * len(part) + len(HEAD))
    assert store.verify(stored.path, stored.size_bytes, stored.sha256)


def test_more_pieces_than_one_system_call_takes(store: Store) -> None:
    pieces = [memoryview(DATA)[n : n + 3] for n in range(0, 6000, 3)]
    writer = store.begin_instance(HEAD)
    writer.write(pieces)
    stored = writer.complete()
    writer.durable()
    assert store.absolute(stored.path).read_bytes() == HEAD + DATA[:6000]
    writer.abandon()
    assert not store.absolute(stored.path).exists()


def test_what_is_settled_cannot_be_abandoned(store: Store) -> None:
    writer = store.begin_instance(HEAD)
    writer.write((DATA,))
    stored = writer.complete()
    assert not is_settled(store.absolute(stored.path))
    writer.durable()
    writer.settle()
    writer.abandon()
    assert is_settled(store.absolute(stored.path))


def test_the_names_say_nothing_and_the_folders_stay_small(store: Store) -> None:
    for _ in range(600):
        writer = store.begin_instance(HEAD)
        writer.settle()
    folders = [path for path in (store.root / "instances").rglob("*") if path.is_dir()]
    assert max(len(list(folder.iterdir())) for folder in folders) <= 256
    assert all(
        re.fullmatch(r"[0-9a-f]{2}(/[0-9a-f]{14}(/\d{3}\.dcm)?)?", path.relative_to(store.root / "instances").as_posix())
        for path in (store.root / "instances").rglob("*")
    )


def test_folders_in_which_all_is_settled_are_no_longer_in_doubt(store: Store) -> None:
    writers = [store.begin_instance(HEAD) for _ in range(257)]
    for writer in writers[1:]:
        writer.settle()
    in_doubt = {path.name for path in (store.root / "open").iterdir()}
    first = "".join(writers[0].path.parts[1:3])
    assert first in in_doubt
    writers[0].settle()
    store.close()
    assert list((store.root / "open").iterdir()) == []


def test_the_disk_that_fails_to_sync_is_a_storage_error_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store.begin_instance(HEAD)
    writer.write((DATA,))
    path = store.absolute(writer.path)

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(StorageError, match="Input/output error"):
        (writer.complete(), writer.durable())
    writer.abandon()
    assert not path.exists()
    assert list((store.root / "incoming").iterdir()) == []
