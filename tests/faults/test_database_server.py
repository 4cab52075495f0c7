"""The database server is killed and comes back while a node receives, works and delivers: no restart of the node in between."""

from pathlib import Path
from typing import Any

import pytest

from dicomnode import network
from tests.faults.crashing import MortalNode, Nursery, another_study
from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import PostgreSQL
from tests.peers.waiting import wait_until

PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.21: A700 would say that the disk is full


@pytest.fixture
def node(tmp_path: Path, nursery: Nursery, pacs: Orthanc, postgresql: PostgreSQL) -> Any:
    """A node whose rows are on a server of their own, and whose model waits until `tmp_path / "go on"` is there."""
    database = {"database": {"url": postgresql.create("faults")}}
    with MortalNode(tmp_path / "node-on-server", nursery, pacs, settings=database) as one:
        one.start(fault={"name": "raising model", "until": str(tmp_path / "go on"), "waits": True})
        yield one
    postgresql.drop("faults")


@pytest.mark.timeout(900)
def test_a_server_killed_while_images_come_a_job_runs_and_results_leave_costs_time_and_nothing_else(
    node: MortalNode, postgresql: PostgreSQL, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    study, paths = another_study(template, tmp_path / "study", "server")
    middle = len(paths) // 2
    with network.associate(node.peer, "CT_SCANNER", network.store_contexts_for(paths)) as modality:
        assert {network.send_file(modality, path) for path in paths[:middle]} == {0}
        postgresql.stop_at_once()
        assert network.send_file(modality, paths[middle]) == PROCESSING_FAILURE
        postgresql.start()
        assert {network.send_file(modality, path) for path in paths[middle:]} == {0}, "on the association that was open before"
    node.send_until_taken(paths)  # the same again: what was acknowledged is there

    wait_until(lambda: node.rows("SELECT state FROM jobs") == [("running",)], timeout_s=240, what="the job to be claimed")
    postgresql.kill()
    assert not node.send(paths)
    (tmp_path / "go on").touch()
    said = "the end of a job cannot be written yet"
    wait_until(lambda: said in node.node.output(), timeout_s=240, what="the job to end while nobody can write that down")
    postgresql.start()

    wait_until(lambda: study in pacs_studies(node), timeout_s=240, every_s=0.01, what="the first result at the PACS")
    postgresql.stop_at_once()
    postgresql.start()
    node.wait_for_end(study)
    assert node.end_state(study) == undisturbed, "the job ran once, each result is in the PACS once"
    assert not node.died
    node.kill()
    node.must_have_all_and_nothing_else()


def pacs_studies(node: MortalNode) -> list[str]:
    return node.pacs.study_uids()
