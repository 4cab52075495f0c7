"""`demo`: the main job on one machine, with a synthetic patient, a node of its own and a small PACS."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption
from dicomnode.cli.output import print_json, say, table
from dicomnode.domain.errors import PipelineError, UsageError

if TYPE_CHECKING:
    from dicomnode.cli.demo_comparison import Pair, Planted
    from dicomnode.cli.demo_pacs import SmallPacs

MARK = ".dicomnode-demo"
SEED = 10
READY_WITHIN_S, RESULTS_WITHIN_S, STOPPED_WITHIN_S = 120.0, 900.0, 60.0
LOOK_EVERY_S = 0.2

_SETTINGS = """\
[node]
ae_title = "DEMONODE"
data_dir = {data_dir}

[dicom]
port = {port}

[[peers]]
name = "modality"
ae_title = "DEMOCT"
host = "127.0.0.1"
port = 104
may = ["store"]

[[peers]]
name = "pacs"
ae_title = "DEMOPACS"
host = "127.0.0.1"
port = {pacs_port}

[[destinations]]
name = "pacs"
peer = "pacs"
proof = "find"
accept_demonstration = true        # it is a demonstration

[[routes]]
name = "chest-ct"
match = {{ Modality = "CT", BodyPartExamined = ["CHEST", "THORAX", ""] }}
pipeline = "chest_ct"
send_to = ["pacs"]
quiet_s = 1
max_wait_s = 60
"""


def demo(
    fresh: Annotated[bool, typer.Option("--fresh", help="Make the synthetic study anew, too.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Where everything of the demo goes.")] = Path("demo-output"),
    config: ConfigOption = None,  # noqa: ARG001 - the demo has settings of its own
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Make a synthetic chest CT, send it through a node, show what came back beside what was planted."""
    from dicomnode import logs

    logs.configure("demo", level="error")
    out = _clean(out, fresh=fresh)
    began = time.monotonic()
    with _steps() as step:
        step("making a synthetic chest CT")
        files, planted = _study(out / "study")
        with _running_node(out, step) as (pacs, node_port):
            step(f"sending {len(files)} images by C-STORE")
            _send(files, node_port)
            step("waiting for the results")
            explained = _results(out / "node" / "dicomnode.toml", pacs)
        step("comparing")
        pairs, pictures = _compared(pacs, planted, explained, out / "pictures")
    from dicomnode.cli.demo_comparison import sensible

    ok, took = sensible(pairs), time.monotonic() - began
    if as_json:
        payload = {"ok": ok, "elapsed_s": round(took, 1), "nodules": [pair.as_json() for pair in pairs]}
        print_json("demo", {**payload, "objects": pacs.files(), "pictures": pictures, "paragraph": explained["paragraph"]})
    else:
        _show(pairs, pacs.files(), pictures, explained["paragraph"], ok=ok, took=took)
    if not ok:
        raise typer.Exit(1)


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """What happens now: a spinner on a terminal, lines elsewhere; on stderr."""
    if not sys.stderr.isatty():
        yield lambda text: print(f"demo: {text}", file=sys.stderr, flush=True)  # noqa: T201
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: list[Any] = []

        def step(text: str) -> None:
            if tasks:
                bar.update(tasks[-1], total=1, completed=1)
            tasks.append(bar.add_task(text, total=None))

        yield step
        bar.update(tasks[-1], total=1, completed=1)


def _clean(out: Path, *, fresh: bool) -> Path:
    """The output folder without what an earlier demo left. Raises UsageError for a folder that is not a demo's."""
    out = out.absolute()
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise UsageError(f"{out} is not empty and not of a demo", "name another folder with --out")
    for name in ("node", "pacs", "pictures", *(("study",) if fresh else ())):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    return out


def _study(folder: Path) -> "tuple[list[Path], list[Planted]]":
    """The files of the synthetic study and the truth about its nodules; kept for the next demo."""
    from dicomnode import phantom
    from dicomnode.cli.demo_comparison import Planted

    spec = phantom.ThoraxSpec(seed=SEED, nodule_count=3)
    truth_file = folder / "truth.json"
    truth: dict[str, Any] = {"spec": repr(spec), "nodules": []}
    if not (truth_file.exists() and json.loads(truth_file.read_text())["spec"] == truth["spec"]):
        shutil.rmtree(folder, ignore_errors=True)
        made = phantom.thorax(spec)
        phantom.write_study(made, folder)
        truth["nodules"] = [asdict(Planted(one.center_mm, one.diameter_mm, one.volume_ml)) for one in made.nodules]
        truth_file.write_text(json.dumps(truth))  # last: a study cut off half way is made again
    nodules = json.loads(truth_file.read_text())["nodules"]
    return sorted(folder.glob("*.dcm")), [Planted(**{**one, "center_mm": tuple(one["center_mm"])}) for one in nodules]


