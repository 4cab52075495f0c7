"""Files and rows are compared while the node runs."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.storage import FileMeta, FsckReport, KnownFile, Store, StoredBytes, fsck

HEAD = FileMeta("1.2", "1.2.3", "1.2.840.10008.1.2.1", "2.25.1", "TEST").encoded()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    one = Store(tmp_path / "data", reserve_bytes=0)
    one.prepare()
    return one


def settled(store: Store, data: bytes = b"data") -> StoredBytes:
    stored = store.write_instance(HEAD, (data,))
    assert stored.in_flight is not None
    stored.in_flight.end()
    return stored


def known(stored: StoredBytes) -> KnownFile:
    return KnownFile(stored.path, stored.size_bytes, stored.sha256)


def test_all_is_well(store: Store) -> None:
    rows = [known(settled(store)) for _ in range(3)]
    report = fsck(store, rows, verify_digests=True)
    assert report == FsckReport()
    assert report.ok
    assert report.looked_at == 3


def test_orphans_missing_and_corrupt_files_are_named(store: Store) -> None:
    orphan, gone, cut, changed = (settled(store, b"data%d" % number) for number in range(4))
    store.absolute(gone.path).unlink()
    store.absolute(cut.path).write_bytes(b"short")
    whole = store.absolute(changed.path).read_bytes()
    store.absolute(changed.path).write_bytes(whole[:-1] + b"!")
    rows = [known(one) for one in (gone, cut, changed)]
    report = fsck(store, rows, verify_digests=True)
    assert report.orphans == (orphan.path,)
    assert report.missing == (gone.path,)
    assert report.corrupt == (cut.path, changed.path)
    assert not report.ok
    assert fsck(store, rows, verify_digests=False).corrupt == (cut.path,)


def test_only_the_named_files_can_be_looked_at(store: Store) -> None:
    settled(store)
    assert fsck(store, [known(settled(store, b"named"))], verify_digests=True, find_orphans=False).ok


def test_a_stray_file_is_an_orphan(store: Store) -> None:
    stray = store.root / "instances" / "ab" / "stray.dcm"
    stray.parent.mkdir()
    stray.write_bytes(b"who put this here?")
    assert fsck(store, [], verify_digests=False).orphans == (Path("instances/ab/stray.dcm"),)


def test_results_in_the_spool_are_verified_as_whole_files(store: Store) -> None:
    import hashlib

    path = store.spool_dir("J1") / "seg.dcm"
    path.write_bytes(b"whole file")
    row = KnownFile(store.relative(path), 10, hashlib.sha256(b"whole file").hexdigest())
    assert fsck(store, [row], verify_digests=True).ok
    path.write_bytes(b"other file")
    assert fsck(store, [row], verify_digests=True).corrupt == (row.path,)


def test_what_is_in_flight_is_no_orphan_until_its_writer_is_gone(store: Store) -> None:
    """Another process may run fsck between a file's rename and its row's commit."""
    stored = store.write_instance(HEAD, (b"data",))
    assert fsck(store, [], verify_digests=False).ok
    path = stored.path
    del stored
    assert fsck(store, [], verify_digests=False).orphans == (path,)


def test_a_row_committed_after_the_listing_counts(store: Store) -> None:
    stored = settled(store)

    def rows_read_later() -> Iterator[KnownFile]:
        late = settled(store, b"came while fsck ran")
        yield known(stored)
        yield known(late)

    assert fsck(store, rows_read_later(), verify_digests=True).ok


def test_half_received_files_are_no_orphans(store: Store) -> None:
    (store.root / "incoming" / "half.dcm").write_bytes(b"half")
    assert fsck(store, [], verify_digests=False).ok


def aged(path: Path, seconds: float) -> None:
    """As if written so long ago."""
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))


def test_a_file_in_quarantine_whose_row_was_never_written_is_an_orphan(store: Store) -> None:
    named, unnamed, kept_aside = (settled(store, b"data%d" % number) for number in range(3))
    rows = [KnownFile(store.quarantine(named.path, "pixels"), named.size_bytes, named.sha256)]
    orphan = store.quarantine(unnamed.path, "pixels")
    store.quarantine(kept_aside.path, "no_row")
    assert fsck(store, rows, verify_digests=True).orphans == (orphan,)


def test_a_file_in_quarantine_whose_row_is_not_yet_committed_is_no_orphan(store: Store) -> None:
    stored = store.write_instance(HEAD, (b"data",))
    aside = store.quarantine(stored.path, "geometry")
    assert stored.in_flight is not None
    assert fsck(store, (), verify_digests=True).orphans == ()
    stored.in_flight.end()
    assert fsck(store, (), verify_digests=True).orphans == (aside,)


def test_what_a_broken_off_attempt_left_in_the_spool_is_an_orphan_at_once(store: Store) -> None:
    for job in ("J1-1", "J2-1", "J3-1"):
        (store.spool_dir(job) / "seg.dcm").write_bytes(b"result")
        aged(store.spool_dir(job) / "seg.dcm", 100)
    (store.spool_dir("J4-1") / "seg.dcm").write_bytes(b"being written")
    sent = KnownFile(Path("spool/J3-1/seg.dcm"), 6, hashlib.sha256(b"result").hexdigest())
    report = fsck(store, [sent], verify_digests=True, jobs_at_work=lambda: {"J2"})
    assert report == FsckReport(orphans=(Path("spool/J1-1/seg.dcm"),))


def test_an_attempt_that_begins_meanwhile_keeps_its_files(store: Store) -> None:
    path = store.spool_dir("J1-1") / "seg.dcm"
    path.write_bytes(b"left by a crash")
    aged(path, 100)

    def rows() -> Iterator[KnownFile]:
        path.write_bytes(b"written anew")
        yield from ()

    assert fsck(store, rows(), verify_digests=True, jobs_at_work=set).ok
