"""Patient and study of a result are the source's, however odd the source is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dicomnode import imaging
from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Classification, Findings, LabelMap, Segment
from dicomnode.domain.imaging import Image2D, InstanceRef, Refusal, RefusalCode, SeriesRef, Volume, read_only
from dicomnode.domain.profiles import SHIPPED, CharacterSet, ResultKind, SegForm, WithoutFrameOfReference
from dicomnode.results import build, verify
from dicomnode.results.source import derived_frame_of_reference
from tests.results.cases import ABNORMAL, MODEL, NODULE, PRESENT, request_for, small_findings, small_series, volume_of
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


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", "Wang^XiaoDong=王^小东="),
        ("ISO_IR 192", "Wáng^Xiǎo=王^小東="),
        ("ISO_IR 144", "Люкceмбypг^Мария"),
    ],
    ids=["ir-87", "ir-149", "gb18030", "utf-8", "cyrillic"],
)
def test_the_character_set_and_the_bytes_of_a_name_are_the_source_s(
    tmp_path: Path, character_set: str | list[str], name: str
) -> None:
    paths = small_series(tmp_path / "ct", slices=4, SpecificCharacterSet=character_set, PatientName=name)
    made = make_case(paths, None, volume_of(paths), tmp_path / "results")
    verify(made.objects, made.findings, made.volume, paths)
    received = pydicom.dcmread(paths[0]).get_item("PatientName").value
    for one in made.objects:
        dataset = pydicom.dcmread(one.path)
        assert dataset.get_item("PatientName").value.rstrip(b"= ") == received.rstrip(b"= ")
        assert dataset.SpecificCharacterSet == character_set


def test_a_profile_turns_patient_and_study_into_utf_8(tmp_path: Path) -> None:
    changes = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    paths = small_series(tmp_path / "ct", slices=4, **changes)
    profile = replace(SHIPPED["archive"], character_set=CharacterSet.UTF_8, fallbacks=())
    made = make_case(paths, None, volume_of(paths), tmp_path / "results", profiles=(profile,))
    verify(made.objects, made.findings, made.volume, paths)
    for one in made.objects:
        dataset = pydicom.dcmread(one.path)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert dataset.PatientName == "Yamada^Tarou=山田^太郎=やまだ^たろう"


# pydicom warns of what it could not decode; the node strips warnings of libraries.
@pytest.mark.filterwarnings("ignore:Failed to decode byte string")
@pytest.mark.parametrize("keyword", ["PatientName", "StudyDescription", "ReferringPhysicianName"])
def test_text_that_cannot_be_read_holds_every_result(tmp_path: Path, keyword: str) -> None:
    changes = {"SpecificCharacterSet": "ISO_IR 192", keyword: "MARKED^TEXT"}
    paths = small_series(tmp_path / "ct", slices=4, **changes)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"MARKED^TEXT", b"M\xff\xfeKED^TEXT"))
    made = make_case(paths, None, volume_of(paths), tmp_path / "results", kinds=SEG_AND_SR)
    for one in made.objects:
        with pytest.raises(ResultCheckFailed, match=f"{keyword} holds characters that could not be read"):
            verify((one, *(other for other in made.objects if other is not one)), made.findings, made.volume, paths)


def test_private_tags_of_the_source_stay_there(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct", slices=4)
    for path in paths:
        dataset = pydicom.dcmread(path)
        for group in (0x0009, 0x0011, 0x0029):
            block = dataset.private_block(group, "MAKER 1.0", create=True)
            block.add_new(0x10, "LO", "PRIVATE TEXT")
            block.add_new(0x11, "UN", b"\x01\x02\xff")
            block.add_new(0x12, "SQ", [pydicom.Dataset()])
        dataset.save_as(path)
    made = make_case(paths, None, volume_of(paths), tmp_path / "results")
    verify(made.objects, made.findings, made.volume, paths)
    for one in made.objects:
        assert not [element for element in pydicom.dcmread(one.path).iterall() if element.tag.is_private]


def loaded(paths: list[Path]) -> Volume | Image2D:
    """What imaging makes of one series of real files."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    instances = tuple(
        InstanceRef(str(one.SOPInstanceUID), str(one.SOPClassUID), path, int(one.get("NumberOfFrames") or 1))
        for one, path in zip(headers, paths, strict=True)
    )
    series = SeriesRef(str(headers[0].StudyInstanceUID), str(headers[0].SeriesInstanceUID), instances)
    image = imaging.load(series, allow_many_frames_of_reference=True)
    assert not isinstance(image, Refusal), image
    return image


