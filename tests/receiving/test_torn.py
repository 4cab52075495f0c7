"""A start on what a crash, a bad disk or an administrator left: mended where DESIGN section 5 says so, loud where not.

Every test kills a node that holds acknowledged images (no clean stop), changes what lies there, and starts it again.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomnode.storage import FsckReport, KnownFile, Store, fsck
from tests.receiving.load import Bookkeeping, Images, read_back, request, send_one
from tests.receiving.raw import ASSOCIATE_AC, RELEASE_RP, RawSender
from tests.receiving.receive_process import ReceiveProcess

ORDERS = ("serial", "parallel")


@dataclass
class Wreck:
    """A killed node. uids: of acknowledged images, all of one association, in the order of their arrival."""

    node: ReceiveProcess
    book: Bookkeeping
    uids: list[str]
    store: Store

    def file_of(self, uid: str) -> Path:
        with closing(sqlite3.connect(self.node.data_dir / "dicomnode.db")) as database:
            (path,) = database.execute("SELECT path FROM instances WHERE sop_instance_uid = ?", (uid,)).fetchone()
        return self.node.data_dir / str(path)

    def forget_rows(self, *uids: str) -> None:
        """As if the power had gone before the commit of their transaction."""
        with closing(sqlite3.connect(self.node.data_dir / "dicomnode.db")) as database, database:
            database.executemany("DELETE FROM instances WHERE sop_instance_uid = ?", [(uid,) for uid in uids])

    def fsck(self) -> FsckReport:
        with closing(self.node.registry()) as registry:
            return fsck(self.store, (KnownFile(*one) for one in registry.known_files()), verify_digests=True)

    def wrong(self, *but: str) -> list[str]:
        """What is wrong with the acknowledged images, without those named in `but`."""
        acknowledged = {uid: digest for uid, digest in self.book.acknowledged.items() if uid not in but}
        with closing(self.node.registry()) as registry:
            return list(read_back(registry, self.store, acknowledged))

    def send_again(self, uid: str) -> int:
        """The sender repeats what got no answer, or what we lost."""
        with RawSender(self.node.port) as sender:
            assert sender.associate() == ASSOCIATE_AC
            sender.send(request(uid, self.book.data_sets[uid]))
            status = sender.receive_status()
            assert sender.release() == RELEASE_RP
            return status

    def log_says_nothing_of_patients(self) -> None:
        said = self.node.output()
        for secret in ("Test^Ada", "P-1", "ACC1", "2.25.", "19700101"):
            assert secret not in said


@pytest.fixture(scope="module", params=ORDERS)
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Bookkeeping]:
    """Order, data folder of a node that was killed once for all tests, and what it had acknowledged."""
    node = ReceiveProcess(tmp_path_factory.mktemp("killed"), settings={"storage": {"order": request.param}})
    book, images = Bookkeeping(), Images()
    with node, RawSender(node.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        assert [send_one(sender, images, book) for _ in range(6)] == [0] * 6
        node.kill()
    return request.param, node.data_dir, book


@pytest.fixture
def wreck(killed: tuple[str, Path, Bookkeeping], tmp_path: Path) -> Iterator[Wreck]:
    order, data_dir, book = killed
    shutil.copytree(data_dir, tmp_path / "node" / "data")  # with the times and modes that the node left
    node = ReceiveProcess(tmp_path / "node", settings={"storage": {"order": order}})
    own = Bookkeeping(dict(book.acknowledged), dict(book.data_sets))
    yield Wreck(node, own, list(own.acknowledged), Store(node.data_dir, reserve_bytes=0))
    node.kill()


def test_the_order_may_be_changed_over_a_crash(wreck: Wreck, killed: tuple[str, Path, Bookkeeping]) -> None:
    text = wreck.node.config.read_text()
    other = {"serial": "parallel", "parallel": "serial"}[killed[0]]
    wreck.node.config.write_text(text.replace(f'order = "{killed[0]}"', f'order = "{other}"'))
    assert f'order = "{other}"' in wreck.node.config.read_text()
    last = wreck.uids[-1]
    cut_short(wreck.file_of(last))
    wreck.node.start()
    assert wreck.wrong(last) == []
    assert wreck.send_again(last) == 0
    send_more(wreck.node, wreck.book, 3)
    assert wreck.wrong() == []
    assert wreck.fsck().ok


def test_an_untouched_wreck_loses_nothing(wreck: Wreck) -> None:
    wreck.node.start()
    assert wreck.wrong() == []
    assert wreck.fsck().ok
    wreck.log_says_nothing_of_patients()


def test_bytes_of_the_last_image_that_never_reached_the_disk_make_room_for_its_repetition(wreck: Wreck) -> None:
    """Row durable, file not: the parallel order can leave it for the one image of an association that has no answer yet."""
    last = wreck.uids[-1]
    cut_short(wreck.file_of(last))
    wreck.node.start()
    assert wreck.wrong(last) == []
    assert wreck.send_again(last) == 0
    assert wreck.wrong() == []
    assert wreck.fsck().ok
    wreck.log_says_nothing_of_patients()


@pytest.mark.parametrize("damage", ["cut_short", "bit_flipped", "gone", "emptied"])
def test_what_was_certainly_acknowledged_is_never_dropped_in_silence(wreck: Wreck, damage: str) -> None:
    """The sender went on to the next image, so it had our 0x0000: no crash of ours explains the damage, the disk did it."""
    uid = wreck.uids[1]
    path = wreck.file_of(uid)
    {"cut_short": cut_short, "bit_flipped": bit_flipped, "gone": Path.unlink, "emptied": emptied}[damage](path)
    wreck.node.start()
    assert wreck.wrong(uid) == []
    with closing(wreck.node.registry()) as registry:
        assert registry.instance(uid) is not None, "the row of an acknowledged image was removed"
    report = wreck.fsck()
    assert (*report.missing, *report.corrupt) == (path.relative_to(wreck.node.data_dir),)
    assert report.orphans == ()
    assert '"level": "error"' in wreck.node.output()
    assert wreck.send_again(uid) == 0
    assert wreck.wrong() == []
    assert wreck.fsck().ok, "the repetition mends it without leaving the damaged file behind"
    wreck.log_says_nothing_of_patients()


def test_files_whose_rows_never_were_committed_are_swept(wreck: Wreck) -> None:
    last = wreck.uids[-1]
    path = wreck.file_of(last)
    wreck.forget_rows(last)
    wreck.node.start()
    assert not path.exists() or path.stat().st_size == 0
    assert wreck.fsck().ok
    assert wreck.send_again(last) == 0
    assert wreck.wrong() == []
    wreck.log_says_nothing_of_patients()


def test_a_file_cut_off_without_a_row_is_swept(wreck: Wreck) -> None:
    path = wreck.file_of(wreck.uids[-1])
    wreck.forget_rows(wreck.uids[-1])
    cut_short(path)
    wreck.node.start()
    assert not path.exists() or path.stat().st_size == 0
    assert wreck.wrong(wreck.uids[-1]) == []
    assert wreck.fsck().ok


def test_half_a_pool_folder_and_a_lost_one_are_no_obstacle(wreck: Wreck) -> None:
    """The power went while 256 files were made ahead, or somebody tidied up empty files."""
    data_dir = wreck.node.data_dir
    empty = sorted(path for path in (data_dir / "instances").rglob("*") if path.is_file() and not path.stat().st_size)
    for path in empty[::2]:
        path.unlink()
    half = data_dir / "instances" / "ab" / "cdef0123456789"
    half.mkdir(parents=True)
    (half / "000.dcm").touch()
    wreck.node.start()
    assert wreck.wrong() == []
    assert wreck.fsck().ok
    send_more(wreck.node, wreck.book, 300)  # more than a pool holds
    assert wreck.wrong() == []
    assert wreck.fsck().ok


def test_empty_folders_that_vanish_under_the_running_node_are_made_again(wreck: Wreck) -> None:
    wreck.node.start()
    send_more(wreck.node, wreck.book, 3)
    for path in sorted((wreck.node.data_dir / "instances").rglob("*"), reverse=True):
        if path.is_file() and not path.stat().st_size:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    shutil.rmtree(wreck.node.data_dir / "incoming", ignore_errors=True)
    send_more(wreck.node, wreck.book, 300)
    assert wreck.wrong() == []
    assert wreck.fsck().ok


def test_a_stray_half_of_incoming_is_swept(wreck: Wreck) -> None:
    stray = wreck.node.data_dir / "incoming" / "half.dcm"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"half")
    wreck.node.start()
    assert not stray.exists()
    assert wreck.fsck().ok


def test_an_older_copy_of_the_database_costs_no_acknowledged_bytes(wreck: Wreck) -> None:
    """A restored backup knows nothing of newer files. They were acknowledged: they may be put aside, never destroyed."""
    contents = [wreck.book.data_sets[uid] for uid in wreck.uids[2:]]
    wreck.forget_rows(*wreck.uids[2:])
    wreck.node.start()
    kept = [
        path.read_bytes()
        for folder in ("instances", "quarantine")
        for path in (wreck.node.data_dir / folder).rglob("*")
        if path.is_file() and path.stat().st_size
    ]
    for content in contents:
        assert any(whole.endswith(content) for whole in kept), "bytes that were acknowledged are gone"
    assert wreck.wrong(*wreck.uids[2:]) == []


def test_a_newer_database_than_files_is_loud_and_goes_on(wreck: Wreck) -> None:
    """The files come from an older copy of the disk: rows without files stay, alarmed; copies of their senders are taken."""
    shutil.rmtree(wreck.node.data_dir / "instances")
    wreck.node.start()
    assert '"level": "error"' in wreck.node.output()
    with closing(wreck.node.registry()) as registry:
        present = [uid for uid in wreck.uids if registry.instance(uid) is not None]
    assert present[:5] == wreck.uids[:5]
    assert {wreck.send_again(uid) for uid in wreck.uids} == {0}
    assert wreck.wrong() == []
    assert wreck.fsck().ok
    wreck.log_says_nothing_of_patients()


def test_after_an_orderly_end_nothing_is_looked_at_and_nothing_is_swept(wreck: Wreck) -> None:
    wreck.node.start()
    send_more(wreck.node, wreck.book, 2)
    assert wreck.node.stop() == 0
    left = [path for path in (wreck.node.data_dir / "instances").rglob("*") if path.is_file() and not path.stat().st_size]
    assert left == [], "files made ahead stay behind"
    wreck.node.start()
    assert wreck.wrong() == []
    assert wreck.fsck().ok


def send_more(node: ReceiveProcess, book: Bookkeeping, count: int) -> None:
    images = Images()
    with RawSender(node.port) as sender:
        assert sender.associate() == ASSOCIATE_AC
        assert [send_one(sender, images, book) for _ in range(count)] == [0] * count
        assert sender.release() == RELEASE_RP


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def emptied(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)


def bit_flipped(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
