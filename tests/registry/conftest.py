from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.registry import Registry
from tests.registry.samples import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/dicomnode.db"


@pytest.fixture
def registry(url: str, clock: Clock) -> Iterator[Registry]:
    """A prepared registry on a real SQLite file."""
    one = Registry(url, clock=clock)
    one.prepare()
    yield one
    one.close()
