"""Rejection notes that come in (IHE IOCM): real key object selections in a real store."""

import hashlib
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from structlog.testing import capture_logs

from dicomnode.domain.rejection import KEY_OBJECT_SELECTION, REJECTIONS, NamedInstance, RejectionNote
from dicomnode.domain.routes import Route
from dicomnode.domain.states import JobEvent
from dicomnode.domain.uids import derived_uid
from dicomnode.network.rejection_notes import read_rejection_note, rejection_note
from dicomnode.registry import Registry
from dicomnode.roles.rejections import RejectionNotes
from dicomnode.routing import PipelineFacts, sweep
from dicomnode.settings import PeerSettings, Settings
from dicomnode.storage import Store
from tests.peers.processes import tool
from tests.registry.samples import CT, Clock, Spool, add_series, received

ROUTE = Route("ct", {"Modality": ("CT",)}, "chest_ct", "exact", "best", ("pacs",), ("SEG", "SR"), 10.0, 600.0)
PIPELINES = {"chest_ct": PipelineFacts("chest_ct", min_slices=3)}
STUDY, SERIES = "1.2.3", "1.2.3.1"


class Ward:
    """A registry, a store, and a peer that may reject unless said otherwise."""

    def __init__(self, registry: Registry, clock: Clock, folder: Path, *may: str) -> None:
        self.registry, self.clock = registry, clock
        self.store = Store(folder, reserve_bytes=0, order="serial")
        self.store.prepare()
        peer = PeerSettings(name="pacs", ae_title="MODALITY", host="127.0.0.1", port=104, may=frozenset(may))  # type: ignore[arg-type]
        self.notes = RejectionNotes(registry, self.store, Settings(peers=(peer,)))
        self._sent = 0

    def routed(self) -> None:
        self.clock.forward(40)
        sweep(self.registry, (ROUTE,), self.clock.now, pipelines=PIPELINES)

    def send_note(self, *uids: str, code: str = "113001", sop_class: str = CT) -> None:
        self._sent += 1
        note = RejectionNote(code, STUDY, tuple(NamedInstance(sop_class, uid, SERIES) for uid in uids))
        uid = f"1.2.3.9.{self._sent}"
        path = self.store.spool_dir("J0") / f"{uid}.dcm"
        document(note, uid).save_as(path, enforce_file_format=True)
        one = received(uid, study=STUDY, series="1.2.3.9", sop_class=KEY_OBJECT_SELECTION, at=self.clock.now, Modality="KO")
        content = path.read_bytes()
        one = replace(
            one, path=path.relative_to(self.store.root), size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
        self.registry.add_instance(one, ours=False)

    def states(self) -> list[str]:
        answer = self.registry.explain("S1")
        return [job["state"] for series in answer["series"] for job in series["jobs"]]  # type: ignore[attr-defined]

    def finish(self) -> None:
        job = self.registry.claim_job("w", 60)
        assert job is not None
        results = Spool(STUDY).objects(job, ("SR",))
        self.registry.finish_job(job, JobEvent.FINISHED, results=results, destinations=["pacs"])


def document(note: RejectionNote, uid: str = "1.2.3.9.9") -> Dataset:
    rejected = Dataset()
    rejected.PatientName, rejected.PatientID, rejected.StudyInstanceUID = "Doe^Jane", "P1", STUDY
    rejected.PatientBirthDate, rejected.PatientSex = "19700101", "F"
    rejected.StudyDate, rejected.StudyTime, rejected.StudyID = "20261121", "080000", "1"
    rejected.AccessionNumber, rejected.ReferringPhysicianName = "ACC1", "Roe^Richard"
    at = datetime(2026, 11, 21, 9, 0)  # noqa: DTZ001 - local, as DA and TM are
    return rejection_note(
        rejected, note, sop_instance_uid=uid, series_instance_uid="1.2.3.9", at=at, description="Rejection note"
    )


@pytest.fixture
def ward(registry: Registry, clock: Clock, tmp_path: Path) -> Ward:
    return Ward(registry, clock, tmp_path / "data", "store", "reject")


@pytest.mark.parametrize("code", REJECTIONS)
def test_a_whole_series_that_is_rejected_cancels_its_job_and_says_why(ward: Ward, code: str) -> None:
    add_series(ward.registry, 4)
    ward.routed()
    ward.send_note(*(f"{SERIES}.{number}" for number in range(1, 5)), code=code)
    assert ward.notes.sweep() == 1
    assert ward.notes.sweep() == 0  # never again
    assert ward.states() == ["cancelled"]
    assert f"was cancelled: pacs rejected it: {REJECTIONS[code]} ({code})" in str(ward.registry.explain("S1")["paragraph"])
    ward.routed()
    assert ward.states() == ["cancelled"]
    # The scan is taken again: what a note ended stands in nobody's way.
    add_series(ward.registry, 4, series="1.2.3.2", at=ward.clock.now)
    ward.routed()
    assert sorted(ward.states()) == ["cancelled", "queued"]


def test_a_rejected_image_is_left_out_and_the_rest_runs_anew(ward: Ward) -> None:
    add_series(ward.registry, 5)
    ward.routed()
    ward.finish()
    ward.send_note(f"{SERIES}.5")
    ward.notes.sweep()
    answer = ward.registry.explain("S1")
    assert [one["stale"] for series in answer["series"] for one in series["results"]] == [  # type: ignore[attr-defined]
        "pacs rejected it: Rejected for Quality Reasons (113001)"
    ]
    assert ward.registry.claim_delivery("d", "pacs", 60) is None
    ward.routed()
    assert ward.states() == ["superseded", "queued"]
    job = ward.registry.claim_job("w", 60)
    assert job is not None
    assert sorted(job.source_digests) == [f"{SERIES}.{number}" for number in range(1, 5)]


def test_a_note_on_our_result_makes_it_stale_and_stops_what_still_waits(ward: Ward) -> None:
    add_series(ward.registry, 4)
    ward.routed()
    ward.finish()
    (series,) = ward.registry.explain("S1")["series"]  # type: ignore[misc]
    ward.send_note(series["results"][0]["sop_instance_uid"])
    ward.notes.sweep()
    answer = ward.registry.explain("S1")["series"][0]  # type: ignore[index]
    assert answer["results"][0]["stale"].startswith("pacs rejected it")
    assert [one["state"] for one in answer["deliveries"]] == ["cancelled"]
    assert ward.states() == ["done"]


def test_who_may_not_reject_changes_nothing(registry: Registry, clock: Clock, tmp_path: Path) -> None:
    ward = Ward(registry, clock, tmp_path / "data", "store")
    add_series(registry, 4)
    ward.routed()
    ward.send_note(f"{SERIES}.1")
    with capture_logs() as logs:
        assert ward.notes.sweep() == 0
    assert [line["event"] for line in logs] == ["a rejection note was ignored: its sender may not reject"]
    assert ward.notes.sweep() == 0
    assert ward.states() == ["queued"]
    job = registry.claim_job("w", 60)
    assert job is not None
    assert len(job.source_digests) == 4


def test_a_note_names_only_what_is_of_its_own_study(ward: Ward) -> None:
    add_series(ward.registry, 4)
    add_series(ward.registry, 4, study="1.2.4", series="1.2.4.1")
    ward.routed()
    ward.send_note("1.2.4.1.1", "1.2.4.1.2")
    ward.notes.sweep()
    assert [job["state"] for one in ward.registry.explain("S2")["series"] for job in one["jobs"]] == ["queued"]  # type: ignore[attr-defined]


def test_what_we_write_is_a_valid_key_object_selection_that_reads_back(tmp_path: Path) -> None:
    named = (
        NamedInstance("1.2.840.10008.5.1.4.1.1.66.4", derived_uid(["seg"]), derived_uid(["a"])),
        NamedInstance("1.2.840.10008.5.1.4.1.1.88.34", derived_uid(["sr"]), derived_uid(["b"])),
    )
    note = RejectionNote("113039", STUDY, named)
    path = tmp_path / "note.dcm"
    document(note, derived_uid(["note"])).save_as(path, enforce_file_format=True)
    read = read_rejection_note(path)
    assert read is not None
    assert (read.code, read.study_instance_uid, set(read.named)) == ("113039", STUDY, set(named))
    said = subprocess.run([tool("dciodvfy", "dicom3tools"), path], capture_output=True, text=True, check=False)
    assert not [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
