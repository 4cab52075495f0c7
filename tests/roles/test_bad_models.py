"""Models that misbehave, in a real worker under a real supervisor: each costs its own job at most, and the next one is done."""

import json
import shutil
import socket
from collections.abc import Iterator
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
MISDEEDS = ("raises", "segfaults", "eats memory", "hangs", "connects", "behaves")
MEMORY_MB, TIMEOUT_S = 3000, 40

# Each image is known by its shape; the first time it is seen, the next misdeed is its own, later it is served well.
SCRIPT = """
import ctypes, socket
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


def bad_bundle(folder: Path, port: int) -> Path:
    shutil.copytree(TINY, folder)
    seen = folder.parent / "seen"
    seen.mkdir()
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").touch()
    (folder / "scripts" / "bad.py").write_text(SCRIPT.format(seen=str(seen), misdeeds=MISDEEDS, port=port))
    config_file = folder / "configs" / "inference.json"
    config = json.loads(config_file.read_text())
    config["preprocessing"]["transforms"].append({"_target_": "scripts.bad.Misbehave"})
    config_file.write_text(json.dumps(config))
    return folder


def node_with(bundle: Path, tmp_path: Path) -> Node:
    results = tmp_path / "results"
    results.mkdir()
    folder = destination("folder", kind="folder", path=str(results), peer=None, proof="status")
    limits = {"memory_mb": MEMORY_MB, "job_timeout_s": TIMEOUT_S, "device": "cpu"}
    return Node(
        tmp_path / "node",
        destinations=[folder],
        routes=[chest_route(pipeline="tiny", send_to=["folder"], match={"Modality": "CT"})],
        pipelines=[bundle.parent],
        settings={"work": limits, "pipelines": {"trusted": [bundle_digest(bundle)]}},
    )


def receive_one_study_each(node: Node, tmp_path: Path) -> Registry:
    """Jobs J1, J2 … in the order of MISDEEDS, before the worker starts."""
    settings = load_settings(node.config)
    wiring.make_folders(settings)
    store, registry = wiring.open_store(settings), wiring.open_registry(settings)
    store.prepare()
    registry.prepare()
    receiver = Receiver(store, registry, ae_title="DICOMNODE", port=0)
    receiver.start()
    for number in range(len(MISDEEDS)):
        spec = ThoraxSpec(seed=50 + number, slices=24 + number, size=128, slice_spacing_mm=9.0, pixel_spacing_mm=3.0)
        write_study(thorax(spec), tmp_path / f"study{number}")
        assert dcmsend(receiver.port, tmp_path / f"study{number}").ok
        later = utc_now() + timedelta(minutes=5)
        assert (
            len(routing.sweep(registry, wiring.routes(settings), later, pipelines=pipeline_facts(settings)).jobs_created) == 1
        )
    receiver.stop()
    return registry


def jobs_of(registry: Registry) -> list[Any]:
    """By number, as `explain` tells them."""
    told: list[Any] = [registry.explain(f"S{number}") for number in range(1, len(MISDEEDS) + 1)]
    return [job for one in told for series in one["series"] for job in series["jobs"]]


@pytest.mark.timeout(700)
def test_whatever_a_model_does_costs_its_own_job_and_the_worker_is_replaced(tmp_path: Path, listener: socket.socket) -> None:
    node = node_with(bad_bundle(tmp_path / "pipelines" / "tiny", listener.getsockname()[1]), tmp_path)
    registry = receive_one_study_each(node, tmp_path)
    node.start_only("work")
    try:
        ended = {"done", "failed", "refused"}
        wait_until(
            lambda: {job["state"] for job in jobs_of(registry)} <= ended, timeout_s=600, every_s=1, what="all jobs to end"
        )
    finally:
        node.stop()
    by_misdeed = dict(zip(MISDEEDS, jobs_of(registry), strict=True))
    registry.close()
    told = {misdeed: (job["state"], job["reason_code"], job["crashes"]) for misdeed, job in by_misdeed.items()}
    assert told == {
        "raises": ("failed", "pipeline_failed", 0),
        "segfaults": ("done", "", 1),
        "eats memory": ("done", "", 0),
        "hangs": ("done", "", 1),
        "connects": ("failed", "pipeline_failed", 0),
        "behaves": ("done", "", 0),
    }
    assert by_misdeed["eats memory"]["attempt"] == 2
    said = node.output()
    assert "SIGSEGV" in said
    assert "SIGALRM" in said  # the kernel's timer: nothing in the process could run any more
    assert "a fresh worker takes over" in said
    with pytest.raises(BlockingIOError):
        listener.accept()
