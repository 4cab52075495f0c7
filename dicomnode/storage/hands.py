"""Side threads that do what the disk or a core can do beside the caller: sync a file, read it back for its digest.

No executor: an association hands over one task an image, and a future with its condition costs several times the hand-over
itself.
"""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

_MOST_IDLE = 32
# What a hand-over costs one sender: switches between threads, each of which wants the interpreter. And half of what an image
# costs in processor time: with n senders, who does one sync after the other delays an image by 2 S / n, which nobody notices
# as long as the interpreter is busy with the others.
_HAND_OVER_S, _HALF_AN_IMAGE_S = 100e-6, 180e-6
_WEIGHT = 0.1  # of the newest sync in the mean

type_task = Callable[[], object]


class Hand:
    """One side thread and what it was told to do, in that order. Used by one thread at a time."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[type_task | None] = SimpleQueue()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._begun = 0
        threading.Thread(target=_work, args=(self._tasks, self._ends), name="hand", daemon=True).start()

    def begin(self, task: type_task) -> None:
        """Do it beside us."""
        self._begun += 1
        self._tasks.put(task)

    def wait(self) -> None:
        """Until all that was begun is done. Raises what the first failing task raised."""
        failed: BaseException | None = None
        while self._begun:
            failed = self._ends.get() or failed
            self._begun -= 1
        if failed is not None:
            raise failed

    def end(self) -> None:
        """The thread ends when it has done what was begun."""
        self._tasks.put(None)


def _work(tasks: "SimpleQueue[type_task | None]", ends: "SimpleQueue[BaseException | None]") -> None:
    while (task := tasks.get()) is not None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - told to who waits
            ends.put(error)
        else:
            ends.put(None)
        del task


class Hands:
    """Hands that are free: as many as instances were ever on their way at once."""

    def __init__(self) -> None:
        self._free: deque[Hand] = deque()
        self._sync_s = 1e-3  # the mean of the last syncs
        self._lock = threading.Lock()
        self._at_once = 0
        weakref.finalize(self, _end_all, self._free)

    def take(self) -> Hand:
        """One that has nothing to do."""
        try:
            return self._free.pop()
        except IndexError:
            return Hand()

    def give_back(self, hand: Hand) -> None:
        """All that it began was waited for."""
        if len(self._free) < _MOST_IDLE:
            self._free.append(hand)
        else:
            hand.end()

    def sync(self, descriptor: int) -> None:
        """fdatasync, and remember how long it took."""
        began = time.perf_counter()
        os.fdatasync(descriptor)
        self._sync_s += _WEIGHT * (time.perf_counter() - began - self._sync_s)

    def finishing(self) -> bool:
        """An instance is complete but for row and sync, until `finished`. Whether to sync it beside the caller pays."""
        with self._lock:
            self._at_once += 1
        return self.pay

    @property
    def pay(self) -> bool:
        """Whether doing something while the disk is busy is worth its price in processor time.

        One sender waits for the disk, and any hand-over is cheaper. Of many senders others work while one waits: then only the
        processor's time counts, unless the disk is so slow that even they do not fill it.
        """
        return self._sync_s > _HAND_OVER_S + _HALF_AN_IMAGE_S * max(self._at_once - 1, 0)

    def finished(self) -> None:
        """It is durable, or given up."""
        with self._lock:
            self._at_once -= 1

    def end(self) -> None:
        """Let the free ones go."""
        _end_all(self._free)


def _end_all(free: "deque[Hand]") -> None:
    while free:
        free.pop().end()
