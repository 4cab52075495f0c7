"""From rows to jobs, on a real database."""

import sys
from collections.abc import Mapping
from typing import Any

import pytest

from dicomnode.domain.errors import StaleUpdate
from dicomnode.domain.imaging import RefusalCode
from dicomnode.domain.routes import Route
from dicomnode.domain.states import JobEvent
from dicomnode.registry import Registry
from dicomnode.routing import PipelineFacts, Watch, judge, sweep
from tests.registry.samples import MR, SECONDARY_CAPTURE, SEG, Clock, add_series, received

CHEST = Route(
    name="chest-ct",
    match={"Modality": ("CT",), "BodyPartExamined": ("CHEST", "THORAX", "")},
    pipeline="chest_ct",
    speed="exact",
    select="best",
    send_to=("pacs",),
    results=("SEG", "SR", "SC"),
    quiet_s=10,
    max_wait_s=600,
)
PIPELINES = {"chest_ct": PipelineFacts("chest_ct", "CT", 8)}


def swept(registry: Registry, clock: Clock, *routes: Route) -> list[str]:
    return list(sweep(registry, routes or (CHEST,), clock.now, pipelines=PIPELINES).jobs_created)


def explained(registry: Registry, study: str = "S1") -> Any:
    return registry.explain(study)


def verdicts(registry: Registry, study: str = "S1") -> dict[str, Mapping[str, object]]:
    return {one["key"]: one["routes"][0] for one in explained(registry, study)["series"] if one["routes"]}


def test_a_quiet_study_gets_one_job_and_no_second_one(registry: Registry, clock: Clock) -> None:
    add_series(registry, 10)
    clock.forward(9)
    assert swept(registry, clock) == []
    assert "E1 is still arriving and waits for 10 s without a new image." in explained(registry)["paragraph"]
    clock.forward(1)
    assert swept(registry, clock) == ["J1"]
    assert swept(registry, clock) == []
    assert verdicts(registry)["E1"]["chosen"] is True


def test_a_restart_of_the_node_takes_up_the_wait_where_it_was(registry: Registry, clock: Clock, url: str) -> None:
    add_series(registry, 10)
    clock.forward(6)
    swept(registry, clock)
    registry.close()
    again = Registry(url, clock=clock)
    again.prepare()
    again.node_restarted()
    clock.forward(4)
    assert swept(again, clock) == ["J1"]
    again.close()


def test_silence_while_the_node_was_down_does_not_complete_half_a_study(registry: Registry, clock: Clock) -> None:
    add_series(registry, 10)
    clock.forward(120)  # the node was down; its sender could not go on
    watch = Watch(lambda: clock().timestamp())
    clock.forward(2)
    report = sweep(registry, (CHEST,), clock.now, pipelines=PIPELINES, watch=watch)
    assert report.jobs_created == ()
    clock.forward(9)
    report = sweep(registry, (CHEST,), clock.now, pipelines=PIPELINES, watch=watch)
    assert report.jobs_created == ("J1",)


def test_a_series_spread_over_two_associations_stays_one(registry: Registry, clock: Clock) -> None:
    first = registry.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    for number in range(1, 61):
        registry.add_instance(received(f"1.2.3.1.{number}", at=clock.now, association_key=first), ours=False)
    registry.association_ended(first, "released")
    clock.forward(8)
    second = registry.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    clock.forward(8)  # longer than the quiet period since the last image, but somebody is about to send
    assert swept(registry, clock) == []
    for number in range(61, 101):
        registry.add_instance(received(f"1.2.3.1.{number}", at=clock.now, association_key=second), ours=False)
    registry.association_ended(second, "released")
    clock.forward(10)
    assert swept(registry, clock) == ["J1"]
    job = registry.claim_job("w", 60)
    assert job is not None
    assert len(job.source_digests) == 100


def test_late_images_make_a_second_version_over_all_images(registry: Registry, clock: Clock) -> None:
    add_series(registry, 60)
    clock.forward(10)
    assert swept(registry, clock) == ["J1"]
    for number in range(61, 101):
        registry.add_instance(received(f"1.2.3.1.{number}", at=clock.now), ours=False)
    assert registry.claim_job("w", 60) is None
    clock.forward(10)
    assert swept(registry, clock) == ["J2"]
    job = registry.claim_job("w", 60)
    assert job is not None
    assert (job.version, len(job.source_digests)) == (2, 100)
    story = explained(registry)["paragraph"]
    assert "E1 was reopened once by late images and was complete at" in story
    assert (
        "Job J1 (chest_ct, version 1) was superseded before it ended: a late image arrived in E1. J2 took its place." in story
    )