def part_of(image: Volume | Image2D) -> Findings:
    """An asymmetric segment and a statement, on whatever image."""
    shape = image.shape if isinstance(image, Volume) else (1, *image.pixels.shape)
    labels = np.zeros(shape, np.uint8)
    labels[: (shape[0] + 1) // 2, shape[1] // 4 : shape[1] // 2, shape[2] // 3 : shape[2] // 2] = 1
    voxels = int(labels.sum())
    volume_ml = voxels * image.voxel_ml if isinstance(image, Volume) else 0.0
    segment = Segment(1, "Part", ABNORMAL, NODULE, (255, 0, 0), volume_ml, voxels)
    statement = Classification("Opacity", NODULE, "present", PRESENT, 0.7, 0.5)
    return Findings(MODEL, (LabelMap("parts", read_only(labels), (segment,)),), classifications=(statement,))


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the real files
@pytest.mark.parametrize("profile", ["ohif", "archive"])
@pytest.mark.parametrize(
    "name",
    [
        "ct_enhanced_2frames",
        "dx_thorax_mono1_dog",
        "dx_chest_pa_nih_effusion",
        "cr_chest_mono1_440",
        "cr_chest_pa_rsna",
    ],
)
def test_real_enhanced_and_projection_images_get_results_at_their_places(
    test_data: Path, tmp_path: Path, name: str, profile: str
) -> None:
    path = test_data / "objects" / f"{name}.dcm"
    image = loaded([path])
    findings = part_of(image)
    form = SHIPPED[profile].without_fallbacks()
    objects = build(findings, image, [path], request_for([path], profiles=(form,), kinds=SEG_AND_SR), tmp_path)
    verify(objects, findings, image, [path])
    # A viewer that goes black over a segmentation of a radiograph gets none.
    shown = isinstance(image, Volume) or profile == "archive"
    assert [one.kind for one in objects] == ([ResultKind.SEG] if shown else []) + [ResultKind.SR]
    *segmentations, report = (pydicom.dcmread(one.path) for one in objects)
    for segmentation in segmentations:
        assert int(np.count_nonzero(segmentation.pixel_array)) == findings.label_maps[0].segments[0].voxels
    assert_same_patient_and_study(objects[0].path, path)
    frames = {
        int(item.ReferencedFrameNumber)
        for element in report.iterall()
        if element.keyword == "ReferencedSOPSequence"
        for item in element.value
        if "ReferencedFrameNumber" in item
    }
    assert bool(frames) == (isinstance(image, Volume) and profile == "ohif")


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


def jittering(index: int) -> dict[str, Any]:
    """Positions and directions as some scanners round them: imaging lets such slices pass for one volume."""
    aside = (0.0, 0.008, -0.008)[index % 3]
    return {
        "ImagePositionPatient": [round(-20.5 + 10 * aside, 3), -30.25, round(-200 + 2.5 * index + aside, 3)],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0] if index % 2 else [0.9999999, 0.0004, 0, -0.0004, 0.9999999, 0],
    }


def test_slices_that_differ_in_the_last_digits_get_a_segmentation_each_frame_at_its_own_slice(tmp_path: Path) -> None:
    changes = {
        keyword: (lambda index, keyword=keyword: jittering(index)[keyword])
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient")
    }
    paths = small_series(tmp_path / "ct", **changes)
    volume = loaded(paths)
    assert isinstance(volume, Volume)
    findings = small_findings(volume)
    objects = build(findings, volume, paths, request_for(paths, kinds=SEG_AND_SR), tmp_path / "results")
    verify(objects, findings, volume, paths)
    positions = {str(one.SOPInstanceUID): one.ImagePositionPatient for one in map(pydicom.dcmread, paths)}
    for frame in pydicom.dcmread(objects[0].path).PerFrameFunctionalGroupsSequence:
        named = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        written = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(written, np.array(positions[named], float), atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # pydicom's, of the real files
@pytest.mark.parametrize("name", ["mr_prostate_adc_ax", "mr_abdomen_haste_cor"])
def test_real_mr_series_get_results_at_their_places(test_data: Path, tmp_path: Path, name: str) -> None:
    paths = sorted((test_data / name).glob("*.dcm"))
    volume = loaded(paths)
    findings = part_of(volume)
    request = request_for(paths, profiles=(SHIPPED["archive"].without_fallbacks(),), kinds=SEG_AND_SR)
    objects = build(findings, volume, paths, request, tmp_path)
    verify(objects, findings, volume, paths)
    assert [one.kind for one in objects] == [ResultKind.SEG, ResultKind.SR]
