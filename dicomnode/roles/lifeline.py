"""What ties a role to its supervisor: it dies with it, tells it "ready" and "alive", and hears "stop"."""

import ctypes
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

READY, ALIVE, REPLACE = b"R", b".", b"N"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Lifeline:
    """A role's end of the line. `stop` is set by SIGTERM; `supervisor_pid` and `pipe` are None when the role runs alone."""

    def __init__(self, supervisor_pid: int | None = None, pipe: int | None = None) -> None:
        self.stop = threading.Event()
        self._pipe = pipe
        if supervisor_pid is not None:
            _die_with(supervisor_pid)
        signal.signal(signal.SIGTERM, self._on_stop)
        # Ctrl-C reaches the whole process group; under a supervisor, that one decides and sends SIGTERM.
        signal.signal(signal.SIGINT, self._on_stop if supervisor_pid is None else signal.SIG_IGN)
        signal.signal(signal.SIGHUP, self._on_stop if supervisor_pid is None else signal.SIG_IGN)
        # The supervisor waits for its signals with them blocked, and a child inherits that.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop.set()

    def ready(self) -> None:
        """This role does its work from now on."""
        self._say(READY)

    def alive(self) -> None:
        """This role made progress, or looked and found nothing to do."""
        self._say(ALIVE)

    def replace(self) -> None:
        """This process ends in order and wants a fresh one in its place at once."""
        self._say(REPLACE)

    def _say(self, word: bytes) -> None:
        if self._pipe is not None:
            with suppress(BlockingIOError, BrokenPipeError):  # a full pipe says "alive" well enough
                os.write(self._pipe, word)


def _die_with(supervisor_pid: int) -> None:
    """SIGKILL from the kernel when the supervisor ends: a role without one would hold the port and the queue unwatched."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor_pid:  # it ended before prctl took effect
        sys.exit(1)
