"""Success means kept: full disks, a failing registry, and an orderly end. Sudden death: test_kill, test_torn, tests/faults."""

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.domain.errors import DatabaseUnreachable, PeerUnreachable, SettingsError
from dicomnode.domain.received import Received
from dicomnode.domain.statuses import OUT_OF_RESOURCES, PROCESSING_FAILURE
from dicomnode.network import associate
from dicomnode.receiving import Receiver
from dicomnode.registry import InstanceKeys, Registry
from dicomnode.storage import KnownFile, Store, fsck
from tests.peers.waiting import free_port, wait_until
from tests.receiving.reception import Reception, context, local_peer
from tests.receiving.samples import CT, ELE, ct, encoded, store


def _known(registry: Registry) -> list[KnownFile]:
    return [KnownFile(*one) for one in registry.known_files()]


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
