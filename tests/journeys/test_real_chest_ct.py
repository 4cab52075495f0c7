"""The main job on real data: DCMTK's dcmsend → node → Orthanc, without a human step."""

from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.journeys.hospital import Hospital, dciodvfy_errors, results_in_pacs, send, study_uid_of, wait_for_end


@pytest.fixture(scope="module")
def chest(hospital: Hospital, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """ct_chest_cmbcrc_01068 sent, worked and delivered."""
    folder = test_data / "ct_chest_cmbcrc_01068"
    send(hospital, folder)
    sources = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.glob("*.dcm"))]
    explanation = wait_for_end(hospital, str(sources[0].StudyInstanceUID))
    downloads = tmp_path_factory.mktemp("downloads")
    results = results_in_pacs(hospital, str(sources[0].StudyInstanceUID), downloads)
    return {"sources": sources, "explanation": explanation, "results": results, "downloads": downloads}


def test_a_chest_ct_comes_back_as_one_series_each_of_seg_sr_and_sc(chest: dict[str, Any]) -> None:
    results = chest["results"]
    assert set(results) == {"SEG", "SR", "SC"}
    series = {kind: {str(one.SeriesInstanceUID) for one in objects} for kind, objects in results.items()}
    assert {kind: len(uids) for kind, uids in series.items()} == {"SEG": 1, "SR": 1, "SC": 1}
    assert len(results["SEG"]) == 1
    assert len(results["SR"]) == 1


def test_results_belong_to_the_study_the_patient_and_the_frame_of_reference(chest: dict[str, Any]) -> None:
    source = chest["sources"][0]
    for objects in chest["results"].values():
        for one in objects:
            for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate"):
                assert one.get(keyword, "") == source.get(keyword, ""), keyword
    seg = chest["results"]["SEG"][0]
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    known = {str(one.SOPInstanceUID) for one in chest["sources"]}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        named = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert str(named) in known


def test_dciodvfy_finds_no_error_in_any_result(chest: dict[str, Any]) -> None:
    files = sorted(chest["downloads"].glob("*.dcm"))
    assert len(files) >= 3
    assert dciodvfy_errors(files) == {}


def test_both_lungs_are_segmented_with_a_plausible_volume(chest: dict[str, Any]) -> None:
    seg = chest["results"]["SEG"][0]
    labels = {int(one.SegmentNumber): str(one.SegmentLabel) for one in seg.SegmentSequence}
    assert {"Left lung", "Right lung"} <= set(labels.values())
    spacing = [float(value) for value in seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing]
    masks = seg.pixel_array
    lungs_ml = 0.0
    for mask, frame in zip(masks, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        if labels[number].endswith("lung"):
            lungs_ml += float(mask.sum()) * spacing[0] * spacing[1] * 2.5 / 1000
    assert lungs_ml == pytest.approx(4450, rel=0.1)  # a threshold segmentation of this series gives about 4.45 l


def test_every_result_says_that_it_is_a_demonstration(chest: dict[str, Any]) -> None:
    for objects in chest["results"].values():
        for one in objects:
            assert "demo" in str(one.SeriesDescription).lower()
    assert "not for clinical use" in str(chest["results"]["SR"][0]).lower()


def test_every_delivery_is_confirmed_by_a_query(chest: dict[str, Any]) -> None:
    deliveries = [delivery for one in chest["explanation"]["series"] for delivery in one["deliveries"]]
    assert deliveries
    assert {delivery["state"] for delivery in deliveries} == {"confirmed"}
    assert all(delivery["attempts"] == 1 for delivery in deliveries)


def test_two_scan_ranges_in_one_series_end_in_an_honest_not_run(hospital: Hospital, test_data: Path, tmp_path: Path) -> None:
    folder = test_data / "ct_chest_rider_0109"
    send(hospital, folder)
    study = study_uid_of(next(folder.glob("*.dcm")))
    explanation = wait_for_end(hospital, study)
    jobs = [job for one in explanation["series"] for job in one["jobs"]]
    assert [job["state"] for job in jobs] == ["refused"]
    assert jobs[0]["reason_code"] == "mixed_geometry"
    assert jobs[0]["remedy"]
    assert jobs[0]["remedy"].rstrip(".") in explanation["paragraph"]
    results = results_in_pacs(hospital, study, tmp_path)
    assert set(results) == {"SR", "SC"}, "no segmentation of a volume that was never built"
    assert len(results["SR"]) == len(results["SC"]) == 1
    assert "not run" in str(results["SR"][0]).lower()
    assert "not run" in str(results["SR"][0].SeriesDescription).lower()
    assert dciodvfy_errors(sorted(tmp_path.glob("*.dcm"))) == {}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ("ct_head_ge_tilt", "BodyPartExamined"),
        ("mr_abdomen_haste_cor", "Modality"),
        ("pt_sts002_with_rtstruct", "Modality"),
    ],
)
def test_what_the_route_does_not_want_is_stored_and_explained(
    hospital: Hospital, test_data: Path, files: str, why: str
) -> None:
    folder = test_data / files
    sent = sorted(folder.glob("*.dcm"))
    before = hospital.pacs.instance_count()
    send(hospital, folder)
    explanation = wait_for_end(hospital, study_uid_of(sent[0]))
    stored = sum(
        one["instances"] for study in hospital.node.json("studies", study_uid_of(sent[0]))["studies"] for one in study["series"]
    )
    assert stored == len(sent)
    verdicts = [route for one in explanation["series"] for route in one["routes"]]
    assert verdicts
    assert not any(verdict["matched"] for verdict in verdicts)
    assert any(why in verdict["why"] for verdict in verdicts)
    assert "chest-ct" in explanation["paragraph"]
    assert hospital.pacs.instance_count() == before


def test_an_abdomen_that_the_text_calls_chest_is_refused_for_its_region(hospital: Hospital, test_data: Path) -> None:
    folder = test_data / "ct_abdomen_crlm1004"
    before = hospital.pacs.instance_count()
    send(hospital, folder)
    explanation = wait_for_end(hospital, study_uid_of(next(folder.glob("*.dcm"))))
    jobs = [job for one in explanation["series"] for job in one["jobs"]]
    assert [(job["state"], job["reason_code"]) for job in jobs] == [("refused", "not_this_region")]
    assert hospital.pacs.instance_count() == before, "a region that is not the model's is silent by default"


def test_our_own_results_coming_back_start_nothing(hospital: Hospital, chest: dict[str, Any]) -> None:
    study = str(chest["sources"][0].StudyInstanceUID)
    before = hospital.node.status()["counts"]
    hospital.pacs.send("dicomnode", study)
    explanation = wait_for_end(hospital, study)
    after = hospital.node.status()["counts"]
    assert after["jobs"] == before["jobs"]
    assert after["deliveries"] == before["deliveries"]
    sent_back = {str(one.SOPInstanceUID) for objects in chest["results"].values() for one in objects}
    assert after["instances"] == before["instances"] + len(sent_back)
    assert len([job for one in explanation["series"] for job in one["jobs"]]) == 1
