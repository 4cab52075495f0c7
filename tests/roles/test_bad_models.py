"""Models that misbehave, in a real worker under a real supervisor: each costs its own job at most, and the next one is done."""

import json
import shutil
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomnode import routing
from dicomnode.domain.clock import utc_now
from dicomnode.engines.digest import bundle_digest
from dicomnode.phantom import ThoraxSpec, thorax, write_study
from dicomnode.receiving import Receiver
from dicomnode.registry import Registry
from dicomnode.roles import wiring
from dicomnode.roles.sweep import pipeline_facts
from dicomnode.settings import load_settings
from tests.peers.dcmtk import dcmsend
from tests.peers.node import Node, chest_route, destination
from tests.peers.waiting import wait_until

TINY = Path(__file__).parents[1] / "pipelines" / "tiny"
MEMORY_MB = 3000

# Each image is known by its shape; the first time it is seen, the next misdeed is its own, later it is served well.
SCRIPT = """
import ctypes, socket, time
from pathlib import Path

SEEN = Path({seen!r})
MISDEEDS = {misdeeds!r}


class Misbehave:
    keys = ("image",)

    def __call__(self, data):
        mark = SEEN / "x".join(map(str, data["image"].shape))
        if not mark.exists():
            deed = MISDEEDS[len(list(SEEN.iterdir()))]
            mark.touch()
            getattr(self, deed.replace(" ", "_"))()
        return data

    def raises(self):
        raise ValueError("of the model's own making")

    def segfaults(self):
        ctypes.string_at(0)

    def eats_memory(self):
        eaten = []
        while True:
            eaten.append(bytearray(64 << 20))

    def hangs(self):
        ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the interpreter's lock: no thread of Python runs any more

    def sleeps(self):
        time.sleep(3600)

    def connects(self):
        socket.create_connection(("127.0.0.1", {port}))

    def behaves(self):
        pass
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who would notice a call."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        one.setblocking(False)
        yield one


def bad_bundle(folder: Path, port: int, misdeeds: Sequence[str]) -> Path:
    shutil.copytree(TINY, folder)
    seen = folder.parent / "seen"
    seen.mkdir()
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").touch()
    (folder / "scripts" / "bad.py").write_text(SCRIPT.format(seen=str(seen), misdeeds=tuple(misdeeds), port=port))
    config_file = folder / "configs" / "inference.json"
    config = json.loads(config_file.read_text())
    config["preprocessing"]["transforms"].append({"_target_": "scripts.bad.Misbehave"})
    config_file.write_text(json.dumps(config))
    return folder


def node_with(bundle: Path, tmp_path: Path, timeout_s: float) -> Node:
    results = tmp_path / "results"
    results.mkdir()
    folder = destination("folder", kind="folder", path=str(results), peer=None, proof="status")
    limits = {"memory_mb": MEMORY_MB, "job_timeout_s": timeout_s, "device": "cpu"}
    return Node(
        tmp_path / "node",
        destinations=[folder],
        routes=[chest_route(pipeline="tiny", send_to=["folder"], match={"Modality": "CT"})],
        pipelines=[bundle.parent],
        settings={"work": limits, "pipelines": {"trusted": [bundle_digest(bundle)]}},
    )


def receive_studies(node: Node, tmp_path: Path, count: int) -> Registry:
    """So many, with jobs J1, J2 …, before the worker starts."""
    settings = load_settings(node.config)
    wiring.make_folders(settings)
    store, registry = wiring.open_store(settings), wiring.open_registry(settings)
    store.prepare()
    registry.prepare()
    receiver = Receiver(store, registry, ae_title="DICOMNODE", port=0)
    receiver.start()
    for number in range(count):
        spec = ThoraxSpec(seed=50 + number, slices=24 + number, size=128, slice_spacing_mm=9.0, pixel_spacing_mm=3.0)
        write_study(thorax(spec), tmp_path / f"study{number}")
        assert dcmsend(receiver.port, tmp_path / f"study{number}").ok
        later = utc_now() + timedelta(minutes=5)
        assert (
            len(routing.sweep(registry, wiring.routes(settings), later, pipelines=pipeline_facts(settings)).jobs_created) == 1
        )
    receiver.stop()
    return registry


def jobs_of(registry: Registry, count: int) -> list[Any]:
    """By number, as `explain` tells them."""
    told: list[Any] = [registry.explain(f"S{number}") for number in range(1, count + 1)]
    return [job for one in told for series in one["series"] for job in series["jobs"]]


def ends(misdeeds: Sequence[str], tmp_path: Path, port: int, timeout_s: float) -> tuple[dict[str, Any], str]:
    """One job for each misdeed through a real worker until all have ended, by misdeed; and what the node logged."""
    node = node_with(bad_bundle(tmp_path / "pipelines" / "tiny", port, misdeeds), tmp_path, timeout_s)
    registry = receive_studies(node, tmp_path, len(misdeeds))
    node.start_only("work")

    def ended() -> bool:
        return {job["state"] for job in jobs_of(registry, len(misdeeds))} <= {"done", "failed", "refused"}

    try:
        wait_until(ended, timeout_s=800, every_s=1, what="all jobs to end")
    finally:
        node.stop()
    by_misdeed = dict(zip(misdeeds, jobs_of(registry, len(misdeeds)), strict=True))
    registry.close()
    return by_misdeed, node.output()


def in_short(jobs: dict[str, Any]) -> dict[str, tuple[str, str, int]]:
    return {misdeed: (job["state"], job["reason_code"], job["crashes"]) for misdeed, job in jobs.items()}


@pytest.mark.timeout(900)
def test_whatever_a_model_does_costs_its_own_job_and_the_worker_is_replaced(tmp_path: Path, listener: socket.socket) -> None:
    misdeeds = ("raises", "segfaults", "eats memory", "connects", "behaves")
    jobs, said = ends(misdeeds, tmp_path, listener.getsockname()[1], timeout_s=3600)
    assert in_short(jobs) == {
        "raises": ("failed", "pipeline_failed", 0),
        "segfaults": ("done", "", 1),
        "eats memory": ("done", "", 0),
        "connects": ("failed", "pipeline_failed", 0),
        "behaves": ("done", "", 0),
    }
    assert jobs["eats memory"]["attempt"] == 2
    assert "SIGSEGV" in said
    assert "a fresh worker takes over" in said
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_model_that_hangs_is_killed_at_the_hard_timeout_and_its_job_goes_back_to_the_queue(tmp_path: Path) -> None:
    node = node_with(bad_bundle(tmp_path / "pipelines" / "tiny", 0, ["sleeps"]), tmp_path, timeout_s=2)
    registry = receive_studies(node, tmp_path, 1)
    node.start_only("work")
    try:
        wait_until(lambda: jobs_of(registry, 1)[0]["crashes"] == 1, timeout_s=250, every_s=0.1, what="the worker to be killed")
    finally:
        node.stop()
    (job,) = jobs_of(registry, 1)
    registry.close()
    assert (job["state"], job["attempt"], job["crashes"]) == ("queued", 0, 1)  # after two more it would be poison
    assert "job hangs and its worker is killed" in node.output()
    assert "SIGKILL" in node.output()


@pytest.mark.soak  # it waits for the hard timeout, which must leave a slow machine time for a job that is well
@pytest.mark.timeout(900)
def test_a_model_that_hangs_in_c_is_killed_by_the_kernel_and_tried_again(tmp_path: Path) -> None:
    jobs, said = ends(("hangs", "behaves"), tmp_path, 0, timeout_s=120)
    assert in_short(jobs) == {"hangs": ("done", "", 1), "behaves": ("done", "", 0)}
    assert "SIGALRM" in said  # the kernel's timer: nothing in the process could run any more
