"""Rows of what arrives."""

from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.domain.errors import UsageError
from dicomnode.domain.states import JobEvent
from dicomnode.registry import Registry, receiving
from tests.registry.samples import CT, SEG, Clock, Spool, add_series, queue_job, received


def test_an_instance_is_found_again_with_all_that_was_said_of_it(registry: Registry) -> None:
    one = received(SeriesDescription="Thorax\\Lung")
    keys = registry.add_instance(one, ours=False)
    assert (keys.study_key, keys.series_key, keys.new) == ("S1", "E1", True)
    known = registry.instance(one.sop_instance_uid)
    assert known is not None
    assert (known.path, known.sha256, known.pixel_digest, known.size_bytes) == (one.path, one.sha256, one.pixel_digest, 1000)
    assert known.attributes == one.attributes
    assert (known.study_key, known.series_key, known.received_at, known.ours) == ("S1", "E1", one.received_at, False)
    assert registry.instance("1.2.99") is None


def test_rows_outlive_the_process(registry: Registry, url: str) -> None:
    registry.add_instance(received(), ours=False)
    other = Registry(url)
    assert other.instance("1.2.3.1.1") is not None
    other.close()


def test_bytes_that_were_damaged_are_replaced_without_new_work(registry: Registry) -> None:
    registry.add_instance(received(), ours=False)
    queue_job(registry)
    again = replace(received(content="same pixels, other wrapping"), path=Path("instances/second.dcm"))
    assert not registry.add_instance(again, ours=False).new
    assert registry.instance("1.2.3.1.1").path == Path("instances/1.2.3.1.1.dcm")  # type: ignore[union-attr]
    assert not registry.add_instance(again, ours=False, replaces=True).new
    known = registry.instance("1.2.3.1.1")
    assert known is not None
    assert (known.path, known.sha256) == (Path("instances/second.dcm"), again.sha256)
    assert registry.claim_job("w", 60) is not None


@pytest.mark.parametrize(
    ("other", "conflict"),
    [
        ({"PatientID": "P2"}, True),
        ({"PatientBirthDate": "19710101"}, True),
        ({"PatientName": "Roe^Jane"}, True),
        ({"PatientName": "DOE^JANE^^ "}, False),
        ({"PatientName": "Doe^Jane=山田^花子"}, False),
        ({"PatientName": ""}, False),
        ({"PatientID": "P1 "}, False),
    ],
)
def test_two_patients_in_one_study_hold_it_and_one_patient_does_not(
    registry: Registry, other: dict[str, str], conflict: bool
) -> None:
    add_series(registry, 2)
    registry.add_instance(received("1.2.3.2.1", series="1.2.3.2", **other), ours=False)
    queue_job(registry)
    assert (registry.claim_job("w", 60) is None) is conflict
    story = str(registry.explain("S1")["paragraph"])
    assert ("The study is held because its instances name different patients" in story) is conflict
    if conflict:
        assert registry.retry("S1") == ["S1"]
        registry.add_instance(received("1.2.3.2.2", series="1.2.3.2", **other), ours=False)  # already decided
        assert registry.explain("S1")["held"] == ""
        assert registry.claim_job("w", 60) is not None


def test_other_pixels_under_a_known_uid_hold_the_series_until_an_operator_decides(registry: Registry) -> None:
    add_series(registry, 2)
    add_series(registry, 2, study="1.2.4", series="1.2.4.1")
    registry.record_conflict(replace(received("1.2.3.1.1", content="other"), path=Path("quarantine/1")), "pixels")
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    assert job.study_key == "S2"
    assert registry.claim_job("w", 60) is None
    answer = registry.explain("S1")
    assert "E1 is held because an instance came again with other pixels" in str(answer["paragraph"])
    assert [one["kind"] for one in answer["conflicts"]] == ["pixels"]  # type: ignore[attr-defined]
    assert Path("quarantine/1") in {path for path, _, _ in registry.known_files()}
    assert registry.retry("E1") == ["E1"]
    assert registry.retry("E1") == []
    registry.record_conflict(replace(received("1.2.3.1.1", content="other"), path=Path("quarantine/1")), "pixels")
    assert registry.claim_job("w", 60) is not None  # the same again says nothing new
    assert [row.event for row in registry.audit("E1")] == ["created", "held", "completed", "released"]


def test_a_header_conflict_holds_the_study(registry: Registry) -> None:
    add_series(registry, 2)
    queue_job(registry)
    registry.record_conflict(received("1.2.3.1.1", content="x", StudyDescription="other"), "header")
    assert registry.claim_job("w", 60) is None
    assert registry.cancel("S1") == ["S1"]  # what is stored is right
    assert registry.claim_job("w", 60) is not None
    registry.record_conflict(received("1.2.3.1.2", content="y", PatientID="MERGED"), "header")
    assert registry.retry("S1") == ["S1", "J1"]  # the newer header is: what ran under the old one runs anew
    assert queue_job(registry) == ["J2"]
    assert registry.claim_job("w", 60) is not None


