"""Group commit: who comes first writes for all who wait; alone, there is no other thread and nothing to hand over.

A committer thread beside the senders would cost a single sender two hand-overs an image; this costs it two free locks.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_MOST_AT_ONCE = 128


class _Waiting(Generic[Item, Answer]):
    __slots__ = ("answer", "item", "turn")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: Answer | BaseException | None = None
        self.turn: threading.Lock | None = None  # held until we are answered, or are to lead


class GroupCommit(Generic[Item, Answer]):
    """Lets `write` handle what many threads bring, together."""

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Answer | BaseException]]) -> None:
        """write: one answer, or what to raise, for each item; called by one thread at a time. What it raises goes to all."""
        self._write = write
        self._lock = threading.Lock()
        self._pending: list[_Waiting[Item, Answer]] = []
        self._led = False

    def commit(self, item: Item) -> Answer:
        """The answer to this item, once it was written."""
        mine: _Waiting[Item, Answer] = _Waiting(item)
        with self._lock:
            self._pending.append(mine)
            leads, self._led = not self._led, True
            if not leads:
                mine.turn = threading.Lock()
                mine.turn.acquire()
        if mine.turn is not None:
            mine.turn.acquire()
        if mine.answer is None:
            self._lead()
        if isinstance(mine.answer, BaseException):
            raise mine.answer
        assert mine.answer is not None  # noqa: S101 - `_lead` answers all of its batch, its own item first
        return mine.answer

    def _lead(self) -> None:
        """Write all that waits; then whoever came first meanwhile leads."""
        with self._lock:
            batch, self._pending = self._pending[:_MOST_AT_ONCE], self._pending[_MOST_AT_ONCE:]
        try:
            answers: Sequence[Answer | BaseException] = self._write([one.item for one in batch])
        except BaseException as error:  # noqa: BLE001 - raised in each thread that waits
            answers = [error] * len(batch)
        for one, answer in zip(batch, answers, strict=True):
            one.answer = answer
        with self._lock:
            following = self._pending[0] if self._pending else None
            self._led = following is not None
        for woken in ((following,) if following else ()) + tuple(batch):
            if woken.turn is not None:
                woken.turn.release()
