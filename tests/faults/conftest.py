"""What the tests of crashes and faults share: a nursery of nodes, a PACS, one study and its undisturbed end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomnode.phantom import small_thorax, write_study
from tests.faults.crashing import MortalNode, Nursery, another_study
from tests.peers.orthanc import Orthanc


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Importing torch and its like takes seconds: once for all tests."""
    one = Nursery(tmp_path_factory.mktemp("nursery") / "nursery.log")
    yield one
    one.end()


@pytest.fixture(scope="session")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One PACS for all: each study has its own UIDs."""
    one = Orthanc(tmp_path_factory.mktemp("pacs"))
    one.start()
    yield one
    one.kill()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The images that `another_study` makes studies of."""
    return write_study(small_thorax(60), tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, pacs: Orthanc, template: list[Path]) -> Any:
    """The end state of a study that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with MortalNode(folder / "node-undisturbed", nursery, pacs) as node:
        study, paths = another_study(template, folder / "study", "undisturbed")
        node.start()
        node.send_until_taken(paths)
        node.wait_for_end(study)
        state = node.end_state(study)
    node.must_have_all_and_nothing_else()
    assert state["instances"] == len(paths)
    assert [job[:5] for job in state["jobs"]] == [("done", "finished", 1, 0, "")]
    assert set(state["in the PACS"]) == {"SEG", "SR", "SC"}
    return state
