"""A newer version withdraws what it replaces at a destination whose profile asks for it; real files, a real folder."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.domain.profiles import SHIPPED
from dicomnode.domain.results import ResultObject
from dicomnode.domain.routes import Destination
from dicomnode.domain.states import JobEvent
from dicomnode.network.rejection_notes import read_rejection_note
from dicomnode.roles.withdrawals import Withdrawals
from dicomnode.settings import Settings
from tests.delivery.outbox import Outbox, folder_destination
from tests.registry.samples import queue_job, received

NOTES = "1.2.840.10008.5.1.4.1.1.88.59"


class Archive:
    """A folder that wants rejection notes, and the node before it."""

    def __init__(self, outbox: Outbox, root: Path, code: str) -> None:
        root.mkdir()
        self.outbox, self.root = outbox, root
        profile = SHIPPED["archive"].like("withdrawing", rejection_note=code)
        self.destination: Destination = replace(folder_destination("folder", root), profile=profile)
        self.withdrawals = Withdrawals(outbox.registry, outbox.store, Settings(), (self.destination,))

    def deliver(self) -> None:
        self.outbox.deliverer(self.destination).run_once()

    def finish_again(self, first: tuple[ResultObject, ...]) -> tuple[ResultObject, ...]:
        """The newer version of the same study: other UIDs, else the same objects."""
        registry, store = self.outbox.registry, self.outbox.store
        job = registry.claim_job("w", 60)
        assert job is not None
        newer = []
        for one in first:
            content = store.absolute(one.path).read_bytes()
            path = store.spool_dir(job.key) / one.path.name
            path.write_bytes(content)
            uid = f"{one.sop_instance_uid[:40]}.{job.version}"
            digest = hashlib.sha256(content).hexdigest()
            newer.append(replace(one, sop_instance_uid=uid, path=path.relative_to(store.root), sha256=digest))
        registry.finish_job(job, JobEvent.FINISHED, results=newer, destinations=["folder"])
        return tuple(newer)

    def late_image(self) -> None:
        registry = self.outbox.registry
        (study,) = registry.studies()
        series = study["series"][0]["series_instance_uid"]  # type: ignore[index]
        one = received(
            "1.9.9.9", study=str(study["study_instance_uid"]), series=series, PatientID="P-1", PatientName="Test^Patient"
        )
        one = replace(one, attributes={**one.attributes, "PatientBirthDate": "19600101"}, received_at=self.outbox.clock())
        registry.add_instance(one, ours=False)
        queue_job(registry)

    def notes(self) -> list[Path]:
        return [path for path in self.root.rglob("*.dcm") if NOTES.encode() in path.read_bytes()[:2000]]


@pytest.fixture
def archive(outbox: Outbox, tmp_path: Path) -> Archive:
    return Archive(outbox, tmp_path / "archive", "113039")


def test_a_newer_version_withdraws_the_older_one_once_it_has_arrived(archive: Archive) -> None:
    first = archive.outbox.finish_a_job("folder")
    archive.deliver()
    archive.outbox.registry.reprocess("J1")
    second = archive.finish_again(first)
    assert archive.withdrawals.sweep(archive.outbox.clock()) == 0  # nothing is withdrawn before the newer one is there
    archive.deliver()
    assert archive.withdrawals.sweep(archive.outbox.clock()) == 1
    archive.deliver()
    (path,) = archive.notes()
    note = read_rejection_note(path)
    assert note is not None
    assert note.code == "113039"
    assert {one.sop_instance_uid for one in note.named} == {one.sop_instance_uid for one in first}
    assert archive.withdrawals.sweep(archive.outbox.clock()) == 0
    # A third version withdraws the second, not the first again, and no note withdraws a note.
    archive.outbox.registry.reprocess("J2")
    archive.finish_again(first)
    archive.deliver()
    assert archive.withdrawals.sweep(archive.outbox.clock()) == 1
    archive.deliver()
    (newest,) = set(archive.notes()) - {path}
    note = read_rejection_note(newest)
    assert note is not None
    assert {one.sop_instance_uid for one in note.named} == {one.sop_instance_uid for one in second}


@pytest.mark.parametrize(("hours", "withdrawn"), [(1, 1), (25, 0)])
def test_a_result_that_stood_for_long_is_not_withdrawn_without_an_operator(
    archive: Archive, hours: int, withdrawn: int
) -> None:
    first = archive.outbox.finish_a_job("folder")
    archive.deliver()
    archive.outbox.clock.advance(hours=hours)
    archive.late_image()
    archive.finish_again(first)
    archive.deliver()
    assert archive.withdrawals.sweep(archive.outbox.clock()) == withdrawn


def test_what_was_never_accepted_needs_no_withdrawal(archive: Archive) -> None:
    first = archive.outbox.finish_a_job("folder")
    archive.outbox.registry.reprocess("J1")
    archive.finish_again(first)
    archive.deliver()
    assert archive.withdrawals.sweep(archive.outbox.clock()) == 0


def test_no_note_where_the_profile_does_not_ask_for_one(outbox: Outbox, tmp_path: Path) -> None:
    archive = Archive(outbox, tmp_path / "archive", "")
    first = outbox.finish_a_job("folder")
    archive.deliver()
    outbox.registry.reprocess("J1")
    archive.finish_again(first)
    archive.deliver()
    assert archive.withdrawals.sweep(outbox.clock()) == 0
