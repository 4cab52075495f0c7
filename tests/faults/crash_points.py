"""Where a node is killed: its own functions, wrapped from outside, in the fork of one role."""

import functools
import importlib
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class CrashPoint:
    """Before or after the `nth` call of `where` ("module:Class.function") in `role`; `given`: of those that gave something.

    first: only calls count whose first argument is this.
    """

    name: str
    role: str
    where: str
    moment: Literal["before", "after"]
    nth: int = 1
    given: bool = False  # a claim that finds nothing is no claim
    first: str = ""


def _both(name: str, role: str, where: str, **more: Any) -> list[CrashPoint]:
    return [CrashPoint(f"{moment} {name}", role, where, moment, **more) for moment in ("before", "after")]  # type: ignore[arg-type]


_WRITER = "dicomnode.storage.writer"
_REGISTRY = "dicomnode.registry.registry:Registry"
_ANSWERED = "dicomnode.receiving.association:Association._respond"

# In the order in which a study meets them. nth: in the middle of the study, not at its first image.
PARALLEL_RECEIVING = [
    *_both("a file is written", "receive", f"{_WRITER}:write_pieces", nth=5),
    *_both("a file is synced", "receive", "dicomnode.storage.hands:Hands.sync", nth=7),
    *_both("a row is committed", "receive", "dicomnode.registry.arrivals:Arrivals.add", nth=9),
    *_both("an image is answered", "receive", _ANSWERED, nth=11),
]
SERIAL_RECEIVING = [
    *_both("a file is written", "receive", f"{_WRITER}:write_pieces", nth=5),
    *_both("a file is synced", "receive", "os:fdatasync", nth=6),
    *_both("a file is renamed", "receive", "os:rename", nth=7),
    *_both("a folder is synced", "receive", f"{_WRITER}:sync_folder", nth=8),
    *_both("a row is committed", "receive", "dicomnode.registry.arrivals:Arrivals.add", nth=9),
    *_both("an image is answered", "receive", _ANSWERED, nth=11),
]
ROUTING = [*_both("a series is found complete", "sweep", f"{_REGISTRY}.record_judgement")]
WORKING = [
    CrashPoint("after a job is claimed", "work", f"{_REGISTRY}.claim_job", "after", given=True),
    # The first time the worker warms up, the second time a job asks.
    *_both("a model is loaded", "work", "dicomnode.roles.work:Worker.pipeline", nth=2),
    *_both("inference is half-way", "work", "dicomnode.engines.pipeline:Pipeline._predict"),
]
_BUILT = "dicomnode.results.building:_datasets"
BUILDING = [
    *_both("the SEG is built", "work", _BUILT, first="SEG"),
    *_both("the SR is built", "work", _BUILT, first="SR"),
    *_both("the SC is built", "work", _BUILT, first="SC"),
    *_both("the first object is in the spool", "work", "dicomnode.storage.store:Store.seal"),
    *_both("the last object is in the spool", "work", "dicomnode.storage.store:Store.seal", nth=3),
    *_both("a job is finished", "work", f"{_REGISTRY}.finish_job"),
]
_SENT = "dicomnode.delivery.dicom:_StoreAssociation.send"
PROVING = [*_both("commitment is asked for", "deliver", "dicomnode.delivery.dicom:DicomSender.ask_commitment")]
PROVING += _both("the report of a commitment is kept", "receive", "dicomnode.registry.proofs:Proofs.reported")
DELIVERING = [
    *_both("a send is begun", "deliver", f"{_REGISTRY}.claim_delivery", given=True)[1:],
    *_both("the first object is accepted and not recorded", "deliver", _SENT),
    CrashPoint("after an acceptance is recorded", "deliver", f"{_REGISTRY}.finish_delivery", "after"),
    *_both("the last object is accepted and not recorded", "deliver", _SENT),
]


def install(role: str, crash: Mapping[str, Any]) -> None:
    """Kill the whole node at this point, if it lies in this role; the marker file then says so."""
    if crash["role"] == role:
        owner, name = _owner(crash["where"])
        setattr(owner, name, _wrapped(getattr(owner, name), crash))


def _owner(where: str) -> tuple[Any, str]:
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    return owner, name


def _wrapped(function: Callable[..., Any], crash: Mapping[str, Any]) -> Callable[..., Any]:
    calls, lock = 0, threading.Lock()

    def is_the_one() -> bool:
        nonlocal calls
        with lock:
            calls += 1
            return calls == crash["nth"]

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if crash["first"] and arguments[0] != crash["first"]:
            return function(*arguments, **named)
        if crash["moment"] == "before" and is_the_one():
            die(Path(crash["marker"]))
        outcome = function(*arguments, **named)
        if crash["moment"] == "after" and (outcome is not None or not crash["given"]) and is_the_one():
            die(Path(crash["marker"]))
        return outcome

    return wrapped


def die(marker: Path) -> None:
    """kill -9 of the node with all its roles, this one included."""
    marker.touch()
    os.killpg(0, signal.SIGKILL)
    threading.Event().wait()
