"""`receive`, `deliver` and `sweep` stay light: seen in the modules of the real processes after they have worked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dicomnode.phantom import small_thorax, write_study
from dicomnode.registry import Registry
from dicomnode.roles.lifeline import READY
from tests.peers.dcmtk import dcmsend
from tests.peers.node import Node, chest_route, destination
from tests.peers.waiting import wait_until

HEAVY = {"torch", "monai", "highdicom", "ignite", "skimage", "sklearn", "scipy"}
PIPELINES = Path(__file__).parents[1] / "pipelines"

# The role's own entry, and at its end the names of all modules that it ever loaded.
PROGRAM = """
import atexit, json, runpy, sys
out = sys.argv.pop(1)
atexit.register(lambda: open(out, "w").write(json.dumps(sorted(sys.modules))))
runpy.run_module("dicomnode.roles", run_name="__main__")
"""


def test_light_roles_never_load_what_is_heavy(node: Callable[..., Node], tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    folder = destination("folder", kind="folder", path=str(results), peer=None, proof="status")
    route = chest_route(pipeline="tiny", send_to=["folder"], quiet_s=0.5)
    one = node("node", destinations=[folder], routes=[route], pipelines=[PIPELINES])
    one.data_dir.mkdir()
    registry = Registry(f"sqlite:///{one.data_dir / 'dicomnode.db'}")
    registry.prepare()
    write_study(small_thorax(1), tmp_path / "study")

    running = {role: start(role, one.config, tmp_path) for role in ("receive", "deliver", "sweep")}
    try:
        for _, pipe in running.values():
            assert READY in os.read(pipe, 1)
        assert dcmsend(one.port, tmp_path / "study").ok
        wait_until(lambda: queued(registry), timeout_s=30, what="a job")
    finally:
        for process, pipe in running.values():
            process.terminate()
            process.wait(30)
            os.close(pipe)
    registry.close()
    for role in running:
        loaded = {name.partition(".")[0] for name in json.loads((tmp_path / f"{role}.json").read_text())}
        assert "dicomnode" in loaded
        assert not loaded & HEAVY, role


def queued(registry: Registry) -> int:
    counts = registry.status_counts()["counts"]
    assert isinstance(counts, dict)
    number: int = counts["jobs"]["queued"]
    return number


def start(role: str, config: Path, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    reading, writing = os.pipe()
    words = [str(folder / f"{role}.json"), role, "--config", str(config), "--pipe", str(writing)]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stdin=subprocess.DEVNULL, pass_fds=[writing])
    os.close(writing)
    return process, reading
