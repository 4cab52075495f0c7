import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.registry import Registry
from tests.peers.postgresql import PostgreSQL
from tests.registry.samples import Clock

DATABASES = ("sqlite", "postgresql")
_NUMBERS = itertools.count(1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind: a test that asks for `url` or `registry` is one promise on both."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/dicomnode.db"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = f"test_{next(_NUMBERS)}"
    yield server.create(name)
    server.drop(name)


@pytest.fixture(scope="session")
def fresh_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database straight from the migrations, made once; tests work on copies of the file."""
    path = tmp_path_factory.mktemp("fresh") / "fresh.db"
    one = Registry(f"sqlite:///{path}")
    one.prepare()
    one.close()
    return path


@pytest.fixture(scope="session")
def fresh_postgresql(postgresql: PostgreSQL) -> str:
    """The name of a database straight from the migrations, made once; tests work on copies of it."""
    name = f"fresh_{next(_NUMBERS)}"  # other folders' conftest takes this fixture over, as one of its own
    one = Registry(postgresql.create(name))
    one.prepare()
    one.close()
    return name


@pytest.fixture
def prepared(request: pytest.FixtureRequest, url: str) -> str:
    """`url`, with the newest tables in it."""
    if url.startswith("sqlite"):
        shutil.copyfile(request.getfixturevalue("fresh_sqlite"), url.removeprefix("sqlite:///"))
        return url
    server: PostgreSQL = request.getfixturevalue("postgresql")
    template = request.getfixturevalue("fresh_postgresql")
    name = url.rpartition("/")[2]
    server.drop(name)
    return server.create(name, template=template)


@pytest.fixture
def registry(prepared: str, clock: Clock) -> Iterator[Registry]:
    """A prepared registry on a real database of its own."""
    one = Registry(prepared, clock=clock)
    yield one
    one.close()
