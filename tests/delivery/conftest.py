"""The outbox of a node, without the node."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.outbox import Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An empty outbox."""
    box = Outbox(tmp_path / "node")
    yield box
    box.registry.close()
