from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.receiving.reception import Reception


@pytest.fixture
def make_reception(tmp_path: Path) -> Iterator[Callable[..., Reception]]:
    """Started receptions: `make_reception(peers=…, limits=…)`; all end with the test."""
    made: list[Reception] = []

    def make(*, reserve_bytes: int = 0, **options: Any) -> Reception:
        one = Reception(tmp_path / f"node{len(made)}", options, reserve_bytes)
        made.append(one)
        return one.start()

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def reception(make_reception: Callable[..., Reception]) -> Reception:
    """A started node without listed peers: whoever is on this machine may send."""
    return make_reception()
