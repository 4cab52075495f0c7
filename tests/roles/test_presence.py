"""Two nodes of one name on one database: the second one says so and does not start."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.domain.errors import SettingsError
from dicomnode.registry import Registry
from dicomnode.roles import presence, wiring
from dicomnode.settings import Settings, load_settings
from tests.peers.node import settings_text
from tests.peers.postgresql import PostgreSQL


def a_node(folder: Path, url: str, name: str = "worker-1") -> Settings:
    folder.mkdir()
    config = folder / "dicomnode.toml"
    tables = {"node": {"data_dir": str(folder / "data"), "name": name}, "database": {"url": url}}
    config.write_text(settings_text(tables, {}))
    settings = load_settings(config)
    wiring.make_folders(settings)
    return settings


@pytest.fixture
def url(postgresql: PostgreSQL) -> Iterator[str]:
    name = f"presence_{os.getpid()}_{time.monotonic_ns()}"
    url = postgresql.create(name)
    registry = Registry(url)
    registry.prepare()
    registry.close()
    yield url
    postgresql.drop(name)


def started(settings: Settings, *, silent_for_s: float = 60.0) -> float:
    """Seconds that the look for a twin took."""
    registry = wiring.open_registry(settings)
    began = time.monotonic()
    try:
        presence.refuse_a_twin(settings, registry, silent_for_s=silent_for_s)
    finally:
        registry.close()
    return time.monotonic() - began


def test_a_second_node_of_the_same_name_does_not_start_while_the_first_one_lives(url: str, tmp_path: Path) -> None:
    first, second = a_node(tmp_path / "first", url), a_node(tmp_path / "second", url)
    other = a_node(tmp_path / "other", url, "worker-2")
    started(first)
    with presence.said(first, every_s=0.1):
        with pytest.raises(SettingsError, match="another node called 'worker-1' runs on this database") as refused:
            started(second)
        assert "node.name" in refused.value.remedy
        assert started(other) < 30.0, "another name is none of its business"
        assert started(first) < 30.0, "more roles of the same node, from the same folder, are the same node"
    assert started(second) < 30.0, "the first one was stopped in order"


def test_a_node_that_was_cut_off_is_waited_for_and_then_its_name_is_free(url: str, tmp_path: Path) -> None:
    """As when a machine is replaced: same name, another folder."""
    first, second = a_node(tmp_path / "first", url), a_node(tmp_path / "second", url)
    started(first)  # and never heard of again
    assert started(second, silent_for_s=1.2) >= 1.2
    assert started(second) < 30.0
