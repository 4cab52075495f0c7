"""A node on a shared database says that it lives, and does not start beside another one of its name.

Two of one name would take each other's jobs for leftovers of their own: each start would give back what the other one runs.
"""

import hashlib
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import structlog

from dicomnode.domain.errors import DicomNodeError, SettingsError
from dicomnode.registry import Registry
from dicomnode.roles import wiring
from dicomnode.settings import Settings

SAY_EVERY_S = 5.0
SILENT_FOR_S = 12.0  # whoever says nothing for that long is dead; the next start needs not wait
_BOOT = Path("/proc/sys/kernel/random/boot_id")

_log = structlog.get_logger()


def identity(settings: Settings) -> str:
    """The same for all that runs on this run folder and machine, until the machine starts again; hexadecimal."""
    path = wiring.run_folder(settings) / "identity"
    with suppress(FileExistsError), path.open("x") as file:
        file.write(uuid.uuid4().hex)
    boot = _BOOT.read_text() if _BOOT.exists() else str(uuid.getnode())
    return hashlib.sha256(f"{path.read_text()} {boot}".encode()).hexdigest()[:32]


def refuse_a_twin(settings: Settings, registry: Registry, *, silent_for_s: float = SILENT_FOR_S) -> None:
    """Raises SettingsError if another node of this name lives. One that was cut off is waited for until that is sure."""
    name, own = settings.node_name, identity(settings)
    registry.presence.say(name, own)
    others = registry.presence.namesakes(name, own)
    deadline = time.monotonic() + silent_for_s
    while others and time.monotonic() < deadline:
        time.sleep(silent_for_s / 24)
        if any(others.get(one) not in (None, at) for one, at in registry.presence.namesakes(name, own).items()):
            registry.presence.forget(name, own)
            raise SettingsError(
                f"another node called {name!r} runs on this database",
                "give each of them its own node.name, or stop the other one",
            )
    for other in others:
        registry.presence.forget(name, other)


@contextmanager
def said(settings: Settings, *, every_s: float = SAY_EVERY_S) -> Iterator[None]:
    """While the block runs, a thread says that this node lives; where nobody shares the database, nobody asks."""
    if not wiring.shares_database(settings):
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_say, args=(settings, stop, every_s), name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _say(settings: Settings, stop: threading.Event, every_s: float) -> None:
    name, own = settings.node_name, identity(settings)
    registry = wiring.open_registry(settings)  # not the supervisor's: that one must not wait for this thread's connection
    seen: dict[str, datetime] = {}
    while True:
        with suppress(DicomNodeError):  # a database that is away: others wait for it as we do
            registry.presence.say(name, own)
            now = registry.presence.namesakes(name, own)
            if any(at != seen[one] for one, at in now.items() if one in seen):
                _log.error("another node has the name of this one: each takes the other's work for its own; set node.name")
            seen = now
        if stop.wait(every_s):
            break
    with suppress(DicomNodeError):
        registry.presence.leave(name, own)
    registry.close()
