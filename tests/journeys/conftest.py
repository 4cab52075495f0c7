"""Whole ways through real peers: a modality (DCMTK), our node as users run it, and a PACS (Orthanc)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.hospital import Hospital, build_hospital


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A running hospital with the shipped model, shared by a module's tests."""
    one = build_hospital(tmp_path_factory.mktemp("hospital"))
    one.pacs.start()
    one.node.start()
    yield one
    one.node.kill()
    one.pacs.kill()


@pytest.fixture
def tiny_hospital(tmp_path: Path) -> Iterator[Hospital]:
    """A hospital with the tiny pipeline; neither node nor PACS is started."""
    one = build_hospital(tmp_path, pipeline="tiny", quiet_s=1)
    yield one
    one.node.kill()
    one.pacs.kill()
