"""Pipelines in a row: what pixels show gates what runs; what is unlike the training is refused; the card's limits are said."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomnode import imaging
from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import HeaderSummary, Image2D, Refusal, RefusalCode, Volume
from dicomnode.engines import Pipeline, load_pipeline
from dicomnode.engines.admission import age_years, outside_the_card
from dicomnode.engines.rules import TrainedOn
from dicomnode.engines.sidecar import read_sidecar
from dicomnode.learning import distribution
from dicomnode.learning.evaluation import volume_of
from dicomnode.phantom import ThoraxSpec, thorax
from dicomnode.settings import shipped
from tests.engines.conftest import TINY, as_volume
from tests.engines.test_explaining import all_positive, resnet
from tests.engines.test_other_tasks import CLASSES, radiograph
from tests.engines.test_own_way import ONE
from tests.engines.zoo import ct_segmentation, thresholds, write_bundle

FOLDERS = [shipped("pipelines")]
CHAIN = """
[[chain]]
pipeline = "series_understanding"
require = {{ "body part" = ["{wanted}"] }}
{more}
"""


def patient(seed: int, region: str = "chest", **changed: float) -> Volume:
    spec = ThoraxSpec(seed=seed, slices=24, size=96, slice_spacing_mm=7.0, pixel_spacing_mm=4.0, region=region, **changed)  # type: ignore[arg-type]
    return volume_of(thorax(spec))


@pytest.fixture(scope="module")
def understanding() -> Pipeline:
    return load_pipeline(shipped("pipelines") / "series_understanding")


def said(pipeline: Pipeline, image: Volume | Image2D) -> dict[str, str]:
    found = pipeline.run(image)
    assert isinstance(found, Findings), found
    return {one.name: one.value for one in found.classifications}


def loaded(path: Path) -> Volume | Image2D:
    imaging.install_decoders()
    (series,) = imaging.scan([path]).series
    image = imaging.load(series)
    assert not isinstance(image, Refusal), image
    return image


def test_a_phantom_is_understood_from_its_pixels_alone(understanding: Pipeline) -> None:
    for region in ("chest", "abdomen", "head"):
        image = patient(41, region)
        nameless = replace(image, headers=HeaderSummary(modality="CT", body_part_examined="KNEE"))
        found = said(understanding, nameless)
        assert found["body part"] == region
        assert found["plane"] == "axial"


def test_an_abdomen_whose_tags_say_chest_is_seen_for_what_it_is(understanding: Pipeline, test_data: Path) -> None:
    """Study and series descriptions say "CT CH/ABD/PEL". The shipped model was trained on it too; what a model says that was
    not stands in metadata.json under real_left_out."""
    found = said(understanding, loaded(test_data / "ct_abdomen_crlm1004"))
    assert (found["body part"], found["plane"], found["contrast"]) == ("abdomen", "axial", "with contrast")


def test_a_radiograph_whose_modality_says_ct_is_seen_for_what_it_is(understanding: Pipeline, test_data: Path) -> None:
    """No training saw this one. Loading refuses it already, as a secondary capture that says CT; its pixels are judged here."""
    path = test_data / "objects" / "dx_chest_modality_says_ct.dcm"
    imaging.install_decoders()
    assert isinstance(imaging.load(imaging.scan([path]).series[0]), Refusal)
    found = said(understanding, radiograph(pydicom.dcmread(path).pixel_array))
    assert found["plane"] == "projection"
    assert found["body part"] == "chest"


def test_what_it_never_saw_gets_no_statement(understanding: Pipeline, test_data: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 1000, (12, 64, 64)).astype(np.int16)
    for image in (
        loaded(test_data / "mr_abdomen_haste_cor"),
        as_volume(noise, np.diag([5.0, 1, 1, 1]), modality="MR", unit="1"),
    ):
        found = said(understanding, image)
        assert found["body part"] == "uncertain"
        assert found["training data"] == "outside"


def with_chain(folder: Path, rules: str) -> Path:
    """The tiny chest pipeline with more in its sidecar."""
    shutil.copytree(TINY, folder)
    sidecar = folder / "pipeline.toml"
    sidecar.write_text(sidecar.read_text() + rules)
    return folder


def test_a_gate_refuses_by_what_the_pixels_show_and_says_so(tmp_path: Path) -> None:
    folder = with_chain(tmp_path / "chest", CHAIN.format(wanted="chest", more="report = true"))
    pipeline = load_pipeline(folder, device="cpu", folders=FOLDERS)
    refusal = pipeline.run(patient(42, "abdomen"))
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.NOT_THIS_REGION
    assert "abdomen (probability 0." in refusal.message or "abdomen (probability 1.00" in refusal.message
    assert "series_understanding 0.1.0" in refusal.message
    found = pipeline.run(patient(43))
    assert isinstance(found, Findings), found
    assert "body part: chest" in found.run["series_understanding"]
    assert "body part" in {one.name for one in found.classifications}
    assert found.label_maps


def test_a_gate_may_only_warn_and_a_chain_names_what_exists(tmp_path: Path) -> None:
    folder = with_chain(tmp_path / "chest", CHAIN.format(wanted="head", more='otherwise = "warn"'))
    found = load_pipeline(folder, device="cpu", folders=FOLDERS).run(patient(43))
    assert isinstance(found, Findings), found
    assert any("the pixels show another body part" in one for one in found.warnings)
    assert "body part" not in {one.name for one in found.classifications}
    lost = with_chain(tmp_path / "lost", CHAIN.format(wanted="chest", more="").replace("series_understanding", "not_there"))
    with pytest.raises(PipelineError, match="not_there"):
        load_pipeline(lost, device="cpu", folders=FOLDERS)


def test_a_second_model_reads_the_same_image_and_its_findings_are_joined(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bright", ct_segmentation(), ONE, weigh=thresholds(0.5))
    folder = with_chain(tmp_path / "chest", '[[chain]]\npipeline = "bright"\nwhen = "after"\nreport = true\n')
    found = load_pipeline(folder, device="cpu").run(patient(43))
    assert isinstance(found, Findings), found
    names = [one.name for one in found.label_maps]
    assert len(set(names)) == len(names)
    assert "segments" in names
    assert "lungs" in names


@pytest.mark.parametrize("features", ["image", "network"])
def test_an_image_unlike_those_of_the_training_is_refused(features: str, tmp_path: Path) -> None:
    table = f'[distribution]\nfeatures = "{features}"\nlayer = "layer2"\n'
    if features == "image":
        folder = with_chain(tmp_path / "chest", table)
    else:
        folder = write_bundle(tmp_path / "classes", resnet(3), CLASSES + table, task="classification", weigh=all_positive)
    fitted = load_pipeline(without_table(folder, tmp_path / "fitted"), device="cpu")
    fitted.sidecar = read_sidecar(folder)
    rows = distribution.rows_of(fitted, [patient(seed) for seed in range(50, 62)])
    arrays = distribution.fit(rows, "knn" if features == "image" else "mahalanobis")
    distribution.save(arrays, folder / "models" / "distribution.safetensors")
    pipeline = load_pipeline(folder, device="cpu")
    assert isinstance(pipeline.run(patient(70)), Findings)
    strange = patient(71)
    refusal = pipeline.run(replace(strange, pixels=np.clip(strange.pixels * -1, -1024, 3000).astype(np.int16)))
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.OUT_OF_DISTRIBUTION
    assert "unlike those that the model was trained on" in refusal.message


def without_table(folder: Path, copy: Path) -> Path:
    """The pipeline before its distribution was fitted."""
    shutil.copytree(folder, copy)
    sidecar = copy / "pipeline.toml"
    sidecar.write_text(sidecar.read_text().partition("[distribution]")[0])
    return copy


def test_ten_images_are_the_least_that_a_distribution_is_fitted_to() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        distribution.fit(np.zeros((9, 3), np.float32))


def test_an_input_outside_the_model_card_is_warned_of(tmp_path: Path) -> None:
    card = TrainedOn(
        kernels=("B3*", "STANDARD"),
        slice_thickness_mm=(0.5, 3.0),
        contrast="without",
        age_years=(18, 90),
        sexes=("F",),
        manufacturers=("SIEMENS*",),
    )
    inside = HeaderSummary("CT", convolution_kernel="B31f", slice_thickness_mm=1.0, patient_age="060Y", patient_sex="F")
    assert outside_the_card(inside, card) == ()
    assert outside_the_card(HeaderSummary("CT"), card) == ()  # silent headers
    child = HeaderSummary("CT", "", "", "B70f", 5.0, "Iomeprol", "009M", "M", manufacturer="GE")
    said_of = " / ".join(outside_the_card(child, card))
    for word in ("B70f", "5 mm thick", "contrast agent is stated", "0.75 years", "sex is M", "GE"):
        assert word in said_of
    assert [age_years(text) for text in ("045Y", "052W", "X", "")] == [45.0, pytest.approx(1.0, abs=0.01), None, None]
    folder = with_chain(tmp_path / "chest", '[trained_on]\nkernels = ["B3*"]\n')
    image = patient(43)
    sharp = replace(image, headers=HeaderSummary("CT", convolution_kernel="B70f"))
    found = load_pipeline(folder, device="cpu").run(sharp)
    assert isinstance(found, Findings)
    assert any("outside the model card: the kernel B70f" in one for one in found.warnings)


def test_a_projection_is_judged_too(understanding: Pipeline) -> None:
    assert "plane" in said(understanding, radiograph(np.random.default_rng(1).normal(100, 20, (200, 160))))