def test_a_conflict_with_nothing_is_a_wrong_use(registry: Registry) -> None:
    with pytest.raises(UsageError):
        registry.record_conflict(received(), "pixels")


def test_the_files_that_rows_name_are_all_listed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "_PAGE", 3)
    add_series(registry, 8)
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    registry.finish_job(job, JobEvent.FINISHED, results=Spool().objects(job), destinations=[])
    listed = sorted(path.as_posix() for path, _, _ in registry.known_files())
    assert listed == sorted(
        [f"instances/1.2.3.1.{n}.dcm" for n in range(1, 9)] + [f"spool/J1/{k}.dcm" for k in ("SEG", "SR", "SC")]
    )


def test_after_a_crash_only_what_is_newer_than_the_last_clean_stop_is_looked_at(registry: Registry, clock: Clock) -> None:
    assert registry.last_clean_stop() is None
    registry.add_instance(received("1.2.3.1.1", at=clock.now), ours=False)
    assert len(registry.instances_since(registry.last_clean_stop())) == 1
    clock.forward(10)
    registry.mark_clean_stop()
    clock.forward(10)
    registry.add_instance(received("1.2.3.1.2", at=clock.now), ours=False)
    newer = registry.instances_since(registry.last_clean_stop())
    assert [one.sop_instance_uid for one in newer] == ["1.2.3.1.2"]
    assert registry.forget_instances(["1.2.3.1.2", "1.2.3.1.77"]) == 1
    assert registry.instance("1.2.3.1.2") is None
    assert registry.explain("S1")["series"][0]["instances"] == 1  # type: ignore[index]


def test_our_results_are_known_when_they_come_back(registry: Registry) -> None:
    add_series(registry, 2)
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    objects = Spool().objects(job)
    registry.finish_job(job, JobEvent.FINISHED, results=objects, destinations=["pacs"])
    assert registry.is_our_result(objects[0].sop_instance_uid)
    assert not registry.is_our_result("1.2.3.1.1")
    back = received(objects[0].sop_instance_uid, series="2.25.7", sop_class=SEG, Modality="SEG")
    assert registry.add_instance(back, ours=True).new
    assert registry.studies_to_judge() == []


def test_a_result_of_another_node_is_kept_and_starts_nothing(registry: Registry) -> None:
    registry.add_instance(received("2.25.8", study="1.2.7", series="2.25.9", sop_class=SEG, Modality="SEG"), ours=True)
    assert registry.studies_to_judge() == []
    assert registry.is_our_result("2.25.8")
    assert "holds nothing but results" in str(registry.explain("1.2.7")["paragraph"])


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientName": "Müller^\udcff\udcfe", "PatientID": "a\0b\0"},
        {"InstanceNumber": "one"},
        {"InstanceNumber": "99999999999999999999"},
        {"NumberOfFrames": "-3"},
        {"SeriesNumber": "", "SliceThickness": "thin", "ImageType": "\\\\\\"},
        {"PatientID": "x" * 5000},
    ],
)
def test_odd_headers_are_kept_and_stop_nothing(registry: Registry, attributes: dict[str, str]) -> None:
    assert registry.add_instance(received(sop_class=CT, **attributes), ours=False).new
    queue_job(registry)
    job = registry.claim_job("w", 60)
    assert job is not None
    assert registry.studies("")[0]["key"] == "S1"
    assert registry.explain("S1")["paragraph"]


def test_an_association_is_noted_from_beginning_to_end(registry: Registry, clock: Clock) -> None:
    key = registry.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    assert key == "A1"
    registry.add_instance(received(association_key=key, at=clock.forward(3)), ours=False)
    (study,) = registry.studies_to_judge()
    (association,) = study.associations
    assert (association.key, association.sends_this_study, association.last_active_at) == ("A1", True, clock.now)
    registry.association_ended(key, "released")
    (study,) = registry.studies_to_judge()
    assert study.associations == ()


def test_a_restart_ends_the_associations_that_nobody_can_end_any_more(registry: Registry) -> None:
    key = registry.association_opened("MODALITY", "DICOMNODE", "127.0.0.1")
    registry.add_instance(received(association_key=key), ours=False)
    registry.node_restarted()
    (study,) = registry.studies_to_judge()
    assert study.associations == ()


def test_what_was_found_whole_after_a_crash_is_not_looked_at_again(
    registry: Registry, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "_PAGE", 3)
    assert registry.verified_until() is None
    add_series(registry, 8, at=clock.now)
    assert len(list(registry.files_since(registry.verified_until()))) == 8
    registry.mark_verified(clock.forward(10))
    registry.add_instance(received("1.2.3.1.9", at=clock.forward(10)), ours=False)
    assert [path.name for path, _, _ in registry.files_since(registry.verified_until())] == ["1.2.3.1.9.dcm"]
    clock.forward(10)
    registry.mark_clean_stop()
    assert list(registry.files_since(registry.verified_until())) == []
