"""Threads that are used again: an association for each image must not cost a new thread and a new buffer each."""

import threading
from collections import deque
from collections.abc import Callable

import structlog

_log = structlog.get_logger("receiving")

# A CT image of 512 KB and its headers fit into one read; half of it or a quarter costs more turns than the caches save.
BUFFER_BYTES = 5 << 17
_IDLE_S = 10.0

type_task = Callable[[bytearray], None]
"""Gets the thread's buffer to read into."""


class _Idle:
    """A thread that waits for a task of its own: one put before all would be taken by who comes first, and wake others."""

    __slots__ = ("given", "task")

    def __init__(self) -> None:
        self.task: type_task | None = None
        self.given = threading.Lock()  # held until the task is there
        self.given.acquire()


class Workers:
    """At most `most` threads, ended when they have had nothing to do for a while. They do not keep the process."""

    def __init__(self, most: int, idle_s: float = _IDLE_S) -> None:
        self._most, self._idle_s = most, idle_s
        self._lock = threading.Lock()
        self._tasks: deque[type_task] = deque()  # more than there may be threads
        self._idle: list[_Idle] = []  # who came last is taken first: its buffer is still in the caches, and surplus ones end
        self._threads = 0

    def submit(self, task: type_task) -> None:
        """Run it as soon as a thread is free. Raises RuntimeError if no thread can be started."""
        with self._lock:
            if self._idle:
                idle = self._idle.pop()
                idle.task = task
                idle.given.release()
            elif self._threads < self._most:
                self._threads += 1
                try:
                    threading.Thread(target=self._run, args=(task,), name="association", daemon=True).start()
                except BaseException:
                    self._threads -= 1
                    raise
            else:
                self._tasks.append(task)

    def _run(self, task: type_task | None) -> None:
        buffer = bytearray(BUFFER_BYTES)
        while task is not None:
            try:
                task(buffer)
            except Exception as error:  # noqa: BLE001 - boundary: one association's trouble is not the thread's
                _log.error("an association ended by an error of the node", error=type(error).__name__)
            task = self._next()

    def _next(self) -> type_task | None:
        with self._lock:
            if self._tasks:
                return self._tasks.popleft()
            idle = _Idle()
            self._idle.append(idle)
        if not idle.given.acquire(timeout=self._idle_s):
            with self._lock:
                if idle in self._idle:
                    self._idle.remove(idle)
                    self._threads -= 1
                    return None
        return idle.task
