"""The next series is ready when its job begins; nothing else changes for anybody."""

from pathlib import Path

import pytest

from dicomnode import imaging
from dicomnode.domain.errors import PipelineError
from dicomnode.domain.imaging import SeriesRef, Volume
from dicomnode.phantom import small_thorax, write_study
from dicomnode.registry import Registry
from dicomnode.roles.ahead import Ahead, Wish
from tests.registry.samples import add_series, queue_job


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[SeriesRef]:
    """Two, in folders of their own."""
    found = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"study{seed}")
        write_study(small_thorax(seed), folder)
        found += imaging.scan([folder]).series
    return found


def ahead_of(wish: Wish | None) -> Ahead:
    return Ahead(lambda: wish)


def test_what_was_decoded_ahead_is_there_without_its_files(series: list[SeriesRef], tmp_path: Path) -> None:
    write_study(small_thorax(3), tmp_path)
    (one,) = imaging.scan([tmp_path]).series
    wish = Wish(one, allow_many_frames_of_reference=False)
    ahead = ahead_of(wish)
    ahead.begin()
    assert ahead._loaded is not None
    ahead._loaded.result(60)
    for instance in one.instances:
        instance.path.unlink()
    loaded = ahead.load(wish)
    assert isinstance(loaded, Volume)
    assert loaded.series_instance_uid == one.series_instance_uid
    assert not isinstance(ahead.load(wish), Volume)  # it is given once, not kept
    ahead.close()


def test_another_series_than_the_one_ahead_is_loaded_as_ever(series: list[SeriesRef]) -> None:
    ahead = ahead_of(Wish(series[0], allow_many_frames_of_reference=False))
    ahead.begin()
    loaded = ahead.load(Wish(series[1], allow_many_frames_of_reference=False))
    assert isinstance(loaded, Volume)
    assert loaded.series_instance_uid == series[1].series_instance_uid
    ahead.close()


def test_trouble_with_the_next_one_is_none_for_this_one(series: list[SeriesRef]) -> None:
    def fail() -> Wish:
        raise PipelineError("the database is away", "wait")

    ahead = Ahead(fail)
    ahead.begin()
    assert isinstance(ahead.load(Wish(series[0], allow_many_frames_of_reference=False)), Volume)
    ahead.close()


def test_the_next_series_is_that_of_the_next_claim_and_nothing_is_claimed(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'rows.db'}")
    registry.prepare()
    add_series(registry, 2)
    assert registry.lookahead.next_series() is None
    queue_job(registry)
    found = registry.lookahead.next_series()
    assert found is not None
    job = registry.claim_job("w", 60)
    assert job is not None
    assert job.series is not None
    assert found == (job.route, job.series)
    assert registry.lookahead.next_series() is None
    registry.worker_died("w")
    registry._clock = registry.lookahead._clock = lambda: job.content_time.replace(year=job.content_time.year + 1)
    assert registry.lookahead.next_series() is None  # it ended a worker: it runs alone
    assert registry.claim_job("w", 60) is not None
    registry.close()
