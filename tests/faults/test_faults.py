"""What happens to a node while it works: a full disk, a model that raises or hangs, a database that is away, a SIGTERM."""

import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.faults.crash_points import PROVING
from tests.faults.crashing import MortalNode, Nursery, another_study, pause
from tests.faults.disks import small_disk
from tests.faults.test_full_disk import somebody_else_fills
from tests.faults.test_nobody_waits import jobs_of
from tests.peers.orthanc import Orthanc
from tests.peers.waiting import wait_until


@pytest.mark.timeout(900)
def test_a_model_that_raises_is_tried_again_and_the_study_ends_as_if_it_had_not(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    study, paths = another_study(template, tmp_path / "study", "raising")
    with MortalNode(tmp_path / "node-raising", nursery, pacs) as node:
        node.start(fault={"name": "raising model", "until": str(tmp_path / "mended")})
        node.send_until_taken(paths)
        wait_until(lambda: study in jobs_of(node) and jobs_of(node)[study][1:] == (1, 0, "internal_error"), timeout_s=240)
        (tmp_path / "mended").touch()
        node.wait_for_end(study)
        (after,) = node.end_state(study)["jobs"]
        assert after[:5] == ("done", "finished", 2, 0, "")
        assert node.end_state(study)["in the PACS"] == undisturbed["in the PACS"]


@pytest.mark.timeout(900)
def test_a_disk_that_fills_up_before_the_results_are_written_costs_time_and_nothing_else(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    study, paths = another_study(template, tmp_path / "study", "full")
    with small_disk(tmp_path, "ext4", 96) as disk:
        data_dir = disk.folder / "data"
        data_dir.mkdir()
        settings = {"node": {"data_dir": str(data_dir)}, "database": {"url": f"sqlite:///{data_dir / 'dicomnode.db'}"}}
        with MortalNode(tmp_path / "node-full", nursery, pacs, settings=settings) as node:
            node.node.data_dir = data_dir
            node.start(fault={"name": "raising model", "until": str(tmp_path / "go on"), "waits": True})
            node.send_until_taken(paths)
            wait_until(lambda: study in jobs_of(node) and jobs_of(node)[study][0] == "running", timeout_s=240)
            other = somebody_else_fills(disk, leave_bytes=120_000)
            (tmp_path / "go on").touch()
            wait_until(lambda: jobs_of(node)[study][3] == "out_of_space", timeout_s=240, what="the full disk to be met")
            assert jobs_of(node)[study][:2] == ("queued", 0), "a full disk costs no attempt"
            other.unlink()
            node.wait_for_end(study)
            assert node.end_state(study) == undisturbed
            node.kill()
            node.must_have_all_and_nothing_else()
        disk.unmount()


@pytest.mark.timeout(900)
def test_a_disk_that_cannot_keep_the_results_is_tried_again_and_nothing_half_kept_leaves(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    study, paths = another_study(template, tmp_path / "study", "EIO")
    with MortalNode(tmp_path / "node-eio", nursery, pacs) as node:
        node.start(fault={"name": "failing disk", "until": str(tmp_path / "mended")})
        node.send_until_taken(paths)
        wait_until(lambda: study in jobs_of(node) and jobs_of(node)[study][:2] == ("queued", 1), timeout_s=240, what="EIO")
        assert study not in pacs.study_uids()
        (tmp_path / "mended").touch()
        node.wait_for_end(study)
        assert node.end_state(study)["in the PACS"] == undisturbed["in the PACS"]
        node.kill()
        node.must_have_all_and_nothing_else()


@pytest.mark.timeout(900)
def test_a_spool_that_is_read_only_is_waited_for(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    study, paths = another_study(template, tmp_path / "study", "read-only")
    with MortalNode(tmp_path / "node-readonly", nursery, pacs) as node:
        spool = node.node.data_dir / "spool"
        spool.mkdir(parents=True)
        with read_only(spool):
            node.start()
            node.send_until_taken(paths)
            wait_until(lambda: study in jobs_of(node) and jobs_of(node)[study][3] == "out_of_space", timeout_s=240)
            assert jobs_of(node)[study][:2] == ("queued", 0)
        node.wait_for_end(study)
        assert node.end_state(study) == undisturbed


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A mount over the folder that takes no writes."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root: what a read-only disk does was not tested")
    try:
        subprocess.run(["mount", "--bind", folder, folder], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        pytest.skip("nothing can be mounted here: what a read-only disk does was not tested")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True, capture_output=True)


@pytest.mark.timeout(900)
def test_a_sigterm_in_the_middle_of_anything_drains_in_time_and_loses_nothing(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    chance = random.Random(os.urandom(4))  # noqa: S311
    study, paths = another_study(template, tmp_path / "study", "terminated")
    with MortalNode(tmp_path / "node-terminated", nursery, pacs, settings={"work": {"drain_s": 10}}) as node:
        for _ in range(2):
            node.start()
            node.send(paths)
            pause(chance.uniform(0.0, 3.0))
            assert node.stop() == 0
        node.start()
        node.send_until_taken(paths)
        node.wait_for_end(study)
        assert node.end_state(study) == undisturbed
        assert node.stop() == 0
        node.must_have_all_and_nothing_else()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_model_that_hangs_is_killed_at_its_hard_timeout_and_set_aside(
    nursery: Nursery, pacs: Orthanc, template: list[Path], tmp_path: Path
) -> None:
    hanging, hanging_paths = another_study(template, tmp_path / "hanging", "hanging")
    other, other_paths = another_study(template, tmp_path / "other", "beside the hanging one")
    instances = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in hanging_paths]
    with MortalNode(tmp_path / "node-hanging", nursery, pacs, settings={"work": {"job_timeout_s": 20}}) as node:
        node.start(fault={"name": "poisonous series", "how": "hangs", "instances": instances})
        node.send_until_taken(hanging_paths)
        node.send_until_taken(other_paths)
        node.wait_for_end(other)
        wait_until(lambda: jobs_of(node)[hanging][0] == "failed", timeout_s=300, what="the hanging model to be set aside")
        assert jobs_of(node)[hanging][2:] == (3, "poison")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_database_that_is_away_for_a_minute_is_waited_for(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    """Somebody holds it locked, beyond the patience of every writer."""
    study, paths = another_study(template, tmp_path / "study", "database away")
    with MortalNode(tmp_path / "node-database", nursery, pacs) as node:
        # Longer than it takes the modality to come again: five images alone would be told to be too few, and rightly.
        settings = node.node.config.read_text()
        assert "quiet_s = 0.7" in settings
        node.node.config.write_text(settings.replace("quiet_s = 0.7", "quiet_s = 15"))
        node.start()
        node.send(paths[:5])
        with closing(sqlite3.connect(node.node.data_dir / "dicomnode.db", isolation_level=None)) as thief:
            thief.execute("PRAGMA busy_timeout = 10000")
            thief.execute("BEGIN EXCLUSIVE")
            assert not node.send(paths), "nothing is acknowledged that has no row"
            pause(35)
            thief.execute("ROLLBACK")
        node.send_until_taken(paths)
        node.wait_for_end(study, patience_s=300)
        assert node.end_state(study) == undisturbed
        assert not node.died
        node.kill()
        node.must_have_all_and_nothing_else()


@pytest.mark.timeout(900)
def test_a_report_that_came_before_anybody_listened_is_asked_for_again_at_once(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    """A PACS that is refused once does not report again; the node's patience is five minutes."""
    study, paths = another_study(template, tmp_path / "study", "late listener")
    with MortalNode(tmp_path / "node-late", nursery, pacs, proof="commitment") as node:
        node.dies_at(PROVING[0], paths)
        node.start(fault={"name": "late listener", "seconds": 4.0})
        node.wait_for_end(study, patience_s=150)
        state = node.end_state(study)
        assert {one[1] for one in state["deliveries"]} == {"confirmed"}
        assert state["in the PACS"] == undisturbed["in the PACS"]
