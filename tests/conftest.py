"""Shared fixtures, and a summary that says what was not tested and why."""

import json
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.beside import ByFile, longest_first, worker
from tests.peers.dcmtk import StoreScp
from tests.peers.node import Node
from tests.peers.orthanc import Orthanc
from tests.peers.postgresql import PostgreSQL
from tests.peers.waiting import free_port

pytest_plugins = ("tests.hanging", "tests.progress")

CHECKOUT = Path(__file__).resolve().parent.parent

# They take minutes to hours: only when asked for by `-m soak`, `-m fuzz`.
ONLY_WHEN_ASKED = ("soak", "fuzz")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Whole files for each of several processes: what a module shares is made once."""
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the long runs unless a marker expression names them; several processes begin with the longest files."""
    asked = config.getoption("-m")
    long_runs = [item for item in items if any(item.get_closest_marker(name) for name in ONLY_WHEN_ASKED if name not in asked)]
    if long_runs:
        config.hook.pytest_deselected(items=long_runs)
        items[:] = [item for item in items if item not in long_runs]
    if worker() is not None:
        items[:] = longest_first(items)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Skipped tests are a hole in the proof: they are named by reason, the last thing that is read."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("NOT TESTED", yellow=True, bold=True)
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count} test{'s' if count > 1 else ''}: {reason}", yellow=True)


def find_test_data() -> Path | None:
    """$DICOMNODE_TEST_DATA, else shared/data beside the checkout; None where there is none."""
    named = os.environ.get("DICOMNODE_TEST_DATA")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    return folder if (folder / "manifest.json").is_file() else None


@pytest.fixture(autouse=True)
def logging_ends_with_the_test() -> Iterator[None]:
    """What a command or a test set up of logging is gone after it: the next one counts log lines."""
    before = structlog.get_config() if structlog.is_configured() else None
    root, hooks = logging.getLogger(), (sys.excepthook, sys.unraisablehook, threading.excepthook)
    level, handlers = root.level, list(root.handlers)
    yield
    if before is None:
        structlog.reset_defaults()
    else:
        structlog.configure(**before)
    for handler in [one for one in root.handlers if type(one).__module__ == "dicomnode.logs" and one not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real DICOM data; tests that need it are skipped, loudly, where it is absent."""
    folder = find_test_data()
    if folder is None:
        pytest.skip("no real DICOM data — set DICOMNODE_TEST_DATA to the folder that holds manifest.json")
    return folder


@pytest.fixture(scope="session")
def manifest(test_data: Path) -> dict[str, dict[str, Any]]:
    """The entries of manifest.json by their path relative to the data folder."""
    entries = json.loads((test_data / "manifest.json").read_text())["entries"]
    return {entry["path"]: entry for entry in entries}


@pytest.fixture
def port() -> int:
    """A free TCP port of the loopback; `tests.peers.waiting.free_port` gives more."""
    return free_port()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Starts Orthancs: `pacs = orthanc("pacs", modalities=…)`; arguments as of `Orthanc`. All end with the test."""
    started: list[Orthanc] = []

    def start(name: str = "orthanc", **arguments: Any) -> Orthanc:
        one = Orthanc(tmp_path / name, **arguments)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.kill()  # a polite end takes Orthanc three seconds


@pytest.fixture
def store_scp(tmp_path: Path) -> Iterator[Callable[..., StoreScp]]:
    """Starts DCMTK storescps: `archive = store_scp("archive", first_start=["--refuse"])`. All end with the test.

    first_start: options of the first start only; `archive.start()` after `archive.kill()` leaves them out.
    """
    started: list[StoreScp] = []

    def start(name: str = "storescp", *, first_start: Sequence[str] = (), **arguments: Any) -> StoreScp:
        one = StoreScp(tmp_path / name, **arguments)
        started.append(one)
        one.start(extra=first_start)
        return one

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes (not yet started) nodes of ours: `one = node("node", peers=…, destinations=…, routes=…)`. All end with the test."""
    made: list[Node] = []

    def make(name: str = "node", **arguments: Any) -> Node:
        one = Node(tmp_path / name, **arguments)
        made.append(one)
        return one

    yield make
    for one in made:
        one.kill()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server of this run: `postgresql.create("name")` gives a database's URL."""
    with PostgreSQL() as server:
        yield server
