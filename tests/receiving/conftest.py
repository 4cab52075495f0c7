from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomnode.receiving import Limits
from dicomnode.receiving.acceptor import Acceptor
from tests.receiving.reception import Reception
from tests.receiving.speaking import Speaking
from tests.receiving.stock_scp import StockScp


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


BOTH = {"own": Acceptor, "stock": StockScp}


@pytest.fixture(scope="module", params=BOTH)
def _shared_node(request: pytest.FixtureRequest) -> Iterator[Speaking]:
    with Speaking(BOTH[request.param]) as one:
        yield one


@pytest.fixture
def node(_shared_node: Speaking) -> Speaking:
    """The protocol by the node's own loop, then by stock pynetdicom, for tests that leave the limits alone."""
    _shared_node.handler.forget()
    return _shared_node


@pytest.fixture
def make_own() -> Iterator[Callable[..., Speaking]]:
    """The node's own loop under other limits: `make_own(network_timeout_s=1.0)`."""
    made: list[Speaking] = []

    def make(**limits: Any) -> Speaking:
        made.append(Speaking(Acceptor, Limits(**limits)).__enter__())
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


@pytest.fixture
def own(make_own: Callable[..., Speaking]) -> Speaking:
    """The node's own loop, for what stock pynetdicom does otherwise; such a test says why."""
    return make_own()
