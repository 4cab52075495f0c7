"""Waiting for an event instead of for a time."""

import socket
import time
from collections.abc import Callable
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


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on just now."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections there on the loopback."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
