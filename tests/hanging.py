"""A test that hangs fails and says where it hung; its fixtures end, and the run goes on.

pytest-timeout reads the limits: `timeout` in pyproject.toml, the marker, `--timeout`. Its own two ways of ending a test do not
fit here. One takes the timer that a worker's lease winds up (`dicomnode/roles/leases.py`) and lets a test that failed hang in
its fixtures for ever; the other ends the whole process and leaves behind what the fixtures started.
"""

import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterator
from types import FrameType

import pytest

AGAIN_S = 30.0  # the end of a fixture may hang too: it is interrupted as well
LAST_RESORT_S = 120.0  # code that never comes back to Python is ended with its process, which another one replaces

_SIGNAL = signal.SIGUSR2
_stderr = -1
_watched: "Watch | None" = None


class Watch:
    """Looks after one test with its fixtures, from `start` to `end`."""

    def __init__(self, item: pytest.Item, limit_s: float) -> None:
        self.item, self.limit_s = item, limit_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watches for hanging tests", daemon=True)

    def start(self) -> None:
        faulthandler.dump_traceback_later(self.limit_s + LAST_RESORT_S, exit=True, file=_stderr)
        self._thread.start()

    def end(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        pause_s = self.limit_s
        while not self._over.wait(pause_s):
            self.item.add_report_section("threads", "stacks of all", "\n".join(_stacks()))
            signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
            pause_s = AGAIN_S


def _stacks() -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            yield f"--- {names.get(ident, ident)}"
            yield "".join(traceback.format_stack(frame))


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    __tracebackhide__ = True
    if _watched is not None:
        pytest.fail(f"hangs: not over after {_watched.limit_s:g} s; the stacks of all threads stand below")


def pytest_configure(config: pytest.Config) -> None:
    global _stderr  # noqa: PLW0603 - a process has one stderr; pytest catches it later
    _stderr = os.dup(2)
    signal.signal(_SIGNAL, _interrupted)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: "pytest_timeout.Settings") -> bool:  # type: ignore[name-defined] # noqa: F821
    global _watched  # noqa: PLW0603 - one test runs at a time
    _watched = Watch(item, settings.timeout)
    _watched.start()
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """Asked for when a test has failed, too: its fixtures have not ended then."""
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        _unwatch()


@pytest.hookimpl(tryfirst=True)
def pytest_enter_pdb() -> None:
    """Who looks at a test by hand is given the time."""
    _unwatch()


def _unwatch() -> None:
    global _watched
    watched, _watched = _watched, None
    if watched is not None:
        watched.end()