def test_localizer_sharp_soft_and_reformat_give_one_job_and_named_losers(registry: Registry, clock: Clock) -> None:
    add_series(registry, 1, series="1.2.3.1", ImageType="ORIGINAL\\PRIMARY\\LOCALIZER", SeriesDescription="Topogram")
    add_series(registry, 40, series="1.2.3.2", ConvolutionKernel="B70f", SliceThickness="1", SeriesDescription="Lung")
    add_series(registry, 40, series="1.2.3.3", ConvolutionKernel="B30f", SliceThickness="1", SeriesDescription="Soft")
    add_series(registry, 30, series="1.2.3.4", ImageType="DERIVED\\SECONDARY\\REFORMATTED", SeriesDescription="Cor")
    clock.forward(10)
    assert swept(registry, clock) == ["J1"]
    job = registry.claim_job("w", 60)
    assert job is not None
    assert job.series_key == "E3"
    story = explained(registry)["paragraph"]
    for sentence in (
        "Route chest-ct chose E3 “Soft”: it is the best of 2 eligible series (40 slices of 1 mm, kernel B30f (soft)).",
        "E1 “Topogram”: it is a localizer",
        "E2 “Lung”: its kernel B70f (sharp) suits less than B30f (soft) of E3",
        "E4 “Cor”: it is derived or reformatted (Image Type DERIVED\\SECONDARY\\REFORMATTED)",
    ):
        assert sentence in story


@pytest.mark.parametrize(
    ("attributes", "sop_class", "why"),
    [
        ({"Modality": "MR"}, MR, "Modality is 'MR', wanted 'CT'"),
        ({"BodyPartExamined": "HEAD"}, "", "BodyPartExamined is 'HEAD', wanted 'CHEST' or 'THORAX' or empty"),
        ({"Modality": "RTSTRUCT"}, "1.2.840.10008.5.1.4.1.1.481.3", "it holds no images"),
        ({"Modality": "CT"}, SEG, "it holds no images"),
    ],
)
def test_what_no_route_matches_is_complete_too_and_explained(
    registry: Registry, clock: Clock, attributes: dict[str, str], sop_class: str, why: str
) -> None:
    add_series(registry, 12, **attributes, **({"sop_class": sop_class} if sop_class else {}))
    clock.forward(10)
    assert swept(registry, clock) == []
    (series,) = explained(registry)["series"]
    assert (series["state"], series["routes"][0]["matched"]) == ("complete", False)
    assert why in series["routes"][0]["why"]
    assert f"Route chest-ct does not match E1: {series['routes'][0]['why']}." in explained(registry)["paragraph"]
    assert "no route takes this study and no AI ran" in explained(registry)["paragraph"]
    assert registry.studies_to_judge() == []


def test_nothing_eligible_is_said_once(registry: Registry, clock: Clock) -> None:
    add_series(registry, 2, ImageType="ORIGINAL\\PRIMARY\\LOCALIZER", SeriesNumber="1")
    clock.forward(10)
    assert swept(registry, clock) == ["J1"]
    job = registry.claim_job("w", 60)
    assert job is not None
    assert job.refusal is not None
    assert job.refusal.code is RefusalCode.LOCALIZER
    assert job.refusal.message == "no series can be used (series 1: it is a localizer)"
    assert job.series is not None
    registry.finish_job(job, JobEvent.REFUSED, reason_code=job.refusal.code, reason=job.refusal.message)
    registry.add_instance(received("1.2.3.1.3", ImageType="ORIGINAL\\PRIMARY\\LOCALIZER", at=clock.forward(5)), ours=False)
    clock.forward(20)
    assert swept(registry, clock) == []
    story = explained(registry)["paragraph"]
    assert "Route chest-ct matched, but cannot use, E1: it is a localizer." in story
    assert (
        "was not run (localizer): no series can be used (series 1: it is a localizer). What to do: send the original" in story
    )


def test_the_scan_after_the_localizer_replaces_not_run(registry: Registry, clock: Clock) -> None:
    add_series(registry, 2, series="1.2.3.1", ImageType="ORIGINAL\\PRIMARY\\LOCALIZER")
    clock.forward(10)
    assert swept(registry, clock) == ["J1"]
    add_series(registry, 20, series="1.2.3.2", at=clock.now)
    assert registry.claim_job("w", 60) is None  # it would say "not run" while the scan is coming in
    clock.forward(10)
    assert swept(registry, clock) == ["J2"]
    job = registry.claim_job("w", 60)
    assert job is not None
    assert (job.key, job.version, job.refusal) == ("J2", 2, None)
    assert registry.claim_job("w", 60) is None


def test_a_series_that_changes_nothing_makes_no_new_work(registry: Registry, clock: Clock) -> None:
    add_series(registry, 20)
    clock.forward(10)
    assert swept(registry, clock) == ["J1"]
    add_series(registry, 20, series="1.2.3.2", ImageType="DERIVED\\SECONDARY\\MPR", at=clock.now)
    add_series(registry, 1, series="1.2.3.3", sop_class=SECONDARY_CAPTURE, at=clock.now)
    clock.forward(10)
    assert swept(registry, clock) == []
    assert {key: one["chosen"] for key, one in verdicts(registry).items()} == {"E1": True, "E2": False, "E3": False}


