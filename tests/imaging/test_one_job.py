"""A codec that crashes costs one job: a real node, a real C-STORE, a real SIGSEGV in the codec's own code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicomnode.phantom import small_thorax, write_study
from tests.imaging.failing import failing_codec, recompress
from tests.peers.dcmtk import dcmsend
from tests.peers.node import Node, chest_route, destination, modality_peer
from tests.peers.waiting import wait_until

PIPELINES = Path(__file__).parents[1] / "pipelines"


def worker_of(node: Node) -> tuple[int, str]:
    status = json.loads(node.command("status", "--json").stdout)
    (role,) = [one for one in status["roles"] if one["name"] == "work"]
    return role["pid"], role["state"]


@pytest.mark.timeout(600)
def test_a_codec_that_crashes_costs_one_job_and_not_the_worker(node: Callable[..., Node], tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    one = node(
        peers=[modality_peer("CT_SCANNER")],
        destinations=[destination("folder", kind="folder", path=str(results), peer=None, proof="status")],
        routes=[chest_route(pipeline="tiny", send_to=["folder"], match={"Modality": "CT"}, quiet_s=1)],
        pipelines=[PIPELINES],
        environment={"LD_PRELOAD": str(failing_codec(tmp_path))},
    )
    bad, good = (write_study(small_thorax(seed), tmp_path / str(seed)) for seed in (5, 6))
    for path in (*bad, *good):
        recompress(path, "crash" if path == bad[7] else "")
    one.start()
    before = worker_of(one)
    for folder in ("5", "6"):
        assert dcmsend(one.port, tmp_path / folder, calling="CT_SCANNER", called=one.ae_title).ok
    jobs: dict[str, dict[str, Any]] = {}

    def both_ended() -> bool:
        studies = json.loads(one.command("studies", "--json").stdout)["studies"]
        jobs.clear()
        jobs.update({study["key"]: series["jobs"][-1] for study in studies for series in study["series"] if series["jobs"]})
        return len(jobs) == 2 and all(job["state"] not in ("queued", "running") for job in jobs.values())

    wait_until(both_ended, timeout_s=180, every_s=1.0, what="both jobs to end")
    assert {job["state"] for job in jobs.values()} == {"refused", "done"}
    refused = next(job for job in jobs.values() if job["state"] == "refused")
    assert "image 8" in refused["reason"]
    assert "crashed (SIGSEGV)" in refused["reason"]
    assert worker_of(one) == before  # the same process, still running
