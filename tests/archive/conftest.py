from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archive.holding import Holding


@pytest.fixture
def make_holding(tmp_path: Path) -> Iterator[Callable[..., Holding]]:
    """Started nodes that answer queries: `make_holding(peers=…, limits=…)`; all end with the test."""
    made: list[Holding] = []

    def make(**options: Any) -> Holding:
        made.append(Holding(tmp_path / f"holding{len(made)}", **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def holding(make_holding: Callable[..., Holding]) -> Holding:
    """One without listed peers: whoever is on this machine may ask."""
    return make_holding()
