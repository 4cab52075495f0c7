"""Processes that write to one SQLite file take turns, in the order in which they came.

SQLite's own busy handler sleeps, ever longer, while whoever just wrote comes again at once: with four processes a claim waited
up to seconds (measured). A file lock alone is little better: the kernel wakes who waits, but does not hand the lock over, and
who just gave it up takes it again before the other one runs. So everybody locks a byte of his own and waits for the byte of who
came before him; that one's successor is he, and nobody else wants it. The kernel gives a byte back when its holder dies.
"""

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.domain.errors import DatabaseUnreachable

# linux/fcntl.h: struct flock is type, whence, start, length, pid. Locks of the open file: threads count one by one.
_FLOCK, _NUMBER = "hhqqi4x", struct.Struct("q")
_DOOR = 0  # the byte that is held while one draws a number; tickets begin behind the number itself
_FIRST_TICKET = 1024
_SHORTEST_S, _LONGEST_S = 0.0001, 0.002  # between two looks; a turn takes some milliseconds


class Turns:
    """`with turns.mine(): …` in one thread at a time. The file beside the database holds the number of the last ticket."""

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
        try:
            self._wait(descriptor)
            yield
        finally:
            os.close(descriptor)  # gives the ticket back

    def _wait(self, descriptor: int) -> None:
        until = time.monotonic() + self._timeout_s
        try:
            before = _draw(descriptor, until)
        except OSError:  # a full disk, or one that may only be read: whoever writes will hear of it
            return
        # Whoever gives up lets his successor go on early: SQLite's own lock still keeps two writers apart.
        if before is None or not _taken(descriptor, before, until):
            raise DatabaseUnreachable(
                f"the database stayed locked for {self._timeout_s:g} s (turns)",
                "look for a long-running command or a stopped process that holds it, then try again",
            )


def _draw(descriptor: int, until: float) -> int | None:
    """Hold a ticket of one's own; the one before it. None if it was not given in time."""
    if not _taken(descriptor, _DOOR, until):
        return None
    drawn = os.pread(descriptor, _NUMBER.size, 0)
    last = max(_NUMBER.unpack(drawn)[0], _FIRST_TICKET) if len(drawn) == _NUMBER.size else _FIRST_TICKET
    _taken(descriptor, last + 1, until)  # nobody else wants it
    os.pwrite(descriptor, _NUMBER.pack(last + 1), 0)
    _lock(descriptor, fcntl.F_UNLCK, _DOOR)
    return last


def _taken(descriptor: int, byte: int, until: float) -> bool:
    """Whether the byte was given up in time. A look now and then: the call that waits knows no end."""
    pause_s = _SHORTEST_S
    while True:
        try:
            _lock(descriptor, fcntl.F_WRLCK, byte)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_S)
        else:
            return True


def _lock(descriptor: int, kind: int, byte: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))
