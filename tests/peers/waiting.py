"""Waiting for an event instead of for a time."""

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

_Answer = TypeVar("_Answer")


def wait_until(condition: Callable[[], _Answer], *, timeout_s: float = 20.0, every_s: float = 0.05, what: str = "") -> _Answer:
    """The first true answer of `condition`. Raises TimeoutError, naming `what` and the last answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise TimeoutError(f"waited {timeout_s:g} s in vain for {name}; last answer: {answer!r}")
        time.sleep(every_s)


def _ports() -> Iterator[int]:
    """Ports below those that the kernel gives to outgoing connections, one after the other, without end.

    Each process that runs tests beside others (pytest-xdist) has a slice of its own: nobody else is given a port between the
    moment when it was seen to be free and the moment when a peer listens there.
    """
    name = os.environ.get("PYTEST_XDIST_WORKER", "")
    number = int(name.removeprefix("gw")) % _SLICES if name else random.randrange(_SLICES)  # noqa: S311
    slice_ = range(_FIRST_PORT + number * _SLICE, _FIRST_PORT + (number + 1) * _SLICE)
    start = random.randrange(_SLICE)  # noqa: S311
    while True:
        yield slice_[start % _SLICE]
        start += 1


_FIRST_PORT, _SLICES, _SLICE = 12_000, 8, 2_500
_PORTS = _ports()


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on just now, and that this process was not given before."""
    while True:
        port = next(_PORTS)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections there on the loopback."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
