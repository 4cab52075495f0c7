"""Announcements as rows, on both databases."""

from dataclasses import replace

from dicomnode.domain.announcements import Announcement, AnnouncementKind, AnnouncementStatus, StepChange
from dicomnode.registry import Registry
from dicomnode.registry.announcements import Noted
from tests.registry.samples import CT, START, Clock, add_series

STEP = Announcement(AnnouncementKind.STEP, "1.9", ("1.2.3", "1.2.4"), AnnouncementStatus.IN_PROGRESS)
DONE = StepChange("1.9", AnnouncementStatus.COMPLETED, {"1.2.3.1": {CT: ("1.2.3.1.1", "1.2.3.1.9")}})


def test_they_are_evidence_of_each_study_that_they_name_until_they_are_forgotten(registry: Registry, clock: Clock) -> None:
    add_series(registry, 2)
    assert registry.announcements.note("ct", STEP) is Noted.KEPT
    assert registry.announcements.note("ct", STEP) is Noted.ALREADY_THERE
    (study,) = registry.studies_to_judge()
    assert (study.announced.in_progress, study.announced.series) == (1, {})
    assert registry.announcements.change("pacs", DONE) is Noted.UNKNOWN
    assert registry.announcements.change("ct", DONE) is Noted.KEPT
    assert registry.announcements.change("ct", replace(DONE, status=AnnouncementStatus.DISCONTINUED)) is Noted.FINAL
    (study,) = registry.studies_to_judge()
    (of_series,) = study.announced.series.values()
    assert (study.announced.in_progress, of_series.instances, of_series.missing) == (0, 2, 1)
    (said,) = registry.explain("S1")["announcements"]  # type: ignore[misc]
    assert (said["status"], said["instances"], said["missing"]) == ("COMPLETED", 2, 1)
    clock.forward(86_400)
    assert registry.keeping.forget(instances_purged_before=None, associations_ended_before=START, limit=10) == 0
    assert registry.keeping.forget(instances_purged_before=None, associations_ended_before=clock.now, limit=10) == 2
    assert registry.explain("S1")["announcements"] == []
