"""Procedure steps of modalities (MPPS) and notifications of archives (IAN) as they come over the network; what they decide.

The modality is pynetdicom: DCMTK has no MPPS tool.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import InstanceAvailabilityNotification, ModalityPerformedProcedureStep

from dicomnode.domain.routes import Peer, Route
from dicomnode.receiving.announcements import AnnouncementService
from dicomnode.registry import Registry
from dicomnode.registry import announcements as kept
from dicomnode.routing import PipelineFacts, sweep
from tests.peers.waiting import wait_until
from tests.receiving.reception import Reception
from tests.receiving.samples import CT, ct, saved

DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
ROUTE = Route("ct", {"Modality": ("CT",)}, "p", "exact", "best", ("pacs",), ("SEG",), quiet_s=10.0, max_wait_s=600.0)
PIPELINES = {"p": PipelineFacts("p", min_slices=1)}


@dataclass
class Hospital:
    """One study of a modality that speaks MPPS, an archive that speaks IAN, and our listener."""

    folder: Path
    may: frozenset[str] = frozenset({"store", "announce"})
    study: str = field(default_factory=lambda: str(generate_uid()))
    step: str = field(default_factory=lambda: str(generate_uid()))
    left_open: int = 0  # associations

    def __post_init__(self) -> None:
        self.reception = Reception(self.folder)
        self.start()

    def start(self) -> None:
        peer = Peer("scanner", "MODALITY", "127.0.0.1", 0, self.may)
        others = (Peer("archive", "ARCHIVE", "127.0.0.1", 0, self.may), Peer("guest", "GUEST", "127.0.0.1", 0, frozenset()))
        service = AnnouncementService(self.registry.announcements, self.reception.store.has_room)
        self.reception.options = {"peers": [peer, *others], "normalized": service}
        self.reception.start()

    def restart(self) -> None:
        """Another process on the same rows and files."""
        self.reception.stop()
        self.reception = Reception(self.folder)
        self.start()
        self.registry.node_restarted()

    @property
    def registry(self) -> Registry:
        return self.reception.registry

    # what comes in

    def images(self, number: int, series: str) -> list[Dataset]:
        return [ct(StudyInstanceUID=self.study, SeriesInstanceUID=series, InstanceNumber=one + 1) for one in range(number)]

    def sends(self, images: list[Dataset]) -> None:
        assert set(self.reception.send(*[saved(one, self.folder) for one in images])) == {0}

    def open_associations(self) -> int:
        with closing(sqlite3.connect(self.folder / "dicomnode.db")) as rows:
            return int(rows.execute("SELECT count(*) FROM associations WHERE ended_at IS NULL").fetchone()[0])

    def says(self, message: str, said: Dataset, uid: str, *, of: Any = ModalityPerformedProcedureStep, by: str = "") -> Dataset:
        """N-CREATE or N-SET; the response's command set."""
        step = of == ModalityPerformedProcedureStep
        entity = AE(by or ("MODALITY" if step else "ARCHIVE"))
        entity.add_requested_context(of)
        association = entity.associate("127.0.0.1", self.reception.port, ae_title="DICOMNODE")
        assert association.is_established
        try:
            send = association.send_n_create if message == "N-CREATE" else association.send_n_set
            answer: Dataset = send(said, of, uid)[0]
        finally:
            association.release()
        return answer

    def begins(self, *studies: str, status: str = "IN PROGRESS", uid: str = "", by: str = "") -> int:
        said = Dataset()
        said.PerformedProcedureStepStatus, said.Modality = status, "CT"
        said.ScheduledStepAttributesSequence = [Dataset() for _ in studies or [""]]
        for item, study in zip(said.ScheduledStepAttributesSequence, studies or [self.study], strict=True):
            item.StudyInstanceUID, item.AccessionNumber = study, "ACC1"
        said.PerformedSeriesSequence = []
        return int(self.says("N-CREATE", said, uid or self.step, by=by).Status)

    def ends(self, *images: Dataset, status: str = "COMPLETED", by: str = "", reports: bool = False, why: str = "") -> Dataset:
        said = Dataset()
        said.PerformedProcedureStepStatus = status
        if why:
            reason = Dataset()
            reason.CodeValue, reason.CodingSchemeDesignator, reason.CodeMeaning = "110514", "DCM", why
            said.PerformedProcedureStepDiscontinuationReasonCodeSequence = [reason]
        said.PerformedSeriesSequence = self.series_of(images, "ReferencedImageSequence")
        if reports:
            report = Dataset()
            report.SeriesInstanceUID, item = str(generate_uid()), Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = DOSE_REPORT, str(generate_uid())
            report.ReferencedNonImageCompositeSOPInstanceSequence = [item]
            said.PerformedSeriesSequence.append(report)
        return self.says("N-SET", said, self.step, by=by)

    def notifies(self, images: list[Dataset], unavailable: int = 0) -> int:
        said = Dataset()
        said.StudyInstanceUID, said.ReferencedPerformedProcedureStepSequence = self.study, []
        said.ReferencedSeriesSequence = self.series_of(images, "ReferencedSOPSequence")
        items = [item for series in said.ReferencedSeriesSequence for item in series.ReferencedSOPSequence]
        for number, item in enumerate(items):
            item.InstanceAvailability = "UNAVAILABLE" if number < unavailable else "ONLINE"
            item.RetrieveAETitle = "ARCHIVE"
        return int(self.says("N-CREATE", said, str(generate_uid()), of=InstanceAvailabilityNotification).Status)

    @staticmethod
    def series_of(images: Any, keyword: str) -> list[Dataset]:
        found: dict[str, Dataset] = {}
        for image in images:
            series = found.setdefault(str(image.SeriesInstanceUID), Dataset())
            series.SeriesInstanceUID = image.SeriesInstanceUID
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, image.SOPInstanceUID
            setattr(series, keyword, [*(series.get(keyword) or []), item])
        return list(found.values())

    # what comes of it

    def jobs_after(self, seconds: float) -> tuple[str, ...]:
        """What a sweep makes of it so long after now. The end of an association is noted after the peer has heard of it."""
        wait_until(lambda: self.open_associations() == self.left_open, what="the ends of associations in the rows")
        return sweep(self.registry, (ROUTE,), datetime.now(UTC) + timedelta(seconds=seconds), pipelines=PIPELINES).jobs_created

    @property
    def explained(self) -> Any:
        return self.registry.explain(self.study)

    @property
    def evidence(self) -> Any:
        return self.explained["series"][0]["evidence"]


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    one = Hospital(tmp_path)
    yield one
    one.reception.stop()


