"""Whole ways through real peers: a modality (DCMTK), our node as users run it, and a PACS (Orthanc)."""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.node import Node, chest_route, destination, modality_peer, peer_of
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.processes import tool

PIPELINES = Path(__file__).parents[1] / "pipelines"


@dataclass
class Hospital:
    """One node between a modality called CT_SCANNER and one PACS."""

    node: Node
    pacs: Orthanc


def build_hospital(folder: Path, *, pipeline: str = "chest_ct", **route: object) -> Hospital:
    """A hospital whose node is not started yet."""
    pacs = Orthanc(folder / "pacs")
    peers = [peer_of(pacs), modality_peer("CT_SCANNER")]
    node = Node(
        folder / "node",
        peers=peers,
        destinations=[destination("pacs")],
        routes=[chest_route(pipeline=pipeline, **route)],
        pipelines=[PIPELINES],
    )
    pacs.modalities["dicomnode"] = Modality(node.ae_title, node.port)
    return Hospital(node, pacs)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A running hospital with the shipped model, shared by a module's tests."""
    one = build_hospital(tmp_path_factory.mktemp("hospital"))
    one.pacs.start()
    one.node.start()
    yield one
    one.node.kill()
    one.pacs.kill()


@pytest.fixture
def tiny_hospital(tmp_path: Path) -> Iterator[Hospital]:
    """A hospital with the tiny pipeline; neither node nor PACS is started."""
    one = build_hospital(tmp_path, pipeline="tiny", quiet_s=1)
    yield one
    one.node.kill()
    one.pacs.kill()


def dciodvfy_errors(paths: Sequence[Path]) -> dict[str, list[str]]:
    """What dciodvfy calls an error, by file."""
    found = {}
    for path in paths:
        done = subprocess.run(
            [tool("dciodvfy", "dicom3tools"), "-new", str(path)], capture_output=True, text=True, check=False, errors="replace"
        )
        said = done.stdout + done.stderr
        assert said.strip(), f"dciodvfy said nothing about {path}"
        errors = [line for line in said.splitlines() if line.startswith("Error")]
        if errors:
            found[path.name] = errors
    return found
