"""Processes that write to one SQLite file take turns.

SQLite's own busy handler sleeps, ever longer, while whoever just wrote comes again at once: with four processes a claim waited
up to seconds (measured). The kernel wakes who waits for a file lock, and gives the lock back when its holder dies.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.domain.errors import DatabaseUnreachable


class Turns:
    """`with turns.mine(): …` in one thread at a time. The file beside the database holds nothing."""

    def __init__(self, database: Path, timeout_s: float) -> None:
        self._path = database.with_name(database.name + "-turns")
        self._timeout_s = timeout_s

    @contextmanager
    def mine(self) -> Iterator[None]:
        """The turn. DatabaseUnreachable if nobody gives it up in time."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:  # SQLite says better what is wrong with that folder
            yield
            return
        waiting = None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting = _Waiting(descriptor)
                if not waiting.has_it(self._timeout_s):
                    raise DatabaseUnreachable(
                        f"the database stayed locked for {self._timeout_s:g} s (turns)",
                        "look for a long-running command or a stopped process that holds it, then try again",
                    ) from None
            yield
        finally:
            if waiting is None or waiting.is_over():
                os.close(descriptor)


class _Waiting:
    """A thread that waits for the lock: the call itself knows no timeout. Given up, it closes the file when it gets it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._got, self._lock = descriptor, threading.Event(), threading.Lock()
        self._given_up = False
        threading.Thread(target=self._wait, name="turn", daemon=True).start()

    def _wait(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._lock:
            self._got.set()
            if self._given_up:
                os.close(self._descriptor)

    def has_it(self, timeout_s: float) -> bool:
        return self._got.wait(timeout_s)

    def is_over(self) -> bool:
        """Whether the caller is to close the file; if not, the thread will."""
        with self._lock:
            self._given_up = not self._got.is_set()
            return self._got.is_set()
