"""One poisoned instance, one poisoned series, one dead destination: nobody else waits. And nothing of ours starts anything."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.faults.crashing import MortalNode, Nursery, another_study
from tests.peers.node import destination, modality_peer
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.waiting import wait_until


def jobs_of(node: MortalNode) -> dict[str, tuple[str, int, int, str]]:
    """Study Instance UID → state, attempt, crashes and reason code of its newest job."""
    with closing(sqlite3.connect(node.node.data_dir / "dicomnode.db")) as rows:
        found = rows.execute(
            "SELECT study_instance_uid, state, attempt, crashes, reason_code FROM jobs "
            "JOIN studies ON studies.id = study_id ORDER BY version"
        ).fetchall()
    return {one[0]: one[1:] for one in found}


def spoil_one_instance(paths: Sequence[Path]) -> None:
    """The header promises more pixels than there are."""
    dataset = pydicom.dcmread(paths[10])
    dataset.PixelData = dataset.PixelData[:1000]
    dataset.save_as(paths[10])


def many_studies(node: MortalNode, template: list[Path], folder: Path, count: int) -> dict[str, list[Path]]:
    return dict(another_study(template, folder / str(number), f"{folder.name} {number}") for number in range(count))


@pytest.mark.parametrize(
    "count", [pytest.param(5, id="5"), pytest.param(50, id="50", marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
@pytest.mark.timeout(900)
def test_poison_delays_nobody_else(count: int, nursery: Nursery, pacs: Orthanc, template: list[Path], tmp_path: Path) -> None:
    dead = modality_peer("DEAD_PACS")
    node = MortalNode(
        tmp_path / f"node-poison-{count}",
        nursery,
        pacs,
        more_peers=[dead],
        more_destinations=[destination("dead_pacs", proof="status")],
        results=["SR"],
    )
    with node:
        studies = many_studies(node, template, tmp_path / f"studies {count}", count)
        broken, poisonous, *healthy = studies
        spoil_one_instance(studies[broken])
        instances = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in studies[poisonous]]
        node.start(fault={"name": "poisonous series", "how": "dies", "instances": instances})
        for paths in studies.values():  # the poisoned ones first
            node.send_until_taken(paths)
        node.wait_for_end(*healthy, patience_s=240 + 12 * count)
        jobs = jobs_of(node)
        assert {jobs[study] for study in healthy} == {("done", 1, 0, "")}
        wait_until(lambda: jobs_of(node)[broken][0] == "refused", timeout_s=240, what="the broken instance to be named")
        wait_until(lambda: jobs_of(node)[poisonous][0] == "failed", timeout_s=480, what="the poisonous series to be set aside")
        assert jobs_of(node)[poisonous][2:] == (3, "poison")
        assert {jobs_of(node)[study] for study in healthy} == {("done", 1, 0, "")}
        counts = node.node.status()["counts"]["deliveries"]
        assert counts["waiting"] >= len(healthy), "the dead destination keeps what is its own"


@pytest.mark.timeout(900)
def test_our_results_sent_back_or_made_by_another_node_of_ours_start_nothing(
    nursery: Nursery, pacs: Orthanc, template: list[Path], tmp_path: Path
) -> None:
    study, paths = another_study(template, tmp_path / "study", "loop")
    with (
        MortalNode(tmp_path / "node-first", nursery, pacs) as node,
        MortalNode(tmp_path / "node-second", nursery, pacs) as other,
    ):
        node.start()
        other.start()
        for one in (node, other):
            settings = one.node.config.read_text()
            assert 'name = "pacs"' in settings
            pacs.add_modality(one.node.folder.name, Modality(one.node.ae_title, one.node.port))
        node.send_until_taken(paths)
        node.wait_for_end(study)
        before = node.end_state(study)
        results = before["in the PACS"]
        for one in (node, other):  # the PACS sends what it has of the study: results alone
            pacs.send(one.node.folder.name, study)
        wait_until(lambda: stored(other) == sum(results.values()), what="the results at the other node")
        wait_until(lambda: unsettled(node) + unsettled(other) == 0, timeout_s=30, what="both nodes to have judged")
        assert jobs_of(other) == {}
        assert node.end_state(study) == before
        assert len(jobs_of(node)) == 1
        held = other.node.json("explain", study)
        assert held["held"] == ""


def stored(node: MortalNode) -> int:
    return int(_one(node, "SELECT count(*) FROM instances WHERE ours"))


def unsettled(node: MortalNode) -> int:
    return int(_one(node, "SELECT count(*) FROM studies WHERE unsettled"))


def _one(node: MortalNode, question: str) -> Any:
    with closing(sqlite3.connect(node.node.data_dir / "dicomnode.db")) as rows:
        return rows.execute(question).fetchone()[0]
