"""The store: durable, named by hashes, refusing before the disk is full."""

import hashlib
import os
import threading
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.errors import CorruptInstance, OutOfSpace, StorageError
from dicomnode.storage import FileMeta, Store, StoredBytes, data_set_offset

HEAD = FileMeta("1.2.840.10008.5.1.4.1.1.7", "1.2.3.4", str(ExplicitVRLittleEndian), "2.25.1", "TEST", "SENDER").encoded()
DATA = bytes(range(256)) * 40


@pytest.fixture
def store(tmp_path: Path) -> Store:
    one = Store(tmp_path / "data", reserve_bytes=0)
    one.prepare()
    return one


def write(store: Store, data: bytes = DATA, sop: str = "1.2.3.4") -> StoredBytes:
    return store.write_instance(HEAD, (data,), "1.2.1", "1.2.2", sop)


def test_what_was_written_is_there_with_its_digest_and_size(store: Store) -> None:
    stored = write(store)
    path = store.absolute(stored.path)
    assert path.read_bytes() == HEAD + DATA
    assert stored.sha256 == hashlib.sha256(DATA).hexdigest()
    assert stored.size_bytes == path.stat().st_size
    assert store.verify(stored.path, stored.size_bytes, stored.sha256)
    assert list((store.root / "incoming").iterdir()) == []


def test_pieces_are_joined(store: Store) -> None:
    stored = store.write_instance(HEAD, (DATA[:7], memoryview(DATA)[7:5000], b"", DATA[5000:]), "1.1", "1.2", "1.3")
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
    def pieces():  # type: ignore[no-untyped-def]
        yield DATA
        raise ConnectionError("the sender is gone")

    with pytest.raises(StorageError):  # ConnectionError is an OSError
        store.write_instance(HEAD, pieces(), "1", "2", "3")
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_what_a_crash_left_half_written_is_cleared_but_nothing_in_flight(store: Store) -> None:
    left = store.root / "incoming" / "left.dcm"
    left.write_bytes(b"half")
    release, held = threading.Event(), threading.Event()

    def slow():  # type: ignore[no-untyped-def]
        yield DATA
        held.set()
        release.wait(10)

    writer = threading.Thread(target=lambda: store.write_instance(HEAD, slow(), "1", "2", "3"))
    writer.start()
    assert held.wait(10)
    assert Store(store.root, reserve_bytes=0).clear_incoming() == 1
    assert not left.exists()
    release.set()
    writer.join()
    assert len(list((store.root / "instances").rglob("*.dcm"))) == 1


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
    stored = write(store)
    store.discard(stored.path)
    folder = store.absolute(stored.path).parent
    while folder != store.root / "instances":
        folder.rmdir()
        folder = folder.parent
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


def test_the_folder_of_a_new_series_is_durable_before_the_first_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry in the parent folder is synced too, else a power cut could take the whole folder."""
    synced = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    stored = write(store)
    folder = store.absolute(stored.path).parent
    assert synced == [str(folder.parents[2]), str(folder.parents[1]), str(folder.parents[0]), str(folder)]
    synced.clear()
    write(store)
    assert synced == [str(folder)]
