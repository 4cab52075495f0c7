"""What happens to a role while it lives: put into its fork from outside, as crash points are."""

import errno
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any


def install(role: str, fault: Mapping[str, Any]) -> None:
    """fault: {"name": one of FAULTS, …what it takes}."""
    wanted_role, put_in = FAULTS[fault["name"]]
    if role == wanted_role:
        put_in(fault)


def _poisonous_series(fault: Mapping[str, Any]) -> None:
    """The worker is killed from outside (memory) each time that it runs this series; `how` "hangs": it never comes back."""
    from dicomnode.engines import Pipeline

    run = Pipeline.run

    @wraps(run)
    def poisoned(self: Any, image: Any, **more: Any) -> Any:
        frames = getattr(image, "frames", ())
        if frames and frames[0].sop_instance_uid in fault["instances"]:
            if fault["how"] == "hangs":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL)
        return run(self, image, **more)

    Pipeline.run = poisoned  # type: ignore[method-assign]


def _raising_model(fault: Mapping[str, Any]) -> None:
    """The model raises until a file is there; `waits`: it waits for it instead."""
    from dicomnode.engines import Pipeline

    run = Pipeline.run

    @wraps(run)
    def raising(self: Any, image: Any, **more: Any) -> Any:
        while fault.get("waits") and not Path(fault["until"]).exists():
            time.sleep(0.05)
        if not Path(fault["until"]).exists():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return run(self, image, **more)

    Pipeline.run = raising  # type: ignore[method-assign]


def _failing_disk(fault: Mapping[str, Any]) -> None:
    """fsync says EIO until a file is there."""
    real = os.fsync

    def failing(descriptor: int) -> None:
        if not Path(fault["until"]).exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    os.fsync = failing  # type: ignore[assignment]


def _late_listener(fault: Mapping[str, Any]) -> None:
    """All other roles are at work for `seconds` before anybody listens."""
    from dicomnode.receiving import Receiver

    start = Receiver.start

    def late(self: Receiver) -> None:
        time.sleep(fault["seconds"])
        start(self)

    Receiver.start = late  # type: ignore[method-assign]


FAULTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], None]]] = {
    "poisonous series": ("work", _poisonous_series),
    "raising model": ("work", _raising_model),
    "failing disk": ("work", _failing_disk),
    "late listener": ("receive", _late_listener),
}
