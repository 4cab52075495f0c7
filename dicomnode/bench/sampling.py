"""Runs a role and looks a thousand times a second what its threads do: `sampling.py OUTPUT SOURCE_ROOT ROLE …`, as a file.

Python's threads change hands every 5 ms unless they wait; here every 0.1 ms, or all time would seem to be spent in system
calls. SIGUSR1 begins and ends the looking. What is written at SIGTERM: for each thread the lines it stood in, ours or the last
of ours before a library's.
"""

import json
import linecache
import runpy
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

_EVERY_S, _SWITCH_S = 0.001, 0.0001


class Sampler(threading.Thread):
    """Counts (thread, entry, place) of all threads but the main one and itself."""

    def __init__(self, source_root: str) -> None:
        super().__init__(daemon=True, name="sampler")
        self.counts: Counter[tuple[int, str, str]] = Counter()
        self._root = source_root
        self._looking = threading.Event()

    def toggle(self, _number: int, _frame: FrameType | None) -> None:
        """Begin or end looking."""
        if self._looking.is_set():
            self._looking.clear()
        else:
            self._looking.set()

    def run(self) -> None:
        """Until the process ends."""
        left_out = {threading.main_thread().ident, self.ident}
        while True:
            time.sleep(_EVERY_S)
            self._looking.wait()
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way to other threads' frames
                if ident not in left_out:
                    self.counts[ident, self._entry(frame), self._place(frame)] += 1

    def _ours(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self._root)

    def _entry(self, frame: FrameType) -> str:
        found, at = "", frame
        while True:
            if self._ours(at):
                found = f"{self._file(at)}:{at.f_code.co_name}"
            if at.f_back is None:
                return found
            at = at.f_back

    def _place(self, frame: FrameType) -> str:
        at: FrameType | None = frame
        while at is not None and not self._ours(at):
            at = at.f_back
        if at is None:
            return frame.f_code.co_name
        line = linecache.getline(at.f_code.co_filename, at.f_lineno or at.f_code.co_firstlineno).strip()
        return f"{self._file(at)}:{at.f_code.co_name}: {line}"

    def _file(self, frame: FrameType) -> str:
        return frame.f_code.co_filename.removeprefix(self._root).lstrip("/")


def main() -> None:
    """The role, sampled."""
    output, root = Path(sys.argv[1]), sys.argv[2]
    sys.argv = ["dicomnode.roles", *sys.argv[3:]]
    sys.setswitchinterval(_SWITCH_S)
    sampler = Sampler(root)
    signal.signal(signal.SIGUSR1, sampler.toggle)
    sampler.start()
    try:
        runpy.run_module("dicomnode.roles", run_name="__main__", alter_sys=True)
    finally:
        counted = dict(sampler.counts).items()
        output.write_text(json.dumps([[thread, entry, place, count] for (thread, entry, place), count in counted]))


if __name__ == "__main__":
    main()
