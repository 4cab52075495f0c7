"""Patient and study of a result are the source's, however odd the source is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.imaging import Refusal, RefusalCode
from dicomnode.domain.profiles import SHIPPED, ResultKind, SegForm, WithoutFrameOfReference
from dicomnode.results import build, verify
from dicomnode.results.source import derived_frame_of_reference
from tests.results.cases import request_for, small_findings, small_series, volume_of
from tests.results.conftest import make_case
from tests.results.test_report import texts

SEG_AND_SR = (ResultKind.SEG, ResultKind.SR)
IDENTITY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyID", "StudyDate",
    "StudyTime", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "IssuerOfPatientID",
)  # fmt: skip


def assert_same_patient_and_study(result: Path, source: Path) -> None:
    written, received = pydicom.dcmread(result), pydicom.dcmread(source, stop_before_pixels=True)
    for keyword in IDENTITY:
        assert str(written.get(keyword) or "") == str(received.get(keyword) or ""), keyword


# pydicom warns of values that the standard forbids while it reads the source; the node strips warnings of libraries.
@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"PatientName": None, "PatientID": None, "PatientBirthDate": None, "PatientSex": None},
        {"StudyID": None, "AccessionNumber": None, "StudyDate": None, "StudyTime": None, "ReferringPhysicianName": None},
        {"PatientSex": "U", "IssuerOfPatientID": "ADT", "StudyDescription": "CT chest"},
        {"PatientBirthDate": "1960"},
        {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Wáng^Xiǎo=王^小東=", "StudyDescription": "胸部"},
        {"SpecificCharacterSet": "GB18030", "PatientName": "Wang^XiaoDong=王^小东="},
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"},
        {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Äneas^Rüdiger"},
        {"SliceThickness": None, "BodyPartExamined": None, "Manufacturer": None},
        {"WindowCenter": [40, -600], "WindowWidth": [400, 1500]},
    ],
    ids=["plain", "nobody", "no-study", "sex-U", "year", "utf-8", "gb18030", "iso-2022", "latin-1", "bare", "windows"],
)
def test_results_of_an_odd_source_are_built_and_pass_the_checks(tmp_path: Path, changes: dict[str, Any]) -> None:
    paths = small_series(tmp_path / "ct", slices=6, **changes)
    made = make_case(paths, None, volume_of(paths), tmp_path / "results")
    verify(made.objects, made.findings, made.volume, paths)
    for one in made.objects:
        assert_same_patient_and_study(one.path, paths[0])


def test_the_character_set_and_the_bytes_of_a_name_are_the_source_s(tmp_path: Path) -> None:
    changes = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    paths = small_series(tmp_path / "ct", **changes)
    made = make_case(paths, None, volume_of(paths), tmp_path / "results")
    name = pydicom.dcmread(paths[0]).get_item("PatientName").value
    for one in made.objects:
        dataset = pydicom.dcmread(one.path)
        assert dataset.get_item("PatientName").value == name
        assert list(dataset.SpecificCharacterSet) == ["", "ISO 2022 IR 87"]


def test_text_of_ours_that_the_source_s_set_cannot_hold_turns_the_object_to_utf_8(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct", SpecificCharacterSet="ISO_IR 100", PatientName="Äneas^Rüdiger")
    refusal = Refusal(RefusalCode.GAP, "Abstand 2.5 → 5.0 mm", "noch einmal senden")
    objects = build(refusal, None, paths, request_for(paths), tmp_path / "results")
    verify(objects, refusal, None, paths)
    dataset = pydicom.dcmread(objects[0].path)
    assert (dataset.SpecificCharacterSet, str(dataset.PatientName)) == ("ISO_IR 192", "Äneas^Rüdiger")


@pytest.mark.filterwarnings("ignore:Failed to encode value")
def test_every_character_set_of_the_test_data_survives(test_data: Path, tmp_path: Path) -> None:
    refusal = Refusal(RefusalCode.WRONG_MODALITY, "this pipeline reads CT", "route it to another pipeline")
    seen = 0
    for path in sorted((test_data / "charsets").glob("*.dcm")):
        if not pydicom.dcmread(path, force=True).get("SOPInstanceUID"):
            continue  # receiving keeps these out
        objects = build(refusal, None, [path], request_for([path], kinds=(ResultKind.SR,)), tmp_path / path.stem)
        verify(objects, refusal, None, [path])
        assert_same_patient_and_study(objects[0].path, path)
        seen += 1
    assert seen > 20


@pytest.mark.parametrize("form", list(SegForm))
def test_without_a_frame_of_reference_each_frame_leans_on_its_source_image(tmp_path: Path, form: SegForm) -> None:
    paths = small_series(tmp_path / "ct", FrameOfReferenceUID=None)
    profile = replace(SHIPPED["archive"], seg_form=form, fallbacks=())
    made = make_case(paths, None, volume_of(paths), tmp_path / "results", profiles=(profile,), kinds=SEG_AND_SR)
    verify(made.objects, made.findings, made.volume, paths)
    headers = made.headers()
    for dataset in made.of_kind(ResultKind.SEG):
        assert "FrameOfReferenceUID" not in dataset
        frames = dataset.PerFrameFunctionalGroupsSequence
        sources = [headers[one.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID] for one in frames]
        places = [one.FrameContentSequence[0].InStackPositionNumber for one in frames]
        heights = [float(one.ImagePositionPatient[2]) for one in sources]
        by_place = sorted(zip(places, heights, strict=True))
        assert [height for _, height in by_place] == sorted(heights)
        assert not any("PlanePositionSequence" in one for one in frames)
        assert dataset.PatientOrientation == ["L", "P"]
    report = made.of_kind(ResultKind.SR)[0]
    assert not [one for one in report.iterall() if one.keyword == "FrameOfReferenceUID"]


def test_a_derived_frame_of_reference_is_a_profile_s_choice_and_recorded(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct", FrameOfReferenceUID=None)
    profile = replace(SHIPPED["archive"], without_frame_of_reference=WithoutFrameOfReference.DERIVED, fallbacks=())
    made = make_case(paths, None, volume_of(paths), tmp_path / "results", profiles=(profile,), kinds=SEG_AND_SR)
    verify(made.objects, made.findings, made.volume, paths)
    (segmentation,), (report,) = made.of_kind(ResultKind.SEG), made.of_kind(ResultKind.SR)
    assert segmentation.FrameOfReferenceUID == derived_frame_of_reference(made.volume.series_instance_uid)
    assert any("have no frame of reference; that of the segmentation was derived" in text for text in texts(report))


def test_a_destination_that_wants_no_segmentation_without_frame_of_reference_is_told_why_there_is_none(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct", FrameOfReferenceUID=None)
    profile = replace(SHIPPED["ohif"], without_frame_of_reference=WithoutFrameOfReference.LEAVE_OUT)
    made = make_case(paths, None, volume_of(paths), tmp_path / "results", profiles=(profile,), kinds=SEG_AND_SR)
    verify(made.objects, made.findings, made.volume, paths)
    assert {one.kind for one in made.objects} == {ResultKind.SR}
    said = texts(made.of_kind(ResultKind.SR)[0])
    assert "Segmentation: 0 of 4 segments shown, for the images have no frame of reference." in said


def test_a_slice_whose_file_is_gone_stops_the_build(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    volume = volume_of(paths)
    with pytest.raises(ResultCheckFailed, match="1 of 12 slices have no source file"):
        build(small_findings(volume), volume, paths[1:], request_for(paths), tmp_path / "results")


def test_files_of_the_series_that_the_volume_does_not_use_are_not_named(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    volume = volume_of(paths[:-2])
    findings = small_findings(volume)
    objects = build(findings, volume, paths, request_for(paths), tmp_path / "results")
    verify(objects, findings, volume, paths)
    assert len(objects[0].source_sop_instance_uids) == len(paths) - 2


def test_warnings_of_libraries_name_no_patient(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    paths = small_series(tmp_path / "ct", PatientName="MARKERNAME", ReferringPhysicianName="MARKERDOCTOR", PatientID="MARKERID")
    made = make_case(paths, None, volume_of(paths), tmp_path / "results")
    verify(made.objects, made.findings, made.volume, paths)
    assert not [one for one in recwarn if "MARKER" in str(one.message)]
