"""Success means kept: the order of system calls, sudden death, full disks, a failing registry, and an orderly end."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicomnode.domain.errors import DatabaseUnreachable, PeerUnreachable, SettingsError
from dicomnode.domain.received import Received
from dicomnode.domain.statuses import OUT_OF_RESOURCES, PROCESSING_FAILURE
from dicomnode.network import associate, send_file, store_contexts_for
from dicomnode.receiving import Receiver
from dicomnode.registry import InstanceKeys, Registry
from dicomnode.storage import KnownFile, Store, fsck
from tests.peers.dcmtk import storescu
from tests.peers.processes import tool
from tests.peers.waiting import free_port, wait_until
from tests.receiving.reception import Reception, context, data_set_of, local_peer
from tests.receiving.samples import CT, ELE, ct, encoded, saved, store


@contextmanager
def node_process(
    root: Path, *prefix: str | Path, reserve_bytes: int = 0
) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """The node as a process of its own: process, port, forbidden modules that it loaded."""
    process = subprocess.Popen(
        [*map(str, prefix), sys.executable, "-m", "tests.receiving.node_process", str(root), str(reserve_bytes)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        modules: list[str] = []
        for line in process.stdout:
            word, *rest = line.split()
            if word == "MODULES":
                modules = rest
            if word == "PORT":
                yield process, int(rest[0]), modules
                break
        else:
            pytest.fail("the node ended instead of listening")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def test_receiving_loads_no_torch_no_monai_no_highdicom(tmp_path: Path) -> None:
    with node_process(tmp_path) as (_, _, modules):
        assert modules == []


def calls_of(trace: Path) -> list[tuple[str, str]]:
    """(system call, arguments) in the order in which they were finished."""
    found, unfinished = [], {}
    for line in trace.read_text(errors="replace").splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            unfinished[thread] = rest.removesuffix("<unfinished ...>")
            continue
        if rest.startswith("<... "):
            rest = unfinished.pop(thread, "") + rest.partition("resumed>")[2]
        name, _, arguments = rest.partition("(")
        found.append((name, arguments))
    return found


def test_success_is_sent_after_bytes_rename_folder_and_row_are_on_disk(tmp_path: Path) -> None:
    """The serial reference order of DESIGN section 5, seen from outside."""
    attached = subprocess.run([tool("strace", "strace"), "-o", os.devnull, "true"], capture_output=True, check=False)
    if attached.returncode != 0:
        pytest.skip("strace may not attach here: the order of system calls was not looked at")
    trace = tmp_path / "trace"
    wanted = "trace=fdatasync,fsync,rename,renameat,renameat2,sendto,sendmsg"
    path = saved(ct(), tmp_path)
    with node_process(tmp_path / "node", tool("strace", "strace"), "-f", "-y", "-s", "0", "-o", trace, "-e", wanted) as (
        _,
        port,
        _,
    ):
        assert storescu(port, path).ok
        wait_until(lambda: sum(name == "sendto" for name, _ in calls_of(trace)) >= 3, what="the release to be answered")
    calls = calls_of(trace)
    renamed = next(index for index, (name, _) in enumerate(calls) if name.startswith("rename"))
    file_synced = max(i for i, (n, a) in enumerate(calls[:renamed]) if n == "fdatasync" and "/incoming/" in a)
    folder_synced = next(i for i, (n, a) in enumerate(calls) if i > renamed and n == "fsync" and "/instances/" in a)
    row_synced = next(
        i for i, (n, a) in enumerate(calls) if i > folder_synced and n.endswith("sync") and "dicomnode.db-wal" in a
    )
    sent = [i for i, (n, _) in enumerate(calls) if n == "sendto"]  # A-ASSOCIATE-AC, C-STORE-RSP, A-RELEASE-RP
    assert file_synced < renamed < folder_synced < row_synced < sent[1]
    assert sent[0] < file_synced


def test_what_was_acknowledged_survives_kill_9_and_nothing_else_is_claimed(tmp_path: Path) -> None:
    acknowledged: dict[str, bytes] = {}
    sources = tmp_path / "sources"
    sources.mkdir()
    images = [(image := ct(), saved(image, sources)) for _ in range(32)]
    for round_number in range(2):
        with node_process(tmp_path / "node") as (process, port, _):
            senders = [
                threading.Thread(target=_send_until_cut, args=(port, images[start + round_number * 16 :: 4], acknowledged))
                for start in range(4)
            ]
            for sender in senders:
                sender.start()
            enough = 6 * (round_number + 1)
            wait_until(lambda enough=enough: len(acknowledged) >= enough, what="some acknowledgements")
            os.killpg(process.pid, signal.SIGKILL)
            for sender in senders:
                sender.join()
    with Reception(tmp_path / "node") as reception:
        assert len(acknowledged) >= 12
        for uid, data_set in acknowledged.items():
            assert reception.kept_data_set(uid) == data_set
        assert reception.files("incoming") == []  # half received files were swept at the start
        report = fsck(reception.store, _known(reception.registry), verify_digests=True)
        assert report.missing == report.corrupt == ()
        # Whatever the crash left, everything can be sent again.
        assert set(reception.send(*(path for _, path in images))) == {0}


def _known(registry: Registry) -> list[KnownFile]:
    return [KnownFile(*one) for one in registry.known_files()]


def _send_until_cut(port: int, images: list[tuple[Any, Path]], acknowledged: dict[str, bytes]) -> None:
    with (
        suppress(PeerUnreachable),
        associate(local_peer(port), "MODALITY", store_contexts_for([path for _, path in images])) as association,
    ):
        for image, path in images:
            if send_file(association, path) != 0:
                return
            acknowledged[str(image.SOPInstanceUID)] = data_set_of(path)


def test_a_registry_that_fails_gives_no_success_and_leaves_nothing(tmp_path: Path) -> None:
    class Failing(Registry):
        broken = True

        def add_instance(self, received: Received, *, ours: bool, replaces: bool = False) -> InstanceKeys:
            if self.broken:
                raise DatabaseUnreachable("the database is locked", "wait")
            return super().add_instance(received, ours=ours, replaces=replaces)

    with Reception(tmp_path / "node") as reception:
        reception.registry.__class__ = Failing  # type: ignore[assignment]
        image = ct()
        with reception.associated(context(CT, ELE)) as association:
            assert store(association, image).Status == PROCESSING_FAILURE
            assert reception.files("instances") == reception.files("incoming") == []
            Failing.broken = False
            assert store(association, image).Status == 0
        assert reception.kept_data_set(image.SOPInstanceUID) == encoded(image)


def test_a_failing_registry_lets_nobody_associate(tmp_path: Path) -> None:
    class Closed(Registry):
        def association_opened(self, *_: str) -> str:
            raise DatabaseUnreachable("gone", "wait")

    with Reception(tmp_path / "node") as reception:
        reception.registry.__class__ = Closed  # type: ignore[assignment]
        with pytest.raises(PeerUnreachable, match="congestion"), reception.associated(context(CT, ELE)):
            pass


def test_below_the_reserve_every_instance_gets_a700_and_the_association_goes_on(tmp_path: Path) -> None:
    with Reception(tmp_path / "node", reserve_bytes=1 << 60) as reception:
        with reception.associated(context(CT, ELE)) as association:
            assert [store(association, ct()).Status for _ in range(2)] == [OUT_OF_RESOURCES] * 2
        assert reception.files("instances") == reception.files("incoming") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root: what a full disk does was not tested")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here: what a full disk does was not tested")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_gives_a700_and_keeps_what_was_acknowledged(small_disk: Path, tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'dicomnode.db'}")
    registry.prepare()
    with Reception(tmp_path / "node") as reception:
        store_on_it = Store(small_disk, reserve_bytes=0)
        receiver = Receiver(store_on_it, registry, ae_title="DICOMNODE", port=0)
        receiver.start()
        images = [ct(Rows=512, Columns=512, PixelData=bytes(512 * 512 * 2)) for _ in range(8)]
        # A last write that meets the end of the disk itself, not only the check before it.
        store_on_it.check_space = lambda *_: None  # type: ignore[method-assign]
        reception.receiver, first = receiver, reception.receiver
        with reception.associated(context(CT, ELE)) as association:
            statuses = [store(association, image).Status for image in images]
        receiver.stop(5)
        reception.receiver = first
    assert statuses[0] == 0
    assert statuses[-1] == OUT_OF_RESOURCES
    for image, status in zip(images, statuses, strict=True):
        known = registry.instance(str(image.SOPInstanceUID))
        assert (known is not None) == (status == 0)
        if known is not None:
            assert dcmread(small_disk / known.path) == image
    report = fsck(store_on_it, _known(registry), verify_digests=True)
    assert report.ok
    registry.close()


def test_a_port_in_use_is_a_settings_error_that_says_what_to_do(reception: Reception, tmp_path: Path) -> None:
    second = Receiver(Store(tmp_path / "other", reserve_bytes=0), reception.registry, ae_title="SECOND", port=reception.port)
    with pytest.raises(SettingsError, match="is in use") as caught:
        second.start()
    assert "dicom.port" in caught.value.remedy


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_ours_is_a_settings_error(tmp_path: Path, reception: Reception, host: str) -> None:
    receiver = Receiver(Store(tmp_path / "s", reserve_bytes=0), reception.registry, ae_title="X", host=host, port=free_port())
    with pytest.raises(SettingsError) as caught:
        receiver.start()
    assert "dicom.host" in str(caught.value)


def test_stop_lets_a_running_transfer_end_and_takes_no_new_one(make_reception: Callable[..., Reception]) -> None:
    reception = make_reception()
    images = [ct() for _ in range(40)]
    statuses: list[int] = []
    stopping = threading.Event()

    def send() -> None:
        with reception.associated(context(CT, ELE)) as association:
            for image in images:
                statuses.append(store(association, image).Status)
                stopping.set()

    sender = threading.Thread(target=send)
    sender.start()
    assert stopping.wait(10)
    assert reception.receiver is not None
    port = reception.port
    reception.receiver.stop(drain_s=30)
    sender.join()
    assert statuses == [0] * len(images)
    with pytest.raises(PeerUnreachable, match="refused the connection"), associate(local_peer(port), "X", [context(CT, ELE)]):
        pass


def test_stop_does_not_wait_for_an_idle_association(reception: Reception) -> None:
    assert reception.receiver is not None
    with reception.associated(context(CT, ELE)) as association:
        started = time.monotonic()
        reception.receiver.stop(drain_s=30)
        assert time.monotonic() - started < 8
        wait_until(lambda: not association.is_established, timeout_s=5, what="the abort to arrive")


def test_associations_are_noted_with_their_end(reception: Reception) -> None:
    with reception.associated(context(CT, ELE)) as association:
        store(association, ct())
    with suppress(RuntimeError), reception.associated(context(CT, ELE)):
        raise RuntimeError("makes our sender abort")
    database = sqlite3.connect(reception.root / "dicomnode.db")

    def ends() -> list[tuple[str, int]]:
        return database.execute("SELECT how, instances FROM associations ORDER BY id").fetchall()

    wait_until(lambda: ends() == [("released", 1), ("aborted", 0)], timeout_s=5, what="both ends to be noted")
    database.close()
