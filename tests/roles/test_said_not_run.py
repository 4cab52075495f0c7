"""A route may keep "AI not run" to itself; else each reason is said in words that cannot be read as a negative result."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from dicomnode.phantom import small_thorax
from dicomnode.roles.work import Worker
from dicomnode.settings import load_settings
from tests.roles.test_work import Bench, bench

__all__ = ["bench"]


def refuse(one: Bench, folder: Path, worker: Worker) -> None:
    """A job one of whose slices cannot be read any more."""
    one.receive(small_thorax(5), folder)
    job = one.claim()
    assert job.series is not None
    one.store.absolute(job.series.instances[12].path).write_bytes(b"\0" * 200)
    worker.attempt(job)


@pytest.mark.parametrize("said", [True, False])
def test_a_route_can_turn_not_run_off(bench: Callable[..., Bench], tmp_path: Path, said: bool) -> None:
    one = bench()
    config = tmp_path / "dicomnode.toml"
    text = config.read_text()
    assert text.count('pipeline = "tiny"') == 1
    config.write_text(text.replace('pipeline = "tiny"', f'pipeline = "tiny"\nsend_not_run = {str(said).lower()}'))
    refuse(one, tmp_path / "study", Worker(load_settings(config), one.registry, one.store, one.lifeline))
    job, results, deliveries = one.ending()
    assert (job["state"], job["reason_code"]) == ("refused", "corrupt")
    assert sorted(result["kind"] for result in results) == (["SC", "SR"] if said else [])
    assert len(deliveries) == len(results)
    spooled = [one.store.absolute(path) for path, _, _ in one.registry.known_files() if path.parts[0] == "spool"]
    assert len(spooled) == len(results)
    for path in spooled:
        assert " NOT RUN - " in pydicom.dcmread(path).SeriesDescription
