"""`explain` as a tired administrator reads it: what happened, why, what to do; how it stands comes first."""

from typing import Any

import pytest

from dicomnode.domain.announcements import Announcement, AnnouncementKind, AnnouncementStatus, StepChange
from dicomnode.domain.routes import Route
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import ConflictKind, Registry
from dicomnode.routing import PipelineFacts, sweep
from tests.registry.samples import CT, ONLY_SQLITE, Clock, Spool, add_series, received

pytestmark = ONLY_SQLITE

MATCH = {"Modality": ("CT",), "BodyPartExamined": ("CHEST", "")}
ROUTE = Route("chest-ct", MATCH, "chest_ct", "exact", "best", ("pacs",), ("SEG",), 10.0, 600.0)
FINDINGS: dict[str, object] = {"lesions": [{}], "segments": [{"label": "Left lung", "volume_ml": 2100.0}]}


class Study:
    """One study on its way through the rows."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.registry, self.clock = registry, clock

    def arrives(self, slices: int = 20, *, wait_s: float = 11, **attributes: str) -> None:
        add_series(self.registry, slices, **attributes)
        self.is_judged(wait_s)

    def is_judged(self, wait_s: float = 11) -> None:
        self.clock.forward(wait_s)
        sweep(self.registry, (ROUTE,), self.clock.now, pipelines={"chest_ct": PipelineFacts("chest_ct", "CT", 8)})

    def ends(self, event: JobEvent = JobEvent.FINISHED, kinds: tuple[str, ...] = ("SEG", "SR"), **more: Any) -> None:
        job = self.registry.claim_job("w", 60)
        assert job is not None
        results = Spool().objects(job, kinds)
        findings = FINDINGS if event is JobEvent.FINISHED else None
        self.registry.finish_job(job, event, results=results, destinations=["pacs"], findings_summary=findings, **more)

    def is_sent(self, event: DeliveryEvent = DeliveryEvent.ACCEPTED, times: int = 2, **more: Any) -> None:
        for _ in range(times):
            delivery = self.registry.claim_delivery("d", "pacs", 60)
            assert delivery is not None
            self.registry.finish_delivery(delivery, event, **more)

    def is_contradicted(self, kind: ConflictKind) -> None:
        one = received("1.2.3.1.1", at=self.clock.now, content="x", PatientID="P2")
        self.registry.record_conflict(one, kind)

    def is_announced(self, slices: int) -> None:
        step = Announcement(AnnouncementKind.STEP, "1.9", ("1.2.3",), AnnouncementStatus.IN_PROGRESS)
        self.registry.announcements.note("ct1", step)
        named = {"1.2.3.1": {CT: tuple(f"1.2.3.1.{number}" for number in range(1, slices + 1))}}
        self.registry.announcements.change("ct1", StepChange("1.9", AnnouncementStatus.COMPLETED, named))


def complete(study: Study) -> None:
    study.arrives()
    study.ends()
    study.is_sent()


def refused(study: Study) -> None:
    study.arrives()
    gap: dict[str, Any] = {
        "reason_code": "gap",
        "reason": "a gap of 7.5 mm after slice 12",
        "remedy": "send the missing images",
    }
    study.ends(JobEvent.REFUSED, kinds=("SR", "SC"), **gap)
    study.is_sent()


def not_routed(study: Study) -> None:
    study.arrives(BodyPartExamined="HEAD")


def held(study: Study) -> None:
    study.arrives()
    study.is_contradicted(ConflictKind.PIXELS)


def late(study: Study) -> None:
    complete(study)
    study.registry.add_instance(received("1.2.3.1.21", at=study.clock.forward(60)), ours=False)
    study.is_judged()
    study.ends()
    study.is_sent()


def corrected(study: Study) -> None:
    study.arrives()
    study.ends()
    study.is_contradicted(ConflictKind.HEADER)


def rejected(study: Study) -> None:
    study.arrives()
    study.ends()
    study.is_sent(DeliveryEvent.REJECTED, 1, status=0xA900, error="C-STORE gave A900")


def away(study: Study) -> None:
    study.arrives()
    study.ends()
    study.is_sent(DeliveryEvent.TRY_AGAIN, 1, error="it refused the connection", retry_after_s=60.0)


def not_run(study: Study) -> None:
    study.arrives(3)
    study.ends(JobEvent.REFUSED, kinds=("SR", "SC"), reason_code="too_few", reason="no series can be used", remedy="send more")
    study.is_sent()


def poison(study: Study) -> None:
    study.arrives()
    for _ in range(3):
        assert study.registry.claim_job("w", 60) is not None
        study.registry.worker_died("w")
        study.clock.forward(3600)


def announced(study: Study) -> None:
    study.is_announced(20)
    study.arrives(wait_s=0.5)


def incomplete(study: Study) -> None:
    study.is_announced(20)
    study.arrives(18)


STORIES: list[tuple[Any, str, str, str]] = [
    (
        complete,
        "AI ran, and its results are at pacs",
        "nothing arrived for 10 s",
        "SEG and SR (D1 and D2) were accepted by pacs.",
    ),
    (refused, "AI did not run, and pacs was told so", "a gap of 7.5 mm after slice 12", "What to do: send the missing images."),
    (
        not_routed,
        "no AI ran on it",
        "BodyPartExamined is 'HEAD'",
        "correct its match in the settings, then run `dicomnode repro",
    ),
    (
        held,
        "it waits for an operator, for E1 is held",
        "other pixels",
        "`dicomnode retry E1` lets it go on with what is stored",
    ),
    (
        late,
        "AI ran, and its results are at pacs",
        "a late image arrived in E1",
        "accepted by pacs; those of J2 take their place.",
    ),
    (
        corrected,
        "it waits for an operator, for the study is held",
        "other patient or study attributes",
        "`dicomnode retry S1` (the",
    ),
    (
        rejected,
        "did not get to pacs: an operator is needed",
        "C-STORE gave A900",
        "`dicomnode retry D1` once the cause is gone",
    ),
    (
        away,
        "do not get through to pacs; they are tried again",
        "it refused the connection",
        "and is again by itself, for 14 days.",
    ),
    (
        not_run,
        "AI did not run, and pacs was told so",
        "no series can be used",
        "(D1 and D2) were accepted by pacs: there it says that AI",
    ),
    (
        poison,
        "AI did not run, for J1 failed: an operator is needed",
        "its worker died 3 times",
        "`dicomnode retry J1` runs it again",
    ),
    (
        announced,
        "it waits for a free worker; nothing is to be done",
        "all images that the modality's procedure step",
        "all are here.",
    ),
    (incomplete, "still coming in or waited for", "waits for 2 more images that the modality", "let them be sent again"),
]


@pytest.mark.parametrize(("story", "short", "why", "act"), STORIES, ids=lambda one: getattr(one, "__name__", ""))
def test_it_says_how_it_stands_then_what_happened_why_and_what_to_do(
    registry: Registry, clock: Clock, story: Any, short: str, why: str, act: str
) -> None:
    story(Study(registry, clock))
    told = str(registry.explain("S1")["paragraph"])
    first = told.partition(". ")[0]
    assert first.startswith("In short: ")
    assert short in first
    assert why in told
    assert act in told


def test_nothing_is_called_queued_or_on_its_way_that_a_hold_stops(registry: Registry, clock: Clock) -> None:
    study = Study(registry, clock)
    held(study)
    assert "Job J1 (chest_ct, version 1) waits because E1 is held." in str(registry.explain("S1")["paragraph"])


def test_results_that_may_not_leave_are_told_so(registry: Registry, clock: Clock) -> None:
    corrected(Study(registry, clock))
    assert "wait to be sent to pacs; nothing leaves while the study is held." in str(registry.explain("S1")["paragraph"])