def before(hospital: Hospital, images: list[Dataset]) -> None:
    assert (hospital.begins(), hospital.ends(*images).Status) == (0, 0)
    hospital.sends(images)


def between(hospital: Hospital, images: list[Dataset]) -> None:
    assert hospital.begins() == 0
    hospital.sends(images[:2])
    assert hospital.ends(*images).Status == 0
    hospital.sends(images[2:])


def after(hospital: Hospital, images: list[Dataset]) -> None:
    hospital.sends(images)
    assert (hospital.begins(), hospital.ends(*images).Status) == (0, 0)


def over_a_restart(hospital: Hospital, images: list[Dataset]) -> None:
    assert hospital.begins() == 0
    hospital.sends(images[:2])
    hospital.restart()
    assert hospital.ends(*images).Status == 0
    hospital.restart()
    hospital.sends(images[2:])


def by_notification(hospital: Hospital, images: list[Dataset]) -> None:
    hospital.sends(images)
    assert hospital.notifies(images) == 0


@pytest.mark.parametrize("told", [before, between, after, over_a_restart, by_notification])
def test_when_exactly_what_was_announced_is_here_nobody_waits_for_silence(
    hospital: Hospital, told: Callable[[Hospital, list[Dataset]], None]
) -> None:
    told(hospital, hospital.images(4, str(generate_uid())))
    assert hospital.jobs_after(0.5) == ("J1",), "the quiet period is ten seconds"
    assert hospital.evidence["announced_by_others"] == 4
    assert not hospital.evidence["forced"]
    who = "the archive's notification (IAN)" if told is by_notification else "the modality's procedure step (MPPS)"
    assert f"all images that {who} named are here" in hospital.explained["paragraph"]
    assert "4 instances in 1 series; all are here." in hospital.explained["paragraph"]


