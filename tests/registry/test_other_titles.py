"""A series that is sent to two of our AE titles is one series, judged for the routes of both."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dicomnode.domain.routes import Route
from dicomnode.domain.states import JobEvent
from dicomnode.registry import Registry
from dicomnode.routing import PipelineFacts, sweep
from tests.registry.samples import Clock, received

IMAGES = 10


def route(name: str, **changes: object) -> Route:
    return Route(
        name=name,
        match={"CalledAETitle": (name,)},
        pipeline=name.lower(),
        speed="exact",
        select="best",
        send_to=("pacs",),
        results=("SEG",),
        quiet_s=10,
        max_wait_s=600,
        **changes,  # type: ignore[arg-type]
    )


ROUTES = (route("CHEST"), route("LUNG"))
PIPELINES = {name: PipelineFacts(name, "CT", 8) for name in ("chest", "lung")}


def sent(registry: Registry, clock: Clock, title: str, *numbers: int, every_s: float = 0.0) -> list[bool]:
    """As receiving brings them: whether each was new."""
    new = []
    for number in numbers or range(1, IMAGES + 1):
        one = replace(received(f"1.2.3.1.{number}", at=clock.forward(every_s)), called_ae=title)
        new.append(registry.add_instance(one, ours=False).new)
        if not new[-1]:
            registry.came_again(one)
    return new


def swept(registry: Registry, clock: Clock, routes: tuple[Route, ...] = ROUTES) -> list[str]:
    keys = sweep(registry, routes, clock.now, pipelines=PIPELINES).jobs_created
    pipelines = {job["id"]: job["pipeline"] for one in explained(registry)["series"] for job in one["jobs"]}
    return [pipelines[key] for key in keys]


def explained(registry: Registry) -> Any:
    return registry.explain("S1")


def quietly(registry: Registry, clock: Clock, **more: tuple[Route, ...]) -> list[str]:
    clock.forward(11)
    return swept(registry, clock, **more)


def done(registry: Registry, clock: Clock) -> None:
    job = registry.claim_job("w", 60)
    assert job is not None
    assert len(job.source_digests) == IMAGES
    registry.finish_job(job, JobEvent.FINISHED, results=(), destinations=())


def jobs(registry: Registry) -> list[tuple[str, str, int]]:
    series = explained(registry)["series"]
    return [(job["pipeline"], job["state"], job["version"]) for one in series for job in one["jobs"]]


def test_the_second_title_runs_its_own_route_once_though_the_first_ones_job_is_done(registry: Registry, clock: Clock) -> None:
    assert all(sent(registry, clock, "CHEST"))
    assert quietly(registry, clock) == ["chest"]
    done(registry, clock)
    clock.forward(3600)
    assert not any(sent(registry, clock, "LUNG"))
    assert swept(registry, clock) == []  # its quiet period is not over
    assert quietly(registry, clock) == ["lung"]
    done(registry, clock)
    for title in ("CHEST", "LUNG"):
        assert not any(sent(registry, clock, title))
        assert registry.studies_to_judge() == []
        assert quietly(registry, clock) == []
    assert jobs(registry) == [("chest", "done", 1), ("lung", "done", 1)]
    answer = explained(registry)
    assert answer["series"][0]["also_called"] == ["LUNG"]
    assert "E1 was sent to CHEST and LUNG." in answer["paragraph"]


def test_the_second_title_is_waited_for_as_long_as_images_come_to_it_and_the_first_ones_job_is_not(
    registry: Registry, clock: Clock
) -> None:
    sent(registry, clock, "CHEST")
    assert quietly(registry, clock) == ["chest"]
    for number in range(1, IMAGES + 1):
        sent(registry, clock, "LUNG", number, every_s=8)
        assert swept(registry, clock) == []
    done(registry, clock)
    assert quietly(registry, clock) == ["lung"]


def test_both_titles_at_once_start_both_routes_over_all_images(registry: Registry, clock: Clock) -> None:
    for number in range(1, IMAGES + 1):
        assert sent(registry, clock, "CHEST", number) == [True]
        assert sent(registry, clock, "LUNG", number, every_s=2) == [False]
    assert quietly(registry, clock) == ["chest", "lung"]


def test_new_images_at_the_second_title_count_for_both(registry: Registry, clock: Clock) -> None:
    sent(registry, clock, "CHEST", *range(1, 6))
    assert all(sent(registry, clock, "LUNG", *range(6, IMAGES + 1)))
    assert quietly(registry, clock) == ["chest", "lung"]
    done(registry, clock)
    done(registry, clock)


def test_a_late_image_at_the_second_title_runs_both_routes_again(registry: Registry, clock: Clock) -> None:
    sent(registry, clock, "CHEST", *range(1, IMAGES))
    assert quietly(registry, clock) == ["chest"]
    assert sent(registry, clock, "LUNG") == [False] * (IMAGES - 1) + [True]
    assert quietly(registry, clock) == ["chest", "lung"]
    assert sorted(jobs(registry)) == [("chest", "queued", 2), ("chest", "superseded", 1), ("lung", "queued", 1)]


def test_a_sender_that_never_rests_is_not_waited_for_longer_than_the_routes_maximum(registry: Registry, clock: Clock) -> None:
    sent(registry, clock, "CHEST")
    assert quietly(registry, clock) == ["chest"]
    clock.forward(3600)
    started = []
    for _ in range(65):
        sent(registry, clock, "LUNG", 1, every_s=9.5)
        started += swept(registry, clock)
    assert started == ["lung"]


def test_two_routes_of_one_pipeline_give_one_set_of_results(registry: Registry, clock: Clock) -> None:
    routes = (ROUTES[0], replace(ROUTES[1], pipeline="chest"))
    sent(registry, clock, "CHEST")
    assert quietly(registry, clock, routes=routes) == ["chest"]
    done(registry, clock)
    sent(registry, clock, "LUNG")
    assert quietly(registry, clock, routes=routes) == []
    assert registry.studies_to_judge() == []


def test_a_restart_between_the_two_titles_changes_nothing(registry: Registry, clock: Clock, url: str) -> None:
    sent(registry, clock, "CHEST")
    assert quietly(registry, clock) == ["chest"]
    sent(registry, clock, "LUNG")
    registry.close()
    again = Registry(url, clock=clock)
    again.prepare()
    again.node_restarted()
    assert quietly(again, clock) == ["lung"]
    again.close()


@pytest.mark.parametrize("how", ["our result", "another series"])
def test_results_and_contradictions_are_remembered_under_no_other_title(registry: Registry, clock: Clock, how: str) -> None:
    one = received("1.2.3.1.1", at=clock.now)
    registry.add_instance(one, ours=how == "our result")
    before = explained(registry)
    other = {"called_ae": "LUNG"} | ({"series_instance_uid": "1.2.9"} if how == "another series" else {})
    registry.came_again(replace(one, received_at=one.received_at + timedelta(seconds=5), **other))
    assert explained(registry) == before
