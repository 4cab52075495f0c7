"""kill -9 under load, again and again: what was acknowledged is there with its digest, what was not is swept at the start."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from dicomnode.storage import KnownFile, Store, fsck
from tests.peers.dcmtk import storescu
from tests.peers.waiting import wait_until
from tests.receiving.load import Bookkeeping, Senders, TheSameImages, read_back
from tests.receiving.receive_process import ReceiveProcess
from tests.receiving.samples import ct, saved

ORDERS = ("serial", "parallel")
_ALL_EVERY = 20  # kills; to read all bytes after each of 200 takes an hour, and nobody writes to what was read before


def kill_again_and_again(node: ReceiveProcess, times: int) -> Bookkeeping:
    """Each round kills a little later: between two images, in a first transaction, in a refill, in the middle of anything."""
    book, looked_at = Bookkeeping(), 0
    for number in range(times):
        node.start()
        if number:
            must_be_consistent(node, book, new_from=looked_at if number % _ALL_EVERY else 0)
            looked_at = len(book.acknowledged)
        enough = len(book.acknowledged) + 4 + number % 7 * 9
        with Senders(node.port, book):
            wait_until(lambda enough=enough: len(book.acknowledged) >= enough, every_s=0.001, what="acknowledgements")
            node.kill()
    return book


def must_be_consistent(node: ReceiveProcess, book: Bookkeeping, new_from: int = 0) -> None:
    """A node that has just started, before anybody sends: files and rows agree, and nothing acknowledged is missing.

    new_from: so many were acknowledged, and read to their last byte, before an earlier kill; the rest is looked at as ever.
    """
    with closing(node.registry()) as registry:
        store = Store(node.data_dir, reserve_bytes=0)
        report = fsck(store, (KnownFile(*one) for one in registry.known_files()), verify_digests=not new_from)
        assert report.ok, report
        assert report.looked_at >= len(book.acknowledged)
        new = dict(islice(book.acknowledged.items(), new_from, None))
        assert list(read_back(registry, store, new)) == []
    strangers = set(files_with_content(node.data_dir)) - set(rows_of(node.data_dir))
    assert strangers == set(), "files that no row names, found without the help of fsck"


def files_with_content(data_dir: Path) -> Iterator[str]:
    for folder in ("instances", "incoming", "quarantine"):
        for path in (data_dir / folder).rglob("*"):
            if path.is_file() and path.stat().st_size:
                yield path.relative_to(data_dir).as_posix()


def rows_of(data_dir: Path) -> dict[str, str]:
    """Path → digest, as the database itself says."""
    with closing(sqlite3.connect(data_dir / "dicomnode.db")) as database:
        return dict(database.execute("SELECT path, sha256 FROM instances"))


@pytest.mark.parametrize("order", ORDERS)
def test_ten_times_kill_9_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path, order: str) -> None:
    """Ten for each order; `make soak` goes on to 200."""
    node = ReceiveProcess(tmp_path / "node", settings={"storage": {"order": order}})
    book = kill_again_and_again(node, 10)
    with node:
        must_be_consistent(node, book)
        assert storescu(node.port, saved(ct(), tmp_path)).ok


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_images_on_three_associations_at_once_survive_kill_9(tmp_path: Path, order: str) -> None:
    """Whoever is told that his is a duplicate is told that the other one's bytes and row are durable."""
    node = ReceiveProcess(tmp_path / "node", settings={"storage": {"order": order}})
    book = Bookkeeping()
    for enough in (20, 60):
        node.start()
        with Senders(node.port, book, images=TheSameImages(3)):
            wait_until(lambda enough=enough: len(book.acknowledged) >= enough, every_s=0.001, what="acknowledgements")
            node.kill()
    with node:
        must_be_consistent(node, book)
        assert len(rows_of(node.data_dir)) == len(set(rows_of(node.data_dir).values()))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("order", ORDERS)
def test_two_hundred_times_kill_9(tmp_path: Path, order: str) -> None:
    node = ReceiveProcess(tmp_path / "node", settings={"storage": {"order": order}})
    book = kill_again_and_again(node, 200)
    with node:
        must_be_consistent(node, book)
