"""A whole node of ours as users run it: a settings file and `dicomnode run` as a subprocess."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from dicomnode.domain.errors import DicomNodeError
from dicomnode.registry import Registry
from tests.peers.orthanc import Orthanc
from tests.peers.processes import PeerProcess
from tests.peers.waiting import free_port, wait_until

EXECUTABLE = Path(sys.executable).with_name("dicomnode")
_Answer = TypeVar("_Answer")


def peer_of(pacs: Orthanc, name: str = "pacs", may: Sequence[str] = ("store", "query", "retrieve")) -> dict[str, Any]:
    """The [[peers]] entry for an Orthanc."""
    return {"name": name, "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port, "may": list(may)}


def modality_peer(ae_title: str, name: str | None = None, may: Sequence[str] = ("store",)) -> dict[str, Any]:
    """The [[peers]] entry for a sender on this machine, such as DCMTK's dcmsend with that calling AE title."""
    name = name or ae_title.lower()
    return {"name": name, "ae_title": ae_title, "host": "127.0.0.1", "port": free_port(), "may": list(may)}


def destination(name: str = "pacs", **settings: Any) -> dict[str, Any]:
    """A [[destinations]] entry that sends to the peer of the same name and proves by C-FIND."""
    entry = {"name": name, "kind": "dicom", "peer": name, "profile": "ohif", "proof": "find", "accept_demonstration": True}
    return {key: value for key, value in {**entry, **settings}.items() if value is not None}


def chest_route(**settings: Any) -> dict[str, Any]:
    """A [[routes]] entry for chest CT with a quiet period fit for tests."""
    return {
        "name": "chest-ct",
        "match": {"Modality": "CT", "BodyPartExamined": ["CHEST", "THORAX", ""]},
        "pipeline": "chest_ct",
        "send_to": ["pacs"],
        "results": ["SEG", "SR", "SC"],
        "quiet_s": 2,
        "max_wait_s": 60,
        **settings,
    }