@contextmanager
def _running_node(out: Path, step: Callable[[str], None]) -> "Iterator[tuple[SmallPacs, int]]":
    """The PACS and a ready node with its port; both stopped at the end."""
    from dicomnode.cli.demo_pacs import SmallPacs

    with SmallPacs(out / "pacs") as pacs:
        port = _free_port()
        folder = out / "node"
        folder.mkdir()
        config = folder / "dicomnode.toml"
        data_dir = json.dumps(str(folder / "data"))
        config.write_text(_SETTINGS.format(data_dir=data_dir, port=port, pacs_port=pacs.port))
        step("starting the node")
        # The demo is a node of its own: variables of a real one must not reach it.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DICOMNODE_")}
        command = [sys.executable, "-m", "dicomnode.cli", "run", "--config", str(config)]
        with (folder / "node.log").open("wb") as log:
            node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            _wait_until_ready(node, folder)
            yield pacs, port
            step("stopping the node")
        finally:
            _stop(node)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(node: subprocess.Popen[bytes], folder: Path) -> None:
    from dicomnode.roles import ROLES
    from dicomnode.roles.state_files import read_states

    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        states = read_states(folder / "data" / "run", ROLES)
        if len(states) == len(ROLES) and all(one["state"] == "ready" for one in states):
            return
        if node.poll() is not None:
            said = [
                line for line in (folder / "node.log").read_text(errors="replace").splitlines() if line.startswith("error: ")
            ]
            what, _, remedy = (
                (said or [f"error: the node ended with {node.returncode}"])[-1].removeprefix("error: ").partition(" — ")
            )
            raise PipelineError(what, remedy or f"look at {folder / 'node.log'}")
        time.sleep(LOOK_EVERY_S)
    raise PipelineError("the node did not get ready", f"look at {folder / 'node.log'}")


def _stop(node: subprocess.Popen[bytes]) -> None:
    if node.poll() is None:
        node.send_signal(signal.SIGTERM)
        try:
            node.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            node.kill()  # its roles die with it
            node.wait()


def _send(files: list[Path], port: int) -> None:
    from dicomnode import network
    from dicomnode.domain.routes import Peer

    node = Peer("node", "DEMONODE", "127.0.0.1", port, frozenset())
    with network.associate(node, "DEMOCT", network.store_contexts_for(files)) as association:
        for path in files:
            status = network.send_file(association, path)
            if status != 0:
                raise PipelineError(f"the node answered C-STORE with {status}", "look at demo-output/node/node.log")


def _results(config: Path, pacs: "SmallPacs") -> dict[str, Any]:
    """What `explain` says once every delivery is proved, or a job has ended without results."""
    from dicomnode.cli.options import existing_registry, loaded

    registry = existing_registry(loaded(config))
    deadline = time.monotonic() + RESULTS_WITHIN_S
    try:
        while time.monotonic() < deadline:
            for study in registry.studies():
                explained = cast("dict[str, Any]", registry.explain(str(study["key"])))
                jobs = [job for series in explained["series"] for job in series["jobs"]]
                deliveries = [one for series in explained["series"] for one in series["deliveries"]]
                ended = jobs and all(job["state"] in {"done", "refused", "failed"} for job in jobs)
                if ended and all(one["state"] not in {"waiting", "sending", "sent"} for one in deliveries):
                    return explained
            time.sleep(LOOK_EVERY_S)
    finally:
        registry.close()
    raise PipelineError("no results came back", f"{len(pacs.files())} objects arrived; look at {config.parent / 'node.log'}")


def _compared(
    pacs: "SmallPacs", planted: "list[Planted]", explained: dict[str, Any], folder: Path
) -> "tuple[list[Pair], list[Path]]":
    """Truth and findings side by side, and pictures, from what the PACS holds."""
    import pydicom

    from dicomnode.cli.demo_comparison import Found, found_in, pair_up, save_frames

    jobs = [job for series in explained["series"] for job in series["jobs"]]
    if not any(job["state"] == "done" for job in jobs):
        raise PipelineError("the AI did not run", explained["paragraph"])
    lesions = [lesion for job in jobs for lesion in (job["findings"] or {}).get("lesions", [])]
    probabilities = {str(one["label"]): float(one["probability"]) for one in lesions}
    found: list[Found] = []
    pictures: list[Path] = []
    for path in pacs.files():
        modality = pydicom.dcmread(path, stop_before_pixels=True).Modality
        if modality == "SEG":
            found += found_in(pydicom.dcmread(path), probabilities)
        elif modality not in {"SR", "CT"}:
            pictures += save_frames(path, folder)
    return pair_up(planted, found), sorted(pictures)


def _say_some(what: str, paths: list[Path], most: int = 5) -> None:
    say(f"{what}:")
    for path in paths[:most]:
        say(f"  {path}")
    if len(paths) > most:
        say(f"  … and {len(paths) - most} more in {paths[0].parent}")


def _show(pairs: "list[Pair]", objects: list[Path], pictures: list[Path], paragraph: str, *, ok: bool, took: float) -> None:
    rows = []
    for pair in pairs:
        truth, lesion = pair.planted, pair.found
        rows.append(
            (
                ", ".join(f"{value:.0f}" for value in truth.center_mm) if truth else "nothing here",
                lesion.label if lesion else "not found",
                f"{pair.distance_mm:.1f}" if pair.distance_mm is not None else "",
                f"{truth.diameter_mm:.1f}" if truth else "",
                f"{lesion.diameter_mm:.1f}" if lesion else "",
                f"{truth.volume_ml:.2f}" if truth else "",
                f"{lesion.volume_ml:.2f}" if lesion else "",
                f"{lesion.probability:.2f}" if lesion and lesion.probability is not None else "",
            )
        )
    columns = (
        "planted at mm (L, P, S)",
        "found",
        "centre off mm",
        "planted ⌀ mm",
        "found ⌀ mm",
        "planted ml",
        "found ml",
        "probability",
    )
    say(paragraph)
    table(columns, rows, title="Nodules: planted and found")
    _say_some("In the PACS", sorted(objects, key=lambda path: path.name.startswith("OT")))  # SEG and SR before pictures
    _say_some("Pictures of the overlay, the summary first", pictures)
    say(
        f"{'Every planted nodule was found' if ok else 'The findings do not fit what was planted'}; the demo took {took:.0f} s."
    )
