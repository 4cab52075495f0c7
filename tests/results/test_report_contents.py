"""What a reader of TID 1500 looks for beside the numbers: who observed, which procedure, which images, where in the body."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from dicomnode.domain.findings import Code, Findings
from dicomnode.domain.profiles import SHIPPED, ResultKind
from dicomnode.results import verify
from dicomnode.results.equipment import device_uid
from tests.results.cases import small_findings, small_series, volume_of
from tests.results.conftest import Case, make_case
from tests.results.test_report import concept, groups, report, texts

SEG_AND_SR = (ResultKind.SEG, ResultKind.SR)
PLAIN = SHIPPED["archive"].without_fallbacks()
UPPER_LOBE = Code("45653009", "SCT", "Upper lobe of right lung")


def items(item: Dataset, wanted: str) -> list[Dataset]:
    """Content items of this concept at any depth."""
    below = [one for child in item.get("ContentSequence", []) for one in items(child, wanted)]
    return [item, *below] if concept(item) == wanted else below


def code_of(item: Dataset) -> tuple[str, str]:
    named = item.ConceptCodeSequence[0]
    return str(named.CodeValue), str(named.CodingSchemeDesignator)


def made_on(folder: Path, findings: Findings | None = None, *, slices: int = 6, profile: Any = PLAIN, **changes: Any) -> Case:
    paths = small_series(folder / "ct", slices=slices, **changes)
    made = make_case(paths, findings, volume_of(paths), folder / "results", kinds=SEG_AND_SR, profiles=(profile,))
    verify(made.objects, made.findings, made.volume, made.paths)
    return made


def test_the_observer_is_the_algorithm_as_a_device(case: Case) -> None:
    root = report(case)
    model = case.findings.model
    assert [code_of(one) for one in items(root, "121005")] == [("121007", "DCM")]
    assert [str(one.UID) for one in items(root, "121012")] == [device_uid(model)]
    said = {wanted: [one.TextValue for one in items(root, wanted)] for wanted in ("121014", "121015", "121016")}
    assert said == {"121014": [model.manufacturer], "121015": [model.name], "121016": [model.digest[:16]]}


@pytest.mark.parametrize(
    ("own", "modality", "expected"),
    [
        (("RPID16", "RADLEX", "CT chest with contrast"), "CT", ("RPID16", "RADLEX")),
        (None, "CT", ("25045-6", "LN")),
        (None, "MR", ("25056-3", "LN")),
    ],
    ids=["the source's own", "CT", "MR"],
)
def test_the_procedure_reported_is_the_imaging_procedure(
    tmp_path: Path, own: tuple[str, str, str] | None, modality: str, expected: tuple[str, str]
) -> None:
    code = Dataset()
    if own:
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = own
    changes = {"ProcedureCodeSequence": DicomSequence([code])} if own else {}
    made = made_on(tmp_path, Modality=modality, **changes)
    assert [code_of(one) for one in items(report(made), "121058")] == [expected]


def test_the_image_library_names_every_image_with_its_geometry(tmp_path: Path) -> None:
    made = made_on(tmp_path)
    (library,) = items(report(made), "111028")
    named = {str(one.value) for one in library.iterall() if one.keyword == "ReferencedSOPInstanceUID"}
    assert named == set(made.headers())
    assert {code_of(one) for one in items(library, "121139")} == {("CT", "DCM")}
    assert len(items(library, "110901")) == 6  # Image Position (Patient) X
    assert not any("Image library" in text for text in texts(report(made)))


def test_a_library_that_would_cost_seconds_holds_the_key_images_and_says_so(tmp_path: Path) -> None:
    made = made_on(tmp_path, slices=40)
    (library,) = items(report(made), "111028")
    named = {str(one.value) for one in library.iterall() if one.keyword == "ReferencedSOPInstanceUID"}
    keys = {made.volume.frames[lesion.key_slice_index].sop_instance_uid for lesion in made.findings.lesions}
    assert named == keys
    assert "Image library: 2 of 40 images shown (key images)." in texts(report(made))


def test_all_units_are_ucum_s(case: Case) -> None:
    units = [
        (str(unit.CodingSchemeDesignator), str(unit.CodeValue))
        for element in report(case).iterall()
        if element.keyword == "MeasurementUnitsCodeSequence"
        for unit in element.value
    ]
    assert {scheme for scheme, _ in units} == {"UCUM"}
    assert {"mL", "mm", "[hnsf'U]", "%"} <= {value for _, value in units}


def test_a_lobe_that_the_model_knows_is_the_finding_s_site(case: Case, tmp_path: Path) -> None:
    lungs, nodules = case.findings.label_maps
    in_lobe = replace(nodules, segments=(replace(nodules.segments[0], anatomy=UPPER_LOBE), *nodules.segments[1:]))
    findings = replace(case.findings, label_maps=(lungs, in_lobe))
    made = make_case(case.paths, findings, case.volume, tmp_path, kinds=SEG_AND_SR)
    verify(made.objects, findings, case.volume, case.paths)
    sites = [code_of(one) for group in groups(report(made)) for one in items(group, "363698007")]
    assert sites == [("45653009", "SCT"), ("39607008", "SCT")]
    segment = made.of_kind(ResultKind.SEG)[0].SegmentSequence[2]
    assert segment.AnatomicRegionSequence[0].CodeValue == "45653009"


def test_the_side_of_a_lesion_without_a_segment_is_coded_too(case: Case, tmp_path: Path) -> None:
    lesions = tuple(replace(one, segment=None) for one in case.findings.lesions)
    findings = replace(case.findings, label_maps=case.findings.label_maps[:1], lesions=lesions)
    made = make_case(case.paths, findings, case.volume, tmp_path, kinds=SEG_AND_SR)
    verify(made.objects, findings, case.volume, case.paths)
    sites = [one for group in groups(report(made)) for one in items(group, "363698007")]
    assert [code_of(one)[0] for one in sites] == ["816094009", "816094009"]  # the examined region: chest (PS3.16 Annex L)
    sides = [one.ConceptCodeSequence[0].CodeMeaning.lower() for site in sites for one in items(site, "272741003")]
    assert sides == [lesion.laterality for lesion in lesions]


def test_the_default_profile_makes_one_series_each_of_seg_sr_and_sc(case: Case) -> None:
    series = {kind: {one.series_instance_uid for one in case.objects if one.kind is kind} for kind in ResultKind}
    assert {str(kind): len(uids) for kind, uids in series.items() if uids} == {"SEG": 1, "SR": 1, "SC": 1}
    assert len(set().union(*series.values())) == 3


def test_a_report_of_a_statement_alone_shows_on_a_projection_too(tmp_path: Path) -> None:
    """A point lies on a radiograph as on a slice."""
    from tests.results.test_projections import made_of, radiograph

    path, image = radiograph(tmp_path / "dx")
    volume = volume_of(small_series(tmp_path / "ct", slices=3))
    findings = replace(small_findings(volume, nodules=0), label_maps=())
    (written,), _ = made_of(findings, path, image, tmp_path / "results")
    (group,) = groups(written)
    (number,) = (item for item in group.ContentSequence if item.ValueType == "NUM")
    point = next(item for item in number.ContentSequence if item.ValueType == "SCOORD")
    column, row = (float(value) for value in point.GraphicData)
    assert 0 < column < image.pixels.shape[1]
    assert 0 < row < image.pixels.shape[0]
