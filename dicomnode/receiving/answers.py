"""Answers to C-STORE, all from the one table of `domain.statuses`."""

from collections.abc import Callable

from dicomnode.domain.statuses import STORE_CONDITIONS
from dicomnode.receiving.handler import StoreAnswer


def answer(outcome: str, comment: str = "", afterwards: Callable[[], None] | None = None) -> StoreAnswer:
    """The answer of this outcome; `comment` where it says more than the table's."""
    condition = STORE_CONDITIONS[outcome]
    return StoreAnswer(condition.status, outcome, comment or condition.comment, afterwards)
