"""The outbox of a node, without the node."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.outbox import Outbox
from tests.receiving.test_half_open import network

__all__ = ["network"]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An empty outbox."""
    box = Outbox(tmp_path / "node")
    yield box
    box.registry.close()
