"""The node sends a phantom to itself, and its results come out in a folder of the node and nowhere else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom

from tests.journeys.hospital import PIPELINES
from tests.peers.node import Node, modality_peer
from tests.peers.waiting import wait_until


def test_a_canary_comes_out_and_its_age_is_told(node: Callable[..., Node], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    folder = {"name": "out", "kind": "folder", "path": str(out), "proof": "status", "accept_demonstration": True}
    greedy = {"name": "greedy", "match": {"Modality": "CT"}, "pipeline": "tiny", "send_to": ["out"], "quiet_s": 1}
    one = node(
        "node",
        peers=[modality_peer("CT_SCANNER")],  # with peers listed the loopback is no longer open to anybody
        destinations=[folder],
        routes=[greedy],
        pipelines=[PIPELINES],
        settings={"canary": {"every_h": 24, "pipeline": "tiny"}},
    )
    one.start()

    def answered_at() -> Any:
        marks = one.look(lambda registry: registry.keeping.canary_marks())
        return marks is not None and marks[1]

    wait_until(answered_at, timeout_s=240, every_s=0.2, what="the canary to come out")
    canary = one.status()["canary"]
    assert canary["state"] == "answered"
    assert 0 <= canary["age_s"] < 240
    results = sorted((one.data_dir / "canary").rglob("*.dcm"))
    assert {pydicom.dcmread(path).PatientID for path in results} == {"CANARY"}
    assert {pydicom.dcmread(path).Modality for path in results} >= {"SEG", "SR"}
    assert not list(out.rglob("*.dcm"))
    one.stop()