def test_what_was_announced_and_is_not_here_is_waited_for_up_to_the_routes_maximum(hospital: Hospital) -> None:
    images = hospital.images(5, str(generate_uid()))
    hospital.sends(images[:3])
    hospital.begins()
    hospital.ends(*images)
    assert hospital.jobs_after(500) == ()
    assert hospital.evidence["waits_for"] == "2 more images that the modality's procedure step (MPPS) named"
    assert "2 of them did not come: let them be sent again" in hospital.explained["paragraph"]
    assert hospital.jobs_after(601) == ("J1",)
    assert hospital.evidence["forced"]


def test_the_missing_images_end_the_wait(hospital: Hospital) -> None:
    images = hospital.images(5, str(generate_uid()))
    hospital.sends(images[:3])
    hospital.notifies(images)
    assert hospital.jobs_after(100) == ()
    hospital.sends(images[3:])
    assert hospital.jobs_after(0.5) == ("J1",)


def test_what_the_archive_calls_unavailable_is_not_waited_for(hospital: Hospital) -> None:
    images = hospital.images(3, str(generate_uid()))
    hospital.sends(images[1:])
    hospital.notifies(images, unavailable=1)
    assert hospital.jobs_after(0.5) == ("J1",)


def test_a_step_that_is_in_progress_lengthens_the_wait_and_does_not_block(hospital: Hospital) -> None:
    hospital.begins()
    hospital.sends(hospital.images(3, str(generate_uid())))
    assert hospital.jobs_after(29) == ()
    assert "a procedure step is still in progress" in hospital.evidence["waits_for"]
    assert "scanner said at" in hospital.explained["paragraph"]
    assert hospital.jobs_after(31) == ("J1",)


def test_of_a_step_with_two_series_the_first_one_alone_is_not_the_study(hospital: Hospital) -> None:
    thin, thick = hospital.images(4, str(generate_uid())), hospital.images(2, str(generate_uid()))
    hospital.begins()
    hospital.sends(thin)
    hospital.ends(*thin, *thick, reports=True)
    assert hospital.jobs_after(15) == ()
    assert "another series was announced" in hospital.evidence["waits_for"]
    hospital.sends(thick)
    assert hospital.jobs_after(0.5) == ("J1",), "the dose report of the step is no image that anybody waits for"


def test_a_step_that_was_broken_off_is_told_and_counts_nothing(hospital: Hospital) -> None:
    images = hospital.images(4, str(generate_uid()))
    hospital.begins()
    hospital.sends(images[:3])
    hospital.ends(*images, status="DISCONTINUED", why="Incorrect worklist entry selected")
    assert hospital.jobs_after(9) == ()
    assert hospital.jobs_after(11) == ("J1",)
    said = "was broken off (MPPS: Incorrect worklist entry selected); what it made may be incomplete."
    assert said in hospital.explained["paragraph"]


def test_more_images_than_were_announced_make_the_announcement_worthless(hospital: Hospital) -> None:
    images = hospital.images(4, str(generate_uid()))
    hospital.begins()
    hospital.ends(*images[:3])
    hospital.sends(images)
    assert hospital.jobs_after(9) == ()
    assert hospital.jobs_after(11) == ("J1",)


def test_an_association_that_still_sends_holds_even_a_whole_series_open(hospital: Hospital) -> None:
    images = hospital.images(3, str(generate_uid()))
    hospital.begins()
    hospital.ends(*images)
    open_one = hospital.registry.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    hospital.left_open = 1
    hospital.sends(images)
    assert hospital.jobs_after(0.5) == ()
    hospital.registry.association_ended(open_one, "released")
    hospital.left_open = 0
    assert hospital.jobs_after(0.5) == ("J1",)