def test_our_own_results_coming_back_start_nothing(registry: Registry, clock: Clock) -> None:
    add_series(registry, 20)
    clock.forward(10)
    swept(registry, clock)
    registry.add_instance(received("2.25.1", series="2.25.2", sop_class=SEG, at=clock.now, Modality="SEG"), ours=True)
    assert registry.studies_to_judge() == []
    assert registry.is_our_result("2.25.1")
    clock.forward(60)
    assert swept(registry, clock) == []
    assert "E2 holds results of this software that were sent to us; it starts no new work." in explained(registry)["paragraph"]


def test_an_image_that_arrives_during_a_sweep_voids_its_judgement(registry: Registry, clock: Clock) -> None:
    add_series(registry, 20)
    clock.forward(10)
    (study,) = registry.studies_to_judge()
    judgement = judge(study, (CHEST,), clock.now, PIPELINES)
    assert judgement.settled
    registry.add_instance(received("1.2.3.1.21", at=clock.now), ours=False)
    with pytest.raises(StaleUpdate):
        registry.record_judgement(judgement)
    assert explained(registry)["series"][0]["state"] == "arriving"
    assert explained(registry)["series"][0]["jobs"] == []


def test_select_each_takes_every_eligible_series(registry: Registry, clock: Clock) -> None:
    each = Route(**{name: getattr(CHEST, name) for name in CHEST.__slots__} | {"select": "each"})
    add_series(registry, 20, series="1.2.3.1")
    add_series(registry, 20, series="1.2.3.2")
    add_series(registry, 2, series="1.2.3.3", ImageType="ORIGINAL\\PRIMARY\\LOCALIZER")
    clock.forward(10)
    assert swept(registry, clock, each) == ["J1", "J2"]
    registry.add_instance(received("1.2.3.2.21", series="1.2.3.2", at=clock.now), ours=False)
    clock.forward(10)
    assert swept(registry, clock, each) == ["J3"]
    assert [one["id"] for one in explained(registry)["series"][1]["jobs"]] == ["J2", "J3"]


def test_two_routes_to_one_pipeline_give_one_set_of_results(registry: Registry, clock: Clock) -> None:
    second = Route(
        **{name: getattr(CHEST, name) for name in CHEST.__slots__} | {"name": "all-ct", "match": {"Modality": ("CT",)}}
    )
    add_series(registry, 20)
    clock.forward(10)
    assert swept(registry, clock, CHEST, second) == ["J1"]
    assert explained(registry)["series"][0]["routes"][1]["why"] == "route chest-ct comes first and runs the same pipeline"


def test_a_sender_that_never_stops_is_cut_off_at_the_routes_maximum(registry: Registry, clock: Clock) -> None:
    number = 0
    while True:
        number += 1
        registry.add_instance(received(f"1.2.3.1.{number}", at=clock.now), ours=False)
        report = sweep(registry, (CHEST,), clock.now, pipelines=PIPELINES)
        if report.jobs_created:
            break
        clock.forward(9)
    assert report.series_forced == ("E1",)
    assert 600 <= (number - 1) * 9 < 610
    evidence = explained(registry)["series"][0]["evidence"]
    assert evidence["forced"] is True
    assert "taken as complete by force" in explained(registry)["paragraph"]


def test_what_an_operator_cancelled_stays_cancelled(registry: Registry, clock: Clock) -> None:
    add_series(registry, 20)
    clock.forward(10)
    swept(registry, clock)
    registry.cancel("J1")
    registry.add_instance(received("1.2.3.1.21", at=clock.now), ours=False)
    clock.forward(10)
    assert swept(registry, clock) == []
    assert registry.reprocess("S1") == ["S1", "J1"]
    assert swept(registry, clock) == ["J2"]


def test_the_route_may_match_what_we_were_called(registry: Registry, clock: Clock) -> None:
    named = Route(**{name: getattr(CHEST, name) for name in CHEST.__slots__} | {"match": {"CalledAETitle": ("AI_CHEST",)}})
    add_series(registry, 20)
    clock.forward(10)
    assert swept(registry, clock, named) == []
    assert verdicts(registry)["E1"]["why"] == "CalledAETitle is 'DICOMNODE', wanted 'AI_CHEST'"


def test_a_study_that_cannot_be_judged_stops_no_other(
    registry: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_series(registry, 10)
    add_series(registry, 10, study="1.2.4", series="1.2.4.1")
    clock.forward(60)

    def poisoned(study: Any, *rest: Any) -> Any:
        return judge(study, *rest) if study.key != "S1" else 1 / 0

    monkeypatch.setattr(sys.modules["dicomnode.routing.sweep"], "judge", poisoned)  # the package names a function so
    report = sweep(registry, (CHEST,), clock.now, pipelines=PIPELINES)
    assert report.jobs_created == ("J1",)
    assert [(key, type(error)) for key, error in report.studies_failed] == [("S1", ZeroDivisionError)]
