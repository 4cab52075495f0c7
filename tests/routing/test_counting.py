"""A PACS that is asked what it lists: more than is here is waited for, twice the same is final, no answer changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dicomnode.domain.routes import Peer, Route
from dicomnode.network.counts import count_instances
from dicomnode.phantom import small_thorax, write_study
from dicomnode.registry import Registry
from dicomnode.roles.counts import Counts
from dicomnode.routing import PipelineFacts, sweep
from tests.peers.dcmtk import dcmsend
from tests.peers.orthanc import Modality, Orthanc
from tests.registry.samples import Clock, add_series, received

QUIET_S = 10.0
ROUTE = Route("ct", {"Modality": ("CT",)}, "chest_ct", "exact", "best", ("pacs",), ("SEG",), QUIET_S, 600.0, count_at="pacs")
PIPELINES = {"chest_ct": PipelineFacts("chest_ct")}


class Asked:
    """What a PACS would list, and how often it was asked."""

    def __init__(self, count: int | None) -> None:
        self.count, self.times = count, 0

    def __call__(self, peer: str, study: str, series: Sequence[str]) -> Mapping[str, int]:
        assert (peer, study) == ("pacs", "1.2.3")
        self.times += 1
        return {} if self.count is None else dict.fromkeys(series, self.count)


def swept(registry: Registry, clock: Clock, asked: Asked, seconds: float) -> list[str]:
    """Sweeps every second for so long; the jobs that came of it."""
    jobs: list[str] = []
    for _ in range(int(seconds)):
        clock.forward(1)
        jobs += sweep(registry, (ROUTE,), clock.now, pipelines=PIPELINES, count=asked).jobs_created
    return jobs


def evidence(registry: Registry) -> dict[str, object]:
    return registry.explain("S1")["series"][0]["evidence"]  # type: ignore[index,no-any-return]


def test_more_than_is_here_is_waited_for_and_taken_by_force_in_the_end(registry: Registry, clock: Clock) -> None:
    add_series(registry, 60)
    asked = Asked(100)
    assert swept(registry, clock, asked, 60) == []
    assert evidence(registry)["waits_for"] == "40 more images that the PACS lists"
    assert asked.times <= 60 / QUIET_S  # once a quiet period
    for number in range(61, 101):
        registry.add_instance(received(f"1.2.3.1.{number}", at=clock.now), ours=False)
    assert swept(registry, clock, asked, QUIET_S + 1) == ["J1"]
    assert evidence(registry)["forced"] is False


def test_a_count_that_never_comes_true_is_ended_by_force(registry: Registry, clock: Clock) -> None:
    add_series(registry, 60)
    asked = Asked(100)
    clock.forward(580)
    assert swept(registry, clock, asked, 21) == ["J1"]
    assert evidence(registry)["forced"] is True
    assert "taken as complete by force" in str(registry.explain("S1")["paragraph"])


def test_two_equal_counts_a_quiet_period_apart_end_the_wait_that_a_gap_makes_long(registry: Registry, clock: Clock) -> None:
    for number in (*range(1, 20), *range(30, 40)):  # numbers that the modality never sends
        registry.add_instance(received(f"1.2.3.1.{number}", at=clock.now), ours=False)
    asked = Asked(29)
    assert swept(registry, clock, asked, 2 * QUIET_S - 1) == []  # one count is not enough
    assert swept(registry, clock, asked, 2) == ["J1"]
    assert evidence(registry)["why"] == "the PACS listed what is here twice, 10 s apart"
    counts = evidence(registry)["counts"]
    assert [(one["peer"], one["count"]) for one in counts] == [("pacs", 29)] * 2  # type: ignore[attr-defined]


def test_an_image_between_two_counts_makes_both_worthless(registry: Registry, clock: Clock) -> None:
    for number in (1, 5, 9, *range(20, 30)):
        registry.add_instance(received(f"1.2.3.1.{number}", at=clock.now), ours=False)
    asked = Asked(13)
    swept(registry, clock, asked, QUIET_S + 2)
    registry.add_instance(received("1.2.3.1.40", at=clock.now), ours=False)
    asked.count = 14
    assert swept(registry, clock, asked, 2 * QUIET_S - 1) == []
    assert swept(registry, clock, asked, 2) == ["J1"]


def test_a_pacs_that_gives_no_answer_changes_nothing(registry: Registry, clock: Clock) -> None:
    add_series(registry, 20)
    assert swept(registry, clock, Asked(None), QUIET_S) == ["J1"]


def test_counts_outlive_a_restart(registry: Registry, clock: Clock, url: str) -> None:
    for number in (1, *range(5, 20)):
        registry.add_instance(received(f"1.2.3.1.{number}", at=clock.now), ours=False)
    asked = Asked(16)
    swept(registry, clock, asked, QUIET_S + 1)
    again = Registry(url, clock=clock)
    assert swept(again, clock, asked, QUIET_S) == ["J1"]
    again.close()


def test_a_real_pacs_tells_its_counts_and_a_dead_one_is_left_alone(orthanc: Callable[..., Orthanc], tmp_path: Path) -> None:
    paths = write_study(small_thorax(5), tmp_path / "study")
    pacs = orthanc("pacs", modalities={"node": Modality("DICOMNODE", 104)})
    assert dcmsend(pacs.dicom_port, *paths[:20], called=pacs.ae_title).ok
    study = pacs.study_uids()[0]
    from pydicom import dcmread

    series = str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)
    peer = Peer("pacs", pacs.ae_title, "127.0.0.1", pacs.dicom_port, frozenset())
    assert count_instances(peer, "DICOMNODE", study, [series, "1.2.3.4"]) == {series: 20, "1.2.3.4": 0}
    counts = Counts({"pacs": peer, "dead": replace(peer, name="dead", port=1)}, "DICOMNODE")
    assert counts("pacs", study, [series]) == {series: 20}
    assert counts("dead", study, [series]) == {}
    assert counts("pacs", study, [series]) == {series: 20}
