"""What lets several processes (pytest-xdist) run the tests beside each other on one machine."""

import os
from collections.abc import Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Their fixtures take a minute: one process runs them all.
TOGETHER = ("tests/faults/",)

# Longest first, so that no process is left with a long file at the end when the others have nothing to do any more.
LONGEST_FIRST = (
    "tests/faults/",
    "tests/viewers/",
    "tests/journeys/test_faults.py",
    "tests/journeys/",
    "tests/learning/",
    "tests/conformance/",
    "tests/engines/",
    "tests/roles/",
    "tests/cli/",
    "tests/receiving/",
)


def worker() -> int | None:
    """The number of this process among those that run the tests; None where one runs them all."""
    name = os.environ.get("PYTEST_XDIST_WORKER")
    return None if name is None else int(name.removeprefix("gw"))


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The same tests, those of long files first."""

    def rank(item: pytest.Item) -> int:
        return next((rank for rank, start in enumerate(LONGEST_FIRST) if item.nodeid.startswith(start)), len(LONGEST_FIRST))

    return sorted(items, key=rank)


class ByFile(LoadScopeScheduling):
    """Hands out whole files, in the order of collection, and what stands in `TOGETHER` as one."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would put those of most tests first

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)

    def remove_node(self, node: Any) -> str | None:
        """Gives others what a process that died has left, but for the test at which it died: that would end them too."""
        unfinished = self.assigned_work.pop(node)
        died_at = next(((unit, test) for unit in unfinished.values() for test, done in unit.items() if not done), None)
        if died_at is None:
            return None
        unit, test = died_at
        unit[test] = True
        self.workqueue.update({scope: unit for scope, unit in unfinished.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return test
