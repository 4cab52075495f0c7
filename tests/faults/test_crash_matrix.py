"""kill -9 at every step of a study's life, and at random: the end state is that of a run that nobody disturbed."""

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.crash_points import (
    BUILDING,
    DELIVERING,
    PARALLEL_RECEIVING,
    PROVING,
    ROUTING,
    SERIAL_RECEIVING,
    WORKING,
    CrashPoint,
)
from tests.faults.crashing import MortalNode, Nursery, another_study, pause
from tests.peers.orthanc import Orthanc

LATER = [*ROUTING, *WORKING, *BUILDING, *DELIVERING, *PROVING]
# Kills of one study in a row; each is looked at alone in `make soak`. A job found running at 20 starts waits for an operator.
IN_THE_MIDDLE = [
    *PARALLEL_RECEIVING[3:5],
    PARALLEL_RECEIVING[7],
    *ROUTING,
    WORKING[0],
    WORKING[4],
    BUILDING[1],
    BUILDING[7],
    *BUILDING[-2:],
    DELIVERING[0],
    *DELIVERING[2:4],
]
WALKS: dict[str, list[CrashPoint]] = {
    "parallel": PARALLEL_RECEIVING,
    "serial": SERIAL_RECEIVING,
    "working": [*ROUTING, *WORKING],
    "building": BUILDING,
    "delivering": [*DELIVERING[:-2], *(replace(point, nth=1) for point in DELIVERING[-2:])],
    # Once a report is kept there is nothing left to ask for; it may be so before the death of who asked.
    "proving": [PROVING[0], PROVING[2], PROVING[1]],
    "proved": PROVING[3:],
}


def a_node(folder: Path, nursery: Nursery, pacs: Orthanc, order: str, points: Sequence[CrashPoint]) -> MortalNode:
    proof = "commitment" if set(points) & set(PROVING) else "find"
    return MortalNode(folder, nursery, pacs, settings={"storage": {"order": order}}, proof=proof)


def walk(node: MortalNode, points: Sequence[CrashPoint], study: str, paths: Sequence[Path]) -> Any:
    """Die at each point in turn, then live; the end state."""
    for point in points:
        node.dies_at(point, paths)
    node.start()
    node.send_until_taken(paths)
    node.wait_for_end(study)
    state = node.end_state(study)
    node.kill()
    node.must_have_all_and_nothing_else()
    return state


@pytest.mark.timeout(900)
def test_a_study_whose_node_is_killed_at_fourteen_steps_ends_as_one_that_nobody_disturbed(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    """Some of the steps, one after the other; `make soak` takes all of them."""
    study, paths = another_study(template, tmp_path / "study", "walk")
    with a_node(tmp_path / "node-walk", nursery, pacs, "parallel", IN_THE_MIDDLE) as node:
        assert walk(node, IN_THE_MIDDLE, study, paths) == undisturbed
        assert node.kills == len(IN_THE_MIDDLE) == 14


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", WALKS)
def test_a_study_whose_node_is_killed_at_each_step_ends_as_one_that_nobody_disturbed(
    name: str, nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    order = "serial" if name == "serial" else "parallel"
    study, paths = another_study(template, tmp_path / "study", f"walk {name}")
    with a_node(tmp_path / f"node-{name}", nursery, pacs, order, WALKS[name]) as node:
        assert walk(node, WALKS[name], study, paths) == undisturbed
        assert node.kills == len(WALKS[name])


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("order", ["parallel", "serial"])
@pytest.mark.parametrize("point", range(len(LATER) + max(len(PARALLEL_RECEIVING), len(SERIAL_RECEIVING))))
def test_one_kill_at_one_step(
    order: str, point: int, nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    """Each point of the matrix alone."""
    points = [*(SERIAL_RECEIVING if order == "serial" else PARALLEL_RECEIVING), *LATER]
    if point >= len(points):
        return
    study, paths = another_study(template, tmp_path / "study", f"{order} {point}")
    with a_node(tmp_path / f"node-{order}-{point}", nursery, pacs, order, points[point : point + 1]) as node:
        assert walk(node, points[point : point + 1], study, paths) == undisturbed


def kill_at_random(
    times: int, node: MortalNode, template: Sequence[Path], folder: Path, undisturbed: Any, seed: int, kills_a_study: int = 5
) -> None:
    """A stream of studies through a node that is killed at random moments of their lives."""
    chance = random.Random(seed)  # noqa: S311
    print("seed", seed)
    studies = []
    while node.kills < times:
        study, paths = another_study(template, folder / str(len(studies)), f"random {seed} {len(studies)}")
        studies.append(study)
        for _ in range(kills_a_study):
            node.start()
            node.send(paths)
            pause(chance.uniform(0.0, 4.0))  # from the first image to the proof takes about four seconds
            node.kill()
            node.kills += 1
        node.start()
        node.send_until_taken(paths)
        node.wait_for_end(study)
        node.kill()
    for study in studies:
        assert node.end_state(study) == undisturbed
    node.must_have_all_and_nothing_else()


@pytest.mark.timeout(900)
def test_fifteen_kills_at_random_moments(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    with MortalNode(tmp_path / "node-random", nursery, pacs) as node:
        kill_at_random(15, node, template, tmp_path / "studies", undisturbed, int.from_bytes(os.urandom(3)))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_hundred_kills_at_random_moments(
    nursery: Nursery, pacs: Orthanc, template: list[Path], undisturbed: Any, tmp_path: Path
) -> None:
    with MortalNode(tmp_path / "node-often", nursery, pacs) as node:
        kill_at_random(200, node, template, tmp_path / "studies", undisturbed, int.from_bytes(os.urandom(3)))