class Node:
    """A node in `folder`: settings file, data folder, free ports, logs. Not started until `start`.

    Peers, destinations and routes are entries of the settings file as dicts (helpers above). `settings` adds or overrides
    whole keys: {"database": {"url": …}, "node": {"timezone": "Asia/Tokyo"}}. `environment` goes to every command.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "DICOMNODE",
        peers: Sequence[Mapping[str, Any]] = (),
        destinations: Sequence[Mapping[str, Any]] = (),
        routes: Sequence[Mapping[str, Any]] = (),
        pipelines: Sequence[Path] = (),
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.config = folder / "dicomnode.toml"
        self.log = folder / "node.log"
        self.ae_title = ae_title
        self.port = free_port()
        self._environment = dict(environment or {})
        self._database_url = f"sqlite:///{self.data_dir / 'dicomnode.db'}"
        self._process: PeerProcess | None = None
        folder.mkdir(parents=True, exist_ok=True)
        tables: dict[str, dict[str, Any]] = {
            "node": {"ae_title": ae_title, "data_dir": str(self.data_dir)},
            "database": {"url": self._database_url},
            "dicom": {"host": "127.0.0.1", "port": self.port},
            "web": {"host": "127.0.0.1", "port": free_port()},
            "pipelines": {"folders": [str(path) for path in pipelines]},
        }
        for table, values in (settings or {}).items():
            tables.setdefault(table, {}).update(values)
        self._database_url = str(tables["database"]["url"])
        lists = {"peers": peers, "destinations": destinations, "routes": routes}
        self.config.write_text(settings_text(tables, lists))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- its life

    def start(self, *roles: str, timeout_s: float = 120.0) -> None:
        """`dicomnode run`, and back when `dicomnode status --json` says ready. Raises RuntimeError if it ends instead."""
        self.start_only(*roles)
        try:
            wait_until(self._ready, timeout_s=timeout_s, every_s=0.1, what="the node to be ready")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\nits log ends:\n{self.output()[-3000:]}") from None

    def start_only(self, *roles: str) -> None:
        """`dicomnode run` without waiting."""
        arguments = [word for role in roles for word in ("--role", role)]
        self._process = PeerProcess(
            [EXECUTABLE, "run", *arguments, "--config", self.config], self.log, environment=self._full_environment()
        )

    def _ready(self) -> bool:
        if self._process is None or not self._process.running:
            raise RuntimeError(f"the node ended instead of getting ready; its log ends:\n{self.output()[-3000:]}")
        if not self._seems_ready():
            return False
        answer = self.command("status", "--json")
        return answer.returncode == 0 and bool(json.loads(answer.stdout)["ready"])

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and its exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        return process.terminate(timeout_s)

    def kill(self) -> None:
        """kill -9 of the node with all its roles."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()

    def kill_supervisor(self) -> None:
        """kill -9 of the supervisor alone; the roles must notice by themselves."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The supervisor; all roles are in its process group."""
        if self._process is None:
            raise RuntimeError("the node is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the supervisor is there."""
        return self._process is not None and self._process.running

    def output(self) -> str:
        """What all roles wrote to stdout and stderr, over all starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # --- a look at it without a command: each costs a second of processor time, and who waits looks often

    def _seems_ready(self) -> bool:
        states = []
        for path in (self.data_dir / "run").rglob("*.json"):
            with suppress(FileNotFoundError):
                states.append(json.loads(path.read_text())["state"])
        return bool(states) and set(states) == {"ready"}

    def look(self, ask: Callable[[Registry], _Answer]) -> _Answer | None:
        """`ask` of the node's own rows; None where they cannot answer just now. What it says is then seen by a command."""
        path = Path(self._database_url.removeprefix("sqlite:///"))
        if self._database_url.startswith("sqlite") and not path.is_file():
            return None
        with closing(Registry(self._database_url)) as registry, suppress(DicomNodeError, SQLAlchemyError):
            return ask(registry)
        return None

    # --- its commands

    def command(self, *words: str | Path, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """`dicomnode WORDS… --config FILE` with this node's settings; never raises for an exit code."""
        return subprocess.run(
            [str(EXECUTABLE), *(str(word) for word in words), "--config", str(self.config)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self._full_environment(),
            cwd=self.folder,
            check=False,
        )

    def json(self, *words: str | Path, timeout_s: float = 120.0) -> Any:
        """The one JSON document of `dicomnode WORDS… --json`. Raises RuntimeError if there is none."""
        answer = self.command(*words, "--json", timeout_s=timeout_s)
        try:
            return json.loads(answer.stdout)
        except ValueError:
            said = f"exit code {answer.returncode}, stdout {answer.stdout[-500:]!r}, stderr {answer.stderr[-1500:]!r}"
            raise RuntimeError(f"dicomnode {' '.join(map(str, words))} --json gave no document: {said}") from None

    def status(self) -> Any:
        """`dicomnode status --json`."""
        return self.json("status")

    def explain(self, study: str) -> Any:
        """`dicomnode explain STUDY --json`."""
        return self.json("explain", study)

    def wait_for_jobs(self, count: int = 1, *, state: str = "done", timeout_s: float = 180.0) -> Any:
        """The status once `count` jobs are in `state`."""
        return self._wait_for("jobs", state, count, timeout_s)

    def wait_for_deliveries(self, count: int, *, state: str = "confirmed", timeout_s: float = 180.0) -> Any:
        """The status once `count` deliveries are in `state`."""
        return self._wait_for("deliveries", state, count, timeout_s)

    def _wait_for(self, kind: str, state: str, count: int, timeout_s: float) -> Any:
        latest: dict[str, Any] = {}

        def there() -> Any:
            if not self.running:
                raise RuntimeError(f"the node ended; its log ends:\n{self.output()[-3000:]}")
            counted = self.look(Registry.status_counts)
            if counted is None or counted["counts"][kind].get(state, 0) < count:  # type: ignore[index]
                return None
            latest.update(self.status())
            return latest if latest["counts"][kind].get(state, 0) >= count else None

        try:
            return wait_until(there, timeout_s=timeout_s, every_s=0.2, what=f"{count} {kind} {state}")
        except TimeoutError as error:
            counts = self.look(Registry.status_counts)
            raise TimeoutError(f"{error}\ncounts: {counts}\nthe log ends:\n{self.output()[-3000:]}") from None

    def _full_environment(self) -> dict[str, str]:
        # A developer's own DICOMNODE_… variables must not leak into the node under test.
        clean = {key: value for key, value in os.environ.items() if not key.startswith("DICOMNODE_")}
        return {**clean, **self._environment}


def settings_text(tables: Mapping[str, Mapping[str, Any]], lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A settings file (TOML) of plain tables and of arrays of tables."""
    lines: list[str] = []
    for name, values in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
    for name, entries in lists.items():
        for entry in entries:
            lines += [f"[[{name}]]", *(f"{key} = {_toml(value)}" for key, value in entry.items()), ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(value, ensure_ascii=False)  # strings, numbers and booleans read the same in TOML
