"""`run/ROLE.json` and `run/ROLE.lock` in the data folder: who runs a role here, and how it is.

The supervisor holds the lock as long as it lives, so a file without a held lock is a leftover of a killed node.
"""

import fcntl
import json
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Self, TypedDict

from dicomnode.domain.errors import UsageError


class RoleStatus(TypedDict):
    """One role as `status` shows it. `state`: starting, ready, restarting, stopping or stopped."""

    name: str
    pid: int | None
    state: str
    started: str
    restarts: int
    supervisor_pid: int


class RoleLocks:
    """The exclusive right to run these roles on this data folder. Raises UsageError if another process has one of them."""

    def __init__(self, run_folder: Path, roles: Iterable[str]) -> None:
        self._run_folder, self._roles = run_folder, tuple(roles)
        self._held = ExitStack()

    def __enter__(self) -> Self:
        for role in self._roles:
            handle = self._held.enter_context((self._run_folder / f"{role}.lock").open("a+"))
            if not _take(handle):
                self._held.close()
                raise UsageError(
                    f"role {role} is already running on {self._run_folder.parent}",
                    "stop the other node (dicomnode status names its processes), or give this one its own node.data_dir",
                )
        for leftover in self._run_folder.glob("*.json"):
            if leftover.stem in self._roles or not _is_held(leftover.with_suffix(".lock")):
                leftover.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for role in self._roles:
            (self._run_folder / f"{role}.json").unlink(missing_ok=True)
        self._held.close()


def write_state(run_folder: Path, status: RoleStatus) -> None:
    """Replace the role's file as a whole: a reader sees the old or the new one."""
    path = run_folder / f"{status['name']}.json"
    fresh = path.with_suffix(".json.new")
    fresh.write_text(json.dumps(status))
    fresh.replace(path)


def read_states(run_folder: Path, order: Iterable[str]) -> list[RoleStatus]:
    """What every role said last, in this order; one whose supervisor is gone is "stopped"."""
    found = []
    for role in order:
        path = run_folder / f"{role}.json"
        with suppress(FileNotFoundError, ValueError):
            status: RoleStatus = json.loads(path.read_text())
            if not _is_held(path.with_suffix(".lock")):
                status["state"], status["pid"] = "stopped", None
            found.append(status)
    return found


def _take(handle: IO[str]) -> bool:
    """The lock, unless somebody keeps it: `status` looks at it for an instant, and a killed node's roles take one to die."""
    for _ in range(20):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            return True
    return False


def _is_held(lock: Path) -> bool:
    try:
        with lock.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
