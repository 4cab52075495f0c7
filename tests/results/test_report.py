"""The report holds the findings' numbers in the form that radiologists' viewers show."""

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.domain.equipment import CONTRIBUTION_DESCRIPTION, MANUFACTURER
from dicomnode.domain.profiles import DEFAULT_KINDS, SHIPPED, Fallback, SegForm, SrClass
from dicomnode.domain.results import Predecessor, ResultKind
from dicomnode.domain.sop_classes import LABEL_MAP_SEGMENTATION
from dicomnode.results import verify
from dicomnode.results.equipment import device_uid
from dicomnode.results.sr_terms import VIEWER_TOOL
from tests.results.cases import small_findings, small_series, volume_of
from tests.results.conftest import Case, make_case

NO_PICTURES = (ResultKind.SEG, ResultKind.SR)


def report(case: Case) -> Dataset:
    return case.of_kind(ResultKind.SR)[0]


def groups(item: Dataset) -> list[Dataset]:
    found = []
    for child in item.get("ContentSequence", []):
        if concept(child) == "125007":
            found.append(child)
        found += groups(child)
    return found


def concept(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in item else ""


def texts(item: Dataset) -> list[str]:
    found = [item.TextValue] if "TextValue" in item else []
    return found + [text for child in item.get("ContentSequence", []) for text in texts(child)]


def value_types(item: Dataset) -> set[str]:
    return {item.ValueType}.union(*(value_types(child) for child in item.get("ContentSequence", [])))


@pytest.fixture(scope="session")
def archived(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The same findings in the form for archives."""
    folder = tmp_path_factory.mktemp("archived")
    profile = SHIPPED["archive"].without_fallbacks()
    return make_case(case.paths, case.findings, case.volume, folder, profiles=(profile,), kinds=NO_PICTURES)


@pytest.mark.parametrize("form", ["case", "archived"])
def test_a_reader_of_tid_1500_finds_each_lesion_with_its_numbers_and_units(request: pytest.FixtureRequest, form: str) -> None:
    case: Case = request.getfixturevalue(form)
    document = hd.sr.Comprehensive3DSR.from_dataset(report(case))
    found = document.content.get_volumetric_roi_measurement_groups()
    assert len(found) == len(case.findings.lesions) == 2
    for group, lesion in zip(found, case.findings.lesions, strict=True):
        assert group.tracking_identifier == (VIEWER_TOOL if form == "case" else lesion.tracking_id)
        assert group.tracking_uid == lesion.tracking_uid
        assert group.finding_type.value == "27925004"
        assert group.finding_sites[0].value.value == "39607008"
        assert group.finding_sites[0].laterality.meaning.lower() == lesion.laterality
        numbers = [(one.name.meaning, one.value, one.unit.value) for one in group.get_measurements()]
        assert numbers == [
            ("Volume", pytest.approx(lesion.volume_ml, abs=0.001), "mL"),
            ("Long axis", pytest.approx(lesion.long_axis_mm, abs=0.01), "mm"),
            ("Short axis", pytest.approx(lesion.short_axis_mm, abs=0.01), "mm"),
            ("Attenuation Coefficient", pytest.approx(lesion.mean, abs=0.1), "[hnsf'U]"),
            ("Attenuation Coefficient", pytest.approx(lesion.std, abs=0.1), "[hnsf'U]"),
            ("Certainty of Finding", pytest.approx(lesion.probability * 100, abs=0.01), "%"),
        ]


def test_a_lesion_s_group_names_the_segment_of_the_same_tracking_uid(case: Case) -> None:
    segmentation = case.of_kind(ResultKind.SEG)[0]
    document = hd.sr.Comprehensive3DSR.from_dataset(report(case))
    for group in document.content.get_volumetric_roi_measurement_groups():
        reference = next(item for item in group[0].ContentSequence if concept(item) == "121191").ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        segment = segmentation.SegmentSequence[int(reference.ReferencedSegmentNumber) - 1]
        assert segment.TrackingUID == group.tracking_uid


def test_every_number_is_inferred_from_a_closed_outline_on_a_source_slice_and_a_statement_from_a_point(case: Case) -> None:
    """A statement's outline would be the slice's border, which OHIF lists as a measurement: it is a note."""
    headers = case.headers()
    for place, group in enumerate(groups(report(case))):
        numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        assert numbers
        for number in numbers:
            outline = next(item for item in number.ContentSequence if item.ValueType == "SCOORD")
            assert outline.RelationshipType == "INFERRED FROM"
            points = np.array(outline.GraphicData, float).reshape(-1, 2)
            assert (outline.GraphicType, len(points) == 1) == (("POINT", True) if place == 0 else ("POLYLINE", False))
            assert tuple(points[0]) == tuple(points[-1])
            assert (points >= 0).all()
            image = outline.ContentSequence[0]
            assert image.RelationshipType == "SELECTED FROM"
            assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID in headers


def test_an_outline_runs_around_its_lesion_on_its_key_slice(case: Case) -> None:
    lesion = case.findings.lesions[0]
    group = next(one for one in groups(report(case)) if any(text.startswith(lesion.label) for text in texts(one)))
    outline = next(item for item in group.ContentSequence if item.ValueType == "NUM").ContentSequence[-1]
    points = np.array(outline.GraphicData, float).reshape(-1, 2)
    mask = case.findings.label_maps[1].labels[lesion.key_slice_index] == 1
    rows, columns = np.nonzero(mask)
    # PS3.3 C.18.6.1.1: pixel n reaches from n to n + 1.
    assert points.min(axis=0) == pytest.approx([columns.min(), rows.min()], abs=0.51)
    assert points.max(axis=0) == pytest.approx([columns.max() + 1, rows.max() + 1], abs=0.51)
    reference = outline.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert reference == case.volume.frames[lesion.key_slice_index].sop_instance_uid


def test_the_statement_on_the_whole_image_has_value_probability_and_algorithm(case: Case) -> None:
    document = hd.sr.Comprehensive3DSR.from_dataset(report(case))
    (group,) = document.content.get_image_measurement_groups()
    assert group.finding_type.value == "27925004"
    assert [one.value for one in group.get_measurements()] == [93.0]
    (evaluation,) = group.get_qualitative_evaluations()
    assert evaluation[0].ConceptCodeSequence[0].CodeMeaning == "Present"
    assert {"chest_ct", "1.0", "DEMONSTRATION - NOT FOR CLINICAL USE"} <= set(texts(group[0]))


def test_comments_carry_the_ai_s_numbers_and_the_intended_use(case: Case) -> None:
    comments = [item.TextValue for group in groups(report(case)) for item in group.ContentSequence if concept(item) == "121106"]
    assert len(comments) == 3
    # OHIF's panel shows about fifty characters: what was said, how sure, and how large.
    assert comments[0].startswith("Suspicious nodule: present, probability 93%")
    assert comments[1].startswith(f"Nodule 1 (right) 93%: AI volume {case.findings.lesions[0].volume_ml:.2f} ml")
    assert all("DEMONSTRATION - NOT FOR CLINICAL USE" in comment for comment in comments)
    lesion = case.findings.lesions[1]
    assert any(
        f"AI volume {lesion.volume_ml:.2f} ml" in one and f"probability {lesion.probability:.0%}" in one for one in comments
    )


def test_a_negative_result_is_a_statement_with_a_number_never_an_empty_report(negative: Case) -> None:
    (group,) = groups(report(negative))
    number = next(item for item in group.ContentSequence if item.ValueType == "NUM")
    assert float(number.MeasuredValueSequence[0].NumericValue) == 8.0
    assert any(item.ValueType == "SCOORD" for item in number.ContentSequence)
    assert any("Suspicious nodule: absent" in text for text in texts(group))


def test_an_archive_gets_no_outlines_and_no_tools_of_viewers(case: Case, archived: Case) -> None:
    verify(archived.objects, archived.findings, archived.volume, archived.paths)
    assert "SCOORD" not in value_types(report(archived))
    assert not any("Cornerstone" in text for text in texts(report(archived)))
    assert "SCOORD" in value_types(report(case))
    assert report(archived).SOPInstanceUID != report(case).SOPInstanceUID
    assert " SR display - " in report(case).SeriesDescription
    assert " SR - " in report(archived).SeriesDescription


def test_destinations_of_one_study_share_what_they_want_alike(case: Case, archived: Case, tmp_path: Path) -> None:
    profiles = tuple(SHIPPED[name].without_fallbacks() for name in ("ohif", "archive", "sc-only"))
    made = make_case(case.paths, case.findings, case.volume, tmp_path, profiles=profiles)
    verify(made.objects, made.findings, made.volume, made.paths)
    of_kind = {kind: [one.profiles for one in made.objects if one.kind is kind] for kind in DEFAULT_KINDS}
    assert of_kind[ResultKind.SEG] == [("ohif", "archive")]
    assert of_kind[ResultKind.SR] == [("ohif",), ("archive",)]
    assert set(of_kind[ResultKind.SC]) == {("ohif", "archive", "sc-only")}
    alone = {one.sop_instance_uid: one.sha256 for one in (*case.objects, *archived.objects)}
    assert {one.sop_instance_uid: one.sha256 for one in made.objects} == alone


def test_a_fallback_waits_beside_the_object_whose_place_it_takes(case: Case, tmp_path: Path) -> None:
    profile = replace(
        SHIPPED["archive"],
        seg_form=SegForm.LABELMAP,
        fallbacks=(Fallback(ResultKind.SEG, SegForm.BINARY), Fallback(ResultKind.SR, SrClass.COMPREHENSIVE)),
    )
    made = make_case(case.paths, case.findings, case.volume, tmp_path, profiles=(profile,), kinds=NO_PICTURES)
    verify(made.objects, made.findings, made.volume, made.paths)
    kept = {one.sop_instance_uid: one for one in made.objects}
    first = [one for one in made.objects if one.profiles == ("archive",)]
    assert [(one.kind, one.sop_class_uid) for one in first] == [
        (ResultKind.SEG, LABEL_MAP_SEGMENTATION),
        (ResultKind.SEG, LABEL_MAP_SEGMENTATION),
        (ResultKind.SR, "1.2.840.10008.5.1.4.1.1.88.34"),
    ]
    sent = {one.sop_instance_uid for one in first}
    for refused in (LABEL_MAP_SEGMENTATION, "1.2.840.10008.5.1.4.1.1.88.34"):  # as a PACS of 2015 does
        for one in made.objects:
            if one.when_refused == refused and sent.intersection(one.replaces):
                assert one.fallback_profiles == ("archive",)
                assert {kept[uid].kind for uid in one.replaces} == {one.kind}
                sent = (sent - set(one.replaces)) | {one.sop_instance_uid}
    left = sorted((kept[uid] for uid in sent), key=lambda one: one.order)
    assert [one.sop_class_uid for one in left] == ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.33"]
    named = {str(one.value) for one in pydicom.dcmread(left[1].path).iterall() if one.keyword == "ReferencedSOPInstanceUID"}
    assert left[0].sop_instance_uid in named
    assert not named.intersection(one.sop_instance_uid for one in first)


def test_organs_alone_are_reported_by_their_volumes(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    volume = volume_of(paths)
    findings = replace(small_findings(volume, nodules=0), classifications=(), warnings=("the kernel is an unusual one",))
    made = make_case(paths, findings, volume, tmp_path / "results", kinds=NO_PICTURES)
    verify(made.objects, findings, volume, paths)
    assert "Note: the kernel is an unusual one." in texts(report(made))  # no statement carries it
    volumes = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for group in groups(report(made))
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    ]
    assert volumes == [pytest.approx(one.volume_ml, abs=0.001) for one in findings.label_maps[0].segments]


def test_findings_without_anything_become_a_text(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "ct")
    volume = volume_of(paths)
    nothing = replace(small_findings(volume, nodules=0), classifications=(), label_maps=(), warnings=("lungs not found",))
    made = make_case(paths, nothing, volume, tmp_path / "results", kinds=NO_PICTURES)
    assert not groups(report(made))
    assert any("reported no finding. Note: lungs not found" in text for text in texts(report(made)))


def test_a_lesion_without_a_segment_gets_a_planar_group_around_its_centre(case: Case, tmp_path: Path) -> None:
    first = replace(case.findings.lesions[0], segment=None)
    findings = replace(case.findings, label_maps=case.findings.label_maps[:1], lesions=(first,))
    made = make_case(case.paths, findings, case.volume, tmp_path, kinds=NO_PICTURES)
    verify(made.objects, findings, case.volume, case.paths)
    document = hd.sr.Comprehensive3DSR.from_dataset(report(made))
    (group,) = document.content.get_planar_roi_measurement_groups()
    middle = (group.roi.value.min(axis=0) + group.roi.value.max(axis=0)) / 2 - 0.5
    _, row, column, _ = np.linalg.solve(case.volume.affine, [*first.center_mm, 1])
    assert middle == pytest.approx([column, row], abs=0.2)


def test_a_new_version_names_its_predecessor_and_says_its_number(case: Case, tmp_path: Path) -> None:
    earlier = report(case)
    predecessor = Predecessor(1, earlier.SOPClassUID, earlier.SOPInstanceUID, earlier.SeriesInstanceUID)
    made = make_case(case.paths, case.findings, case.volume, tmp_path, version=2, predecessor=predecessor)
    verify(made.objects, made.findings, made.volume, made.paths)
    study = report(made).PredecessorDocumentsSequence[0]
    assert study.StudyInstanceUID == earlier.StudyInstanceUID
    series = study.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == earlier.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == earlier.SOPInstanceUID
    for one in made.objects:
        assert " v2 - DEMO, not for clinical use" in one.description


def test_every_object_names_this_node_and_the_model_s_weights_as_equipment(case: Case) -> None:
    for kind in DEFAULT_KINDS:
        for dataset in case.of_kind(kind):
            items = dataset.ContributingEquipmentSequence
            ours = [one for one in items if one.get("ContributionDescription") == CONTRIBUTION_DESCRIPTION]
            assert [one.Manufacturer for one in ours] == [MANUFACTURER]
            algorithm = next(one for one in items if "DeviceUID" in one)
            assert algorithm.DeviceUID == device_uid(case.findings.model)
            assert (algorithm.ManufacturerModelName, algorithm.SoftwareVersions) == ("chest_ct", "1.0")
            assert algorithm.ContributionDateTime[:14] == "20260304060607"
            assert "DEMO, not for clinical use" in dataset.SeriesDescription


def test_nobody_is_said_to_have_verified_it(case: Case) -> None:
    assert report(case).VerificationFlag == "UNVERIFIED"
    assert report(case).PreliminaryFlag == "PRELIMINARY"
