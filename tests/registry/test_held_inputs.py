"""A job that reads several series waits for an operator when any of them is held, not only the first."""

from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.registry import ConflictKind, PlannedJob, Registry, SeriesCompletion, StudyJudgement
from dicomnode.registry.records import JobInput
from tests.registry.samples import add_series, received


def _queued(registry: Registry) -> None:
    """Series E1 to E12; one job reads E1 with E2 as its further one, another reads E1 alone."""
    for number in range(1, 13):
        add_series(registry, 2, series=f"1.2.3.{number}")
    (study,) = registry.studies_to_judge()
    by_id = {one.series_id: one.generation for one in study.series}
    jobs = (
        PlannedJob("brain", "brats", 1, by_id[1], 0, others=(JobInput('a "series_id": 12, b', 2, by_id[2]),)),
        PlannedJob("plain", "plain", 1, by_id[1], 0),
    )
    done = tuple(SeriesCompletion(one.series_id, complete=True, forced=False, evidence={}) for one in study.series)
    registry.record_judgement(StudyJudgement(study.study_id, study.arrivals, completions=done, jobs=jobs, settled=True))


def _contradicted(registry: Registry, series: str) -> None:
    again = received(f"{series}.1", series=series, content="other")
    registry.record_conflict(replace(again, path=Path("quarantine/1")), ConflictKind.PIXELS)


def _claimed(registry: Registry) -> set[str]:
    found = set()
    while (job := registry.claim_job("w1", 60)) is not None:
        found.add(job.pipeline)
    return found


def test_a_further_series_that_is_held_holds_the_jobs_that_read_it_and_no_others(registry: Registry) -> None:
    _queued(registry)
    _contradicted(registry, "1.2.3.2")
    assert _claimed(registry) == {"plain"}
    registry.retry("E2")  # the operator has looked
    assert _claimed(registry) == {"brats"}


@pytest.mark.parametrize("series", ["1.2.3.12", "1.2.3.3"])
def test_a_series_that_no_job_reads_holds_none(registry: Registry, series: str) -> None:
    _queued(registry)
    _contradicted(registry, series)
    assert _claimed(registry) == {"brats", "plain"}
