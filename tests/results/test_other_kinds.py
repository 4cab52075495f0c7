"""What a route may ask for beside SEG, SR and SC: each says the same as the findings, read back by something else."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from dicomnode.domain.errors import ResultCheckFailed
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Volume
from dicomnode.domain.profiles import Profile, ResultKind
from dicomnode.domain.results import ResultObject
from dicomnode.results import build, verify
from dicomnode.results.context import make_context
from dicomnode.results.outlines import key_slices_of
from dicomnode.results.parametric_map import STORED, envelope, frame_order
from dicomnode.results.pictures import slices_with_findings
from dicomnode.results.source import read_sources
from tests.results.cases import request_for, small_findings, small_series, volume_of, with_everything

ALL = Profile("all", kinds=tuple(ResultKind), fallbacks=())


@dataclass(frozen=True)
class Made:
    paths: list[Path]
    volume: Volume
    findings: Findings
    objects: tuple[ResultObject, ...]

    def of(self, kind: ResultKind) -> list[Path]:
        return [one.path for one in self.objects if one.kind is kind]

    def only(self, kind: ResultKind) -> Dataset:
        (path,) = self.of(kind)
        return pydicom.dcmread(path)


def make(folder: Path, findings: Findings | None = None, **request: object) -> Made:
    paths = small_series(folder / "ct")
    volume = volume_of(paths)
    found = findings or with_everything(volume, small_findings(volume))
    wanted = {"kinds": tuple(ResultKind), "profiles": (ALL,), **request}
    objects = build(found, volume, paths, request_for(paths, **wanted), folder / "results")
    verify(objects, found, volume, paths)
    return Made(paths, volume, found, objects)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("kinds"))


# --- GSPS


def test_a_presentation_state_draws_on_every_slice_with_findings(made: Made) -> None:
    state = made.only(ResultKind.GSPS)
    slices = {frame.sop_instance_uid: index for index, frame in enumerate(made.volume.frames)}
    drawn = {
        slices[one.ReferencedSOPInstanceUID] for item in state.GraphicAnnotationSequence for one in item.ReferencedImageSequence
    }
    assert drawn == set(slices_with_findings(made.findings, len(slices)))


def test_its_curves_lie_around_the_lesion_and_carry_its_tracking_uid(made: Made) -> None:
    state = made.only(ResultKind.GSPS)
    lesion = made.findings.lesions[0]
    on_slice = made.volume.frames[lesion.key_slice_index].sop_instance_uid
    curves = [
        np.reshape(graphic.GraphicData, (-1, 2))
        for item in state.GraphicAnnotationSequence
        if item.ReferencedImageSequence[0].ReferencedSOPInstanceUID == on_slice
        for graphic in item.get("GraphicObjectSequence", [])
        if graphic.get("TrackingUID") == lesion.tracking_uid
    ]
    (curve,) = curves
    rows, columns = np.nonzero(made.findings.label_maps[1].labels[lesion.key_slice_index] == 1)
    assert (curve[0] == curve[-1]).all()
    np.testing.assert_allclose(curve.min(axis=0), (columns.min(), rows.min()), atol=0.51)
    np.testing.assert_allclose(curve.max(axis=0), (columns.max() + 1, rows.max() + 1), atol=0.51)


def test_it_says_what_it_may_be_used_for_and_shows_the_source_s_window(made: Made) -> None:
    state = made.only(ResultKind.GSPS)
    texts = {
        text.UnformattedTextValue for item in state.GraphicAnnotationSequence for text in item.get("TextObjectSequence", [])
    }
    assert any("NOT FOR CLINICAL USE" in text for text in texts)
    assert {"Nodule 1  93%", "Box 1  71%"} <= texts
    window = state.SoftcopyVOILUTSequence[0]
    assert (float(window.WindowCenter), float(window.WindowWidth)) == (-600, 1500)
    assert (float(state.RescaleIntercept), float(state.RescaleSlope)) == (-1024, 1)


# --- key objects


def test_key_objects_are_the_key_images_and_the_captures_of_the_same_set(made: Made) -> None:
    selection = made.only(ResultKind.KOS)
    named = {
        one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in selection.ContentSequence if one.ValueType == "IMAGE"
    }
    frames = made.volume.frames
    images = {frames[index].sop_instance_uid for index in key_slices_of(made.findings, len(frames))}
    captures = {one.sop_instance_uid for one in made.objects if one.kind is ResultKind.SC}
    assert named == images | captures
    assert {lesion.key_slice_index for lesion in made.findings.lesions} <= set(key_slices_of(made.findings, len(frames)))


def test_where_nothing_was_found_there_are_no_key_images(tmp_path: Path) -> None:
    paths = small_series(tmp_path / "one")
    negative = make(tmp_path, small_findings(volume_of(paths), nodules=0), kinds=(ResultKind.KOS, ResultKind.GSPS))
    assert not negative.objects


# --- parametric map


def test_a_parametric_map_holds_the_heat_map_slice_by_slice_where_its_slices_lie(made: Made) -> None:
    parametric = made.only(ResultKind.PARAMETRIC_MAP)
    values = made.findings.heatmaps[0].values
    heights = [
        float(one.PlanePositionSequence[0].ImagePositionPatient[2]) for one in parametric.PerFrameFunctionalGroupsSequence
    ]
    slice_heights = [(made.volume.affine @ (index, 0, 0, 1))[2] for index in range(len(values))]
    for frame, height in zip(parametric.pixel_array, heights, strict=True):
        np.testing.assert_array_equal(frame, values[int(np.argmin(np.abs(np.array(slice_heights) - height)))])
    mapping = parametric.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert float(mapping.RealWorldValueSlope) == pytest.approx(1 / 255)


def test_its_bytes_are_those_of_highdicom_s_own(made: Made, tmp_path: Path) -> None:
    request = request_for(made.paths, kinds=tuple(ResultKind), profiles=(ALL,))
    sources = read_sources(made.paths, made.volume)
    context = make_context(made.findings, sources, request)
    heat_map = made.findings.heatmaps[0]
    theirs = envelope(context, heat_map, made.volume, heat_map.values.astype(STORED), 1, list(sources.headers))
    ours = made.only(ResultKind.PARAMETRIC_MAP)
    assert bytes(ours.PixelData) == bytes(theirs.PixelData)
    assert sorted(one for one in frame_order(theirs, sources) if one is not None) == list(range(len(heat_map.values)))
    clock = {"InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "SeriesDate", "SeriesTime"}
    written = tmp_path / "theirs.dcm"
    theirs.save_as(written, enforce_file_format=True)
    again = pydicom.dcmread(written)
    differing = {one.keyword for one in ours if one.keyword not in clock and again.get(one.tag) != one}
    assert differing <= {"DimensionOrganizationSequence", "DimensionIndexSequence", "ContributingEquipmentSequence"}


def test_a_parametric_map_with_another_value_is_held(made: Made, tmp_path: Path) -> None:
    heat_map = made.findings.heatmaps[0]
    values = np.array(heat_map.values)
    values[3, 5, 7] ^= 1
    other = replace(made.findings, heatmaps=(replace(heat_map, values=values),))
    maps = [one for one in made.objects if one.kind is ResultKind.PARAMETRIC_MAP]
    with pytest.raises(ResultCheckFailed, match="PM read back"):
        verify(maps, other, made.volume, made.paths)


def lies_elsewhere(dataset: Dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient[0] += 0.7


def lies_in_another_space(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = "1.2.3"


@pytest.mark.parametrize(
    ("change", "words"), [(lies_elsewhere, "PM lies elsewhere"), (lies_in_another_space, "another frame of reference")]
)
def test_a_parametric_map_that_lies_elsewhere_is_held(
    made: Made, tmp_path: Path, change: Callable[[Dataset], None], words: str
) -> None:
    dataset = made.only(ResultKind.PARAMETRIC_MAP)
    (one,) = [each for each in made.objects if each.kind is ResultKind.PARAMETRIC_MAP]
    change(dataset)
    path = tmp_path / "changed.dcm"
    dataset.save_as(path)
    content = path.read_bytes()
    wrong = replace(one, path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    with pytest.raises(ResultCheckFailed, match=words):
        verify([wrong], made.findings, made.volume, made.paths)


# --- PDF


@pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="pdftoppm is not installed — apt-get install poppler-utils")
def test_a_second_reader_shows_the_summary_page_in_the_pdf(made: Made, tmp_path: Path) -> None:
    document = made.only(ResultKind.PDF)
    content = bytes(document.EncapsulatedDocument)[: document.EncapsulatedDocumentLength]
    (tmp_path / "page.pdf").write_bytes(content)
    subprocess.run(["pdftoppm", "-r", "123.8", "-png", tmp_path / "page.pdf", tmp_path / "page"], check=True)
    (shown,) = tmp_path.glob("page*.png")
    summary = min((pydicom.dcmread(path) for path in made.of(ResultKind.SC)), key=lambda one: int(one.InstanceNumber))
    page = np.asarray(Image.open(shown).convert("RGB").resize((256, 256))).astype(int)
    expected = np.asarray(Image.fromarray(summary.pixel_array).resize((256, 256))).astype(int)
    assert np.abs(page - expected).mean() < 3
    assert (document.BurnedInAnnotation, document.DocumentTitle) == ("NO", "AI result: chest_ct 1.0")


# --- FHIR


def test_a_fhir_bundle_is_valid_and_says_what_was_found(made: Made) -> None:
    from fhir.resources.R4B.bundle import Bundle

    (path,) = made.of(ResultKind.FHIR)
    bundle = Bundle.model_validate_json(path.read_bytes())
    resources = [entry.resource for entry in bundle.entry]
    report = next(one for one in resources if one.get_resource_type() == "DiagnosticReport")
    observations = [one for one in resources if one.get_resource_type() == "Observation"]
    assert report.status == "preliminary"
    assert "NOT FOR CLINICAL USE" in report.conclusion
    assert len(report.result) == len(observations) == 6  # a statement, two nodules, a box, two lungs
    lesion = made.findings.lesions[0]
    nodule = next(one for one in observations if one.code.text == lesion.label)
    assert nodule.identifier[0].value == f"urn:oid:{lesion.tracking_uid}"
    assert (nodule.bodySite.coding[0].code, nodule.bodySite.text) == ("39607008", "Lung (right)")
    assert float(nodule.component[0].valueQuantity.value) == pytest.approx(lesion.volume_ml, abs=1e-4)
    assert report.identifier[0].value == f"urn:oid:{made.only(ResultKind.SR).SOPInstanceUID}"


def test_a_wrong_fhir_bundle_is_refused_by_the_same_validator(made: Made) -> None:
    from fhir.resources.R4B.bundle import Bundle
    from pydantic import ValidationError

    (path,) = made.of(ResultKind.FHIR)
    broken = json.loads(path.read_bytes())
    del broken["entry"][1]["resource"]["code"]
    with pytest.raises(ValidationError):
        Bundle.model_validate(broken)


def test_a_fhir_bundle_whose_numbers_are_not_the_findings_is_held(made: Made) -> None:
    bundles = [one for one in made.objects if one.kind is ResultKind.FHIR]
    lesion = made.findings.lesions[0]
    bigger = replace(made.findings, lesions=(replace(lesion, volume_ml=lesion.volume_ml * 2), *made.findings.lesions[1:]))
    with pytest.raises(ResultCheckFailed, match="FHIR volumes"):
        verify(bundles, bigger, made.volume, made.paths)


# --- all of them


def test_every_kind_has_the_same_bytes_when_built_again(made: Made, tmp_path: Path) -> None:
    objects = build(
        made.findings, made.volume, made.paths,
        request_for(made.paths, kinds=tuple(ResultKind), profiles=(ALL,)), tmp_path,
    )  # fmt: skip
    assert {one.kind for one in objects} == set(ResultKind)
    assert [(one.sop_instance_uid, one.sha256) for one in objects] == [
        (one.sop_instance_uid, one.sha256) for one in made.objects
    ]
