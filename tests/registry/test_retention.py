"""What is kept, and for how long: real files, real rows, a clock in the test's hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.errors import NothingToDo
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry import Registry
from dicomnode.roles.retention import Purged, Retention
from dicomnode.settings import DestinationSettings, Settings
from dicomnode.storage import KnownFile, Store, fsck
from tests.registry.samples import Clock, Spool, queue_job, received

DAY = 86400.0


class Kept:
    """A store and a registry with studies that are analysed and sent."""

    def __init__(self, registry: Registry, clock: Clock, folder: Path) -> None:
        self.registry, self.clock = registry, clock
        self.store = Store(folder, reserve_bytes=0, order="serial")  # no files made ahead
        self.store.prepare()
        self.free = 1.0

    def retention(self, **kept: float) -> Retention:
        destinations = (
            DestinationSettings(name="pacs", kind="folder", path=Path("out"), proof="status"),
            DestinationSettings(name="archive", kind="folder", path=Path("out"), proof="find"),
        )
        settings = Settings(retention=kept, destinations=destinations)  # type: ignore[arg-type]
        return Retention(self.registry, self.store, settings, free_share=lambda _: self.free)

    def sweep(self, **kept: float) -> Purged:
        return self.retention(**kept).sweep(self.clock.now)

    def add(self, number: int, *, destination: str = "pacs", finish: bool = True) -> None:
        """A study of two images and its result."""
        study = f"1.9.{number}"
        for image in (1, 2):
            content = f"{number} {image}".encode()
            stored = self.store.write_instance(b"", [content])
            one = received(f"{study}.1.{image}", study=study, series=f"{study}.1", at=self.clock.now)
            one = replace(one, path=stored.path, sha256=stored.sha256, size_bytes=stored.size_bytes)
            self.registry.add_instance(one, ours=False)
        queue_job(self.registry)
        if not finish:
            return
        job = self.registry.claim_job("w", 60)
        assert job is not None
        (result,) = Spool(study).objects(job, ("SC",))
        path = self.store.spool_dir(job.key) / "SC.dcm"
        path.write_bytes(b"result")
        result = replace(result, path=path.relative_to(self.store.root), size_bytes=6)
        self.registry.finish_job(job, JobEvent.FINISHED, results=(result,), destinations=[destination])

    def send(self, destination: str = "pacs") -> None:
        while (one := self.registry.claim_delivery("d", destination, 60)) is not None:
            self.registry.finish_delivery(one, DeliveryEvent.ACCEPTED, status=0)

    def files(self) -> list[str]:
        """Names of folders at the root that hold a file, one for each file."""
        there = (path.relative_to(self.store.root) for path in self.store.root.rglob("*") if path.is_file())
        return sorted(path.parts[0] for path in there if path.parts[0] in ("instances", "spool"))

    def rows_fit_files(self) -> bool:
        known = (KnownFile(*one) for one in self.registry.known_files())
        return fsck(self.store, known, verify_digests=False).ok


@pytest.fixture
def kept(registry: Registry, clock: Clock, tmp_path: Path) -> Kept:
    return Kept(registry, clock, tmp_path / "data")


ONE_STUDY = ["instances", "instances", "spool"]


def test_images_and_results_go_after_their_days_and_not_before(kept: Kept) -> None:
    kept.add(1)
    kept.send()
    kept.clock.forward(29 * DAY)
    kept.add(2)
    assert kept.sweep() == Purged()
    kept.clock.forward(2 * DAY)
    purged = kept.sweep()
    assert (purged.studies, purged.jobs, purged.files) == (1, 0, 2)
    kept.clock.forward(60 * DAY)
    purged = kept.sweep()
    assert (purged.studies, purged.jobs, purged.files) == (0, 1, 1)  # the second study's result was never sent
    assert kept.files() == ONE_STUDY
    assert kept.rows_fit_files()
    answer = kept.registry.explain("S1")
    assert answer["purged_at"] is not None
    assert "Its images were removed on 2026-12-22" in str(answer["paragraph"])


@pytest.mark.parametrize(
    "unfinished",
    [
        lambda kept: kept.add(1),  # its result waits
        lambda kept: kept.add(1, finish=False),  # its job waits
        lambda kept: (kept.add(1), kept.registry.finish_delivery(claimed(kept), DeliveryEvent.REJECTED, status=0xA900)),
        lambda kept: (kept.add(1), kept.registry.finish_delivery(claimed(kept), DeliveryEvent.HELD, error="14 days")),
        lambda kept: (kept.add(1), kept.send(), conflict(kept)),  # an operator has not decided
        lambda kept: (kept.add(1), kept.send(), image(kept)),  # it still arrives
    ],
    ids=["unsent", "not run", "rejected", "held", "contradicted", "arriving"],
)
def test_nothing_unsent_unfinished_or_undecided_is_ever_purged(kept: Kept, unfinished: Callable[[Kept], Any]) -> None:
    unfinished(kept)
    before = kept.files()
    kept.clock.forward(4000 * DAY)
    kept.free = 0.0  # neither for the disk
    purged = kept.sweep()
    assert (purged.studies, purged.jobs, purged.files) == (0, 0, 0)
    assert kept.files() == before


def claimed(kept: Kept) -> Any:
    one = kept.registry.claim_delivery("d", "pacs", 60)
    assert one is not None
    return one


def conflict(kept: Kept) -> None:
    again = replace(received("1.9.1.1.1", content="other", PatientID="P2"), path=Path("quarantine/x"))
    kept.registry.record_conflict(again, "header")


def image(kept: Kept) -> None:
    stored = kept.store.write_instance(b"", [b"late"])
    one = received("1.9.1.1.3", study="1.9.1", series="1.9.1.1", at=kept.clock.now)
    kept.registry.add_instance(replace(one, path=stored.path, sha256=stored.sha256, size_bytes=stored.size_bytes), ours=False)


def test_a_result_that_is_sent_but_not_proved_is_kept_where_proof_is_asked_for(kept: Kept) -> None:
    kept.add(1, destination="archive")
    kept.send("archive")
    kept.clock.forward(4000 * DAY)
    assert kept.sweep().jobs == 0
    for one in kept.registry.deliveries_to_prove("archive"):
        kept.registry.finish_delivery(one, DeliveryEvent.PROVED, proof="found")
    assert kept.sweep().jobs == 1
    assert kept.files() == []


def test_sources_stay_as_long_as_the_archive_may_say_that_it_lacks_the_result(kept: Kept) -> None:
    """What is sent again is looked at first: a result whose images are gone would be held for good."""
    kept.add(1, destination="archive")
    kept.send("archive")
    before = kept.files()
    kept.clock.forward(4000 * DAY)
    kept.free = 0.0  # neither for the disk
    purged = kept.sweep()
    assert (purged.studies, purged.jobs, purged.files) == (0, 0, 0)
    assert kept.files() == before
    (unproved,) = kept.registry.deliveries_to_prove("archive")
    kept.registry.finish_delivery(unproved, DeliveryEvent.PROOF_SAYS_MISSING, error="accepted, but not found")
    kept.clock.forward(3600)
    again = kept.registry.claim_delivery("d", "archive", 60)
    assert again is not None
    assert kept.registry.keeping.references_problem(again.result.source_sop_instance_uids) == ""
    kept.registry.finish_delivery(again, DeliveryEvent.ACCEPTED, status=0)
    kept.clock.forward(3600)
    for one in kept.registry.deliveries_to_prove("archive"):
        kept.registry.finish_delivery(one, DeliveryEvent.PROVED, proof="found")
    assert kept.sweep().studies == 1
    assert kept.files() == []


def test_what_was_promised_to_be_kept_stays_until_then(kept: Kept) -> None:
    """Storage commitment: the modality deletes its own copy after it."""
    kept.add(1)
    kept.send()
    with kept.registry._database.write() as session:
        session.connection().exec_driver_sql("UPDATE instances SET keep_until = '2027-06-01 00:00:00' WHERE id = 1")
    kept.clock.forward(100 * DAY)
    assert kept.sweep().studies == 0
    kept.clock.forward(200 * DAY)
    assert kept.sweep().studies == 1


@pytest.mark.parametrize("free", [1.0, 0.0])
def test_a_clock_that_is_years_ahead_for_an_hour_purges_nothing_and_one_that_stays_there_does(kept: Kept, free: float) -> None:
    """What was promised for a year, or is kept for a month, does not go because a clock was wrong before lunch."""
    kept.add(1)
    kept.send()
    kept.registry.promises.keep(["1.9.1.1.1"], kept.clock.now + timedelta(days=365))
    before = kept.files()

    def sweep() -> Purged:
        return kept.retention(free_percent=10).sweep(kept.registry.keeping.believed_time())

    kept.clock.forward(3600)
    sweep()
    kept.clock.forward(2000 * DAY)
    kept.free = free
    for _ in range(6):
        assert sweep().files == 0
        kept.clock.forward(600)
    kept.clock.forward(-2000 * DAY)
    sweep()
    assert kept.files() == before
    kept.clock.forward(2000 * DAY)  # again, and nobody puts it right
    for _ in range(20):
        assert sweep().files == 0
        kept.clock.forward(3600)
    kept.clock.forward(5 * 3600)
    assert sweep().files == 3


def test_a_disk_that_runs_short_takes_the_oldest_first_and_nothing_of_the_last_day(kept: Kept) -> None:
    for number in range(3):
        kept.add(number)
        kept.send()
        kept.clock.forward(DAY)
    kept.clock.forward(-3600)
    kept.free = 0.05
    purged = kept.sweep()
    assert (purged.studies, purged.jobs) == (2, 2)
    assert kept.registry.explain("S3")["purged_at"] is None
    assert kept.files() == ONE_STUDY
    assert kept.rows_fit_files()


def test_the_same_image_again_after_the_purge_is_stored_and_makes_no_new_work(kept: Kept) -> None:
    kept.add(1)
    kept.send()
    kept.clock.forward(31 * DAY)
    kept.sweep()
    with pytest.raises(NothingToDo, match="purged"):
        kept.registry.reprocess("S1")
    known = kept.registry.instance("1.9.1.1.1")
    assert known is not None
    assert known.purged
    stored = kept.store.write_instance(b"", [b"1 1"])
    came = received("1.9.1.1.1", study="1.9.1", series="1.9.1.1", at=kept.clock.now)
    again = replace(came, path=stored.path, sha256=stored.sha256)
    kept.registry.add_instance(again, ours=False, replaces=True)
    known = kept.registry.instance("1.9.1.1.1")
    assert known is not None
    assert (known.purged, known.path, known.attributes["PatientID"]) == (False, stored.path, "P1")
    assert kept.registry.studies_to_judge() == []
    kept.sweep()
    assert kept.store.absolute(stored.path).exists()  # not what an earlier purge still had to remove
    kept.clock.forward(31 * DAY)
    kept.sweep()
    assert not kept.store.absolute(stored.path).exists()  # what came again goes again in its time


def test_a_purge_that_was_broken_off_is_gone_on_with(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.add(1)
    kept.send()
    kept.clock.forward(31 * DAY)
    discard, calls = Store.discard, []

    def dies(store: Store, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        discard(store, path)

    monkeypatch.setattr(Store, "discard", dies)
    with pytest.raises(KeyboardInterrupt):
        kept.sweep()
    monkeypatch.undo()
    assert kept.files() == ["instances", "spool"]
    assert fsck(kept.store, (KnownFile(*one) for one in kept.registry.known_files()), verify_digests=False).missing == ()
    assert kept.sweep().files == 2
    assert kept.files() == ["spool"]
    assert kept.rows_fit_files()


def test_audit_rows_move_to_a_file_a_month(kept: Kept) -> None:
    kept.add(1)
    kept.send()
    written = kept.registry.audit("J1")
    kept.clock.forward(181 * DAY)
    kept.add(2)
    assert kept.sweep(sources_days=0, results_days=0, free_percent=0).audit_rows == 8
    assert kept.registry.audit("J1") == []
    assert len(kept.registry.audit("J2")) == 3
    (file,) = (kept.store.root / "audit").iterdir()
    assert file.name == "2026-11.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    jobs = [(one["from_state"], one["to_state"], one["event"]) for one in lines if one["kind"] == "job"]
    assert jobs == [(one.from_state, one.to_state, one.event) for one in written]
    assert file.stat().st_mode & 0o007 == 0
    assert kept.sweep(sources_days=0, results_days=0, free_percent=0).audit_rows == 0


def test_rows_of_associations_and_of_long_purged_images_go(kept: Kept) -> None:
    for _ in range(3):
        key = kept.registry.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
        kept.registry.association_ended(key, "released")
    kept.registry.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    kept.add(1)
    kept.send()
    kept.clock.forward(31 * DAY)
    kept.sweep()
    assert kept.registry.instance("1.9.1.1.1") is not None
    kept.clock.forward(366 * DAY)
    kept.sweep()
    assert kept.registry.instance("1.9.1.1.1") is None
    with kept.registry._database.read() as session:
        assert session.connection().exec_driver_sql("SELECT count(*) FROM associations").scalar() == 1
    assert kept.registry.explain("S1")["key"] == "S1"