def test_messages_that_break_the_rules_get_their_status_and_change_nothing(hospital: Hospital) -> None:
    assert hospital.begins(status="COMPLETED") == 0x0106
    assert hospital.begins(status="WHATEVER") == 0x0106
    nothing = Dataset()
    nothing.Modality = "CT"
    assert hospital.says("N-CREATE", nothing, hospital.step).Status == 0x0120
    nothing.PerformedProcedureStepStatus = "IN PROGRESS"
    assert hospital.says("N-CREATE", nothing, hospital.step).Status == 0x0120
    nothing.ScheduledStepAttributesSequence = []
    assert hospital.says("N-CREATE", nothing, hospital.step).Status == 0x0121
    assert hospital.ends().Status == 0x0112, "no such step yet"
    assert hospital.begins() == 0
    assert hospital.begins() == 0x0111, "the same again"
    assert hospital.ends(status="WHATEVER").Status == 0x0106
    assert hospital.ends(by="ARCHIVE").Status == 0x0112, "another peer's step is none of its business"
    images = hospital.images(2, str(generate_uid()))
    assert hospital.ends(*images).Status == 0
    again = hospital.ends(status="DISCONTINUED")
    assert (again.Status, again.ErrorID) == (0x0110, 0xA710)
    assert again.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    hospital.sends(images)
    assert hospital.jobs_after(0.5) == ("J1",), "it stayed COMPLETED"


def test_who_may_not_announce_is_told_so(hospital: Hospital) -> None:
    assert hospital.begins(by="GUEST") == 0x0124
    assert hospital.begins() == 0, "the UID is free"


def test_a_step_of_a_study_that_never_comes_disturbs_nobody_and_is_forgotten(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hospital.begins("1.2.3.4") == 0
    hospital.ends(*hospital.images(3, str(generate_uid())))
    hospital.sends(hospital.images(2, str(generate_uid())))
    assert hospital.jobs_after(11) == ("J1",)
    monkeypatch.setattr(kept, "MOST_OF_A_PEER", 1)
    assert hospital.begins(uid="1.2.3.5") == 0x0213, "no peer fills the database with steps"
    later = datetime.now(UTC) + timedelta(days=1)
    registry = hospital.registry
    assert registry.keeping.forget(instances_purged_before=None, associations_ended_before=later, limit=100) >= 1
    assert hospital.begins("1.2.3.4") == 0, "nothing is known of it any more"


def test_a_step_of_two_studies_speaks_for_each_of_them(hospital: Hospital) -> None:
    other = str(generate_uid())
    assert hospital.begins(hospital.study, other) == 0
    mine = hospital.images(3, str(generate_uid()))
    theirs = [ct(StudyInstanceUID=other, SeriesInstanceUID="1.2.3.9")]
    hospital.ends(*mine, *theirs)
    hospital.sends(mine)
    assert hospital.jobs_after(0.5) == ("J1",), "it does not wait for the other study's series"


def test_on_a_full_disk_an_announcement_is_refused_for_want_of_room(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    hospital.reception.store.reserve_bytes = 1 << 60
    assert hospital.begins() == 0x0213
    hospital.reception.stop()


def test_a_creation_without_a_uid_gets_one(hospital: Hospital) -> None:
    said = Dataset()
    said.PerformedProcedureStepStatus = "IN PROGRESS"
    said.ScheduledStepAttributesSequence = [Dataset()]
    said.ScheduledStepAttributesSequence[0].StudyInstanceUID = hospital.study
    answer = hospital.says("N-CREATE", said, None)  # type: ignore[arg-type]
    assert answer.Status == 0
    with closing(sqlite3.connect(hospital.folder / "dicomnode.db")) as rows:
        (hospital.step,) = rows.execute("SELECT sop_instance_uid FROM announcements").fetchone()
    assert hospital.step.startswith("2.25.")
    assert hospital.ends().Status == 0
