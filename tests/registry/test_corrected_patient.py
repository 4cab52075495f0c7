"""A corrected or merged patient while jobs and deliveries wait: nothing leaves under the old identity."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.results import ResultKind
from dicomnode.domain.states import JobEvent
from dicomnode.registry import Registry
from tests.delivery.outbox import PATIENT, Outbox, folder_destination
from tests.registry.samples import Spool, add_series, queue_job, received

MERGED = {**PATIENT, "PatientID": "P-2"}


def came_again(sop: str, **header: str) -> Any:
    """The instance with another header, as receiving sets it aside."""
    return replace(received(sop, content="corrected", **header), path=Path("quarantine/header") / sop)


def states(registry: Registry) -> list[str]:
    (series,) = registry.explain("S1")["series"]  # type: ignore[misc]
    return [one["state"] for one in series["jobs"]]


def test_a_job_that_waits_is_held_and_runs_anew_on_the_corrected_images(registry: Registry) -> None:
    add_series(registry, 2)
    queue_job(registry)
    for number in (1, 2):
        registry.record_conflict(came_again(f"1.2.3.1.{number}", PatientID="P2"), "header")
    assert registry.claim_job("w", 60) is None
    assert registry.keeping.identity("S1") == ("1.2.3", {"PatientID": "P2", "PatientBirthDate": "19700101"})

    assert registry.retry("S1") == ["S1", "J1"]
    assert states(registry) == ["superseded"]
    assert queue_job(registry) == ["J2"]
    job = registry.claim_job("w", 60)
    assert job is not None
    assert job.series is not None
    assert [one.path.as_posix() for one in job.series.instances] == [f"quarantine/header/1.2.3.1.{n}" for n in (1, 2)]
    (study,) = registry.studies("P2")
    assert study["patient_id"] == "P2"
    # The bytes that were stored first stay: rows name them still.
    assert {path.as_posix() for path, _, _ in registry.known_files()} >= {"instances/1.2.3.1.1.dcm", "instances/1.2.3.1.2.dcm"}


def test_a_job_that_runs_ends_but_nothing_of_it_leaves(registry: Registry) -> None:
    add_series(registry, 1)
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    registry.record_conflict(came_again("1.2.3.1.1", PatientID="P2"), "header")
    registry.finish_job(job, JobEvent.FINISHED, results=Spool().objects(job), destinations=["pacs"])
    assert registry.claim_delivery("d", "pacs", 60) is None
    registry.retry("S1")
    assert states(registry) == ["superseded"]
    assert registry.claim_delivery("d", "pacs", 60) is None


def test_results_that_left_already_are_marked_stale_until_the_operator_says_that_they_were_right(registry: Registry) -> None:
    add_series(registry, 1)
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    registry.finish_job(job, JobEvent.FINISHED, results=Spool().objects(job, ("SC",)), destinations=["pacs"])

    def stale() -> list[str | None]:
        (series,) = registry.explain("S1")["series"]  # type: ignore[misc]
        return [one["stale"] for one in series["results"]]

    assert stale() == [None]
    registry.record_conflict(came_again("1.2.3.1.1", PatientID="P2"), "header")
    assert stale() == ["an instance came again with other patient or study attributes"]
    assert "its results no longer say what is known" in str(registry.explain("S1")["paragraph"])
    assert registry.cancel("S1") == ["S1"]
    assert stale() == [None]
    assert registry.keeping.identity("S1")[1]["PatientID"] == "P1"
    assert states(registry) == ["done"]
    assert registry.claim_delivery("d", "pacs", 60) is not None


def test_an_operator_who_accepted_the_wrong_one_can_go_back(registry: Registry) -> None:
    add_series(registry, 1)
    registry.add_instance(received("1.2.3.2.1", series="1.2.3.2", PatientID="P2"), ours=False)
    assert registry.retry("S1") == ["S1"]
    assert registry.keeping.identity("S1")[1]["PatientID"] == "P2"
    assert registry.cancel("S1") == ["S1"]
    assert registry.keeping.identity("S1")[1]["PatientID"] == "P1"
    assert registry.cancel("S1") == []


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "data")


def test_what_waits_to_be_sent_is_held_where_the_newest_header_names_another_patient(outbox: Outbox, tmp_path: Path) -> None:
    """Also where another instance than the result's first source brought the correction."""
    root = tmp_path / "out"
    root.mkdir()
    outbox.finish_a_job("folder", kinds=(ResultKind.SC,))
    (study,) = outbox.registry.studies()
    correction = received("1.9.9", study=str(study["study_instance_uid"]), series="1.9", **MERGED)
    outbox.registry.add_instance(correction, ours=False)
    deliverer = outbox.deliverer(folder_destination("folder", root))
    assert deliverer.run_once() == 0  # the study is held
    assert outbox.registry.retry("S1") == ["S1"]
    assert deliverer.run_once() == 0
    (held,) = outbox.deliveries()
    assert (held["state"], held["last_error"]) == (
        "held",
        "PatientID of the object and of its study's newest header differ",
    )
    assert not list(root.rglob("*.dcm"))
    # The operator finds that the first one was right after all.
    outbox.registry.cancel("S1")
    outbox.registry.retry(str(held["id"]))
    assert deliverer.run_once() == 1
    assert outbox.states() == ["sent"]
