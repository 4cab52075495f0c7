import shutil
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


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database straight from the migrations, made once; tests work on copies of the file."""
    path = tmp_path_factory.mktemp("fresh") / "fresh.db"
    one = Registry(f"sqlite:///{path}")
    one.prepare()
    one.close()
    return path


@pytest.fixture
def registry(url: str, clock: Clock, fresh_database: Path) -> Iterator[Registry]:
    """A prepared registry on a real SQLite file of its own."""
    shutil.copyfile(fresh_database, url.removeprefix("sqlite:///"))
    one = Registry(url, clock=clock)
    yield one
    one.close()
