"""A volume through a whole pipeline: geometry, refusals, determinism."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import FrameRef, HeaderSummary, Image2D, Refusal, RefusalCode, SpacingOrigin, Volume, read_only
from dicomnode.engines import Pipeline, load_pipeline
from dicomnode.phantom import NoduleSpec, Phantom, ThoraxSpec, thorax
from tests.engines.conftest import TINY, as_volume

NODULE = NoduleSpec((-65.0, 25.0, 10.0), 14.0, hu=60.0)  # in the right lung, behind


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return thorax(
        ThoraxSpec(seed=7, slices=40, size=96, slice_spacing_mm=6.0, pixel_spacing_mm=4.0, nodules=(NODULE,), noise_hu=8.0)
    )


@pytest.fixture(scope="module")
def findings(tiny: Pipeline, phantom: Phantom) -> Findings:
    found = tiny.run(as_volume(phantom.hu.copy(), phantom.affine))
    assert isinstance(found, Findings)
    return found


def _nodule_of(found: Findings) -> Any:
    return min(found.lesions, key=lambda lesion: float(np.linalg.norm(np.array(lesion.center_mm) - NODULE.center_mm)))


def test_lungs_and_the_planted_nodule_are_found_where_they_are(findings: Findings, phantom: Phantom) -> None:
    lungs, lesions = findings.label_maps
    assert [segment.label for segment in lungs.segments] == ["Left lung", "Right lung"]
    for number in (1, 2):
        ours, truth = lungs.labels == number, (phantom.labels == number) | ((phantom.labels == 3) & (number == 2))
        assert 2 * (ours & truth).sum() / (ours.sum() + truth.sum()) > 0.85
    nodule = _nodule_of(findings)
    assert np.linalg.norm(np.array(nodule.center_mm) - NODULE.center_mm) < 5
    assert nodule.laterality == "right"
    assert lesions.segments[0].label == "Nodule 1"
    assert [segment.number for segment in lesions.segments] == list(range(1, len(findings.lesions) + 1))


def test_findings_are_complete_and_say_what_made_them(findings: Findings, phantom: Phantom) -> None:
    assert findings.model.name == "tiny"
    assert findings.model.demonstration
    assert len(findings.model.digest) == 64
    assert set(findings.timings_s) == {"preprocess", "forward", "postprocess"}
    (statement,) = findings.classifications
    assert (statement.name, statement.value) == ("suspicious nodule", "present")
    assert statement.probability == max(lesion.probability for lesion in findings.lesions)
    (heat,) = findings.heatmaps
    assert heat.values.shape == phantom.hu.shape
    for label_map in findings.label_maps:
        assert label_map.labels.shape == phantom.hu.shape
        assert not label_map.labels.flags.writeable
        for segment in label_map.segments:
            assert segment.voxels == (label_map.labels == segment.number).sum()


def test_the_same_input_gives_the_same_findings(tiny: Pipeline, findings: Findings, phantom: Phantom) -> None:
    again = tiny.run(as_volume(phantom.hu.copy(), phantom.affine))
    assert isinstance(again, Findings)
    assert again.lesions == findings.lesions
    assert again.classifications == findings.classifications
    for ours, theirs in zip(again.label_maps, findings.label_maps, strict=True):
        assert np.array_equal(ours.labels, theirs.labels)
        assert ours.segments == theirs.segments


def _turned(phantom: Phantom, order: tuple[int, int, int], flips: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The same patient, stored with its axes in another order and direction."""
    pixels, affine = phantom.hu.transpose(order), phantom.affine[:, [*order, 3]].copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (pixels.shape[axis] - 1)
        affine[:3, axis] *= -1
        pixels = np.flip(pixels, axis)
    return np.ascontiguousarray(pixels), affine


@pytest.mark.parametrize(
    ("order", "flips"), list(zip(permutations(range(3)), [(), (0,), (1, 2), (2,), (0, 1, 2), (1,)], strict=True))
)
def test_a_patient_in_any_orientation_comes_back_unmirrored_and_unshifted(
    order: tuple[int, int, int], flips: tuple[int, ...], tiny: Pipeline, findings: Findings, phantom: Phantom
) -> None:
    pixels, affine = _turned(phantom, order, flips)
    found = tiny.run(as_volume(pixels, affine))
    assert isinstance(found, Findings)
    expected, nodule = _nodule_of(findings), _nodule_of(found)
    assert np.allclose(nodule.center_mm, expected.center_mm, atol=0.5)
    assert nodule.laterality == "right"
    assert nodule.volume_ml == pytest.approx(expected.volume_ml, rel=0.02)
    labels = found.label_maps[0].labels
    back = np.flip(labels, flips).transpose(np.argsort(order))
    assert (back != findings.label_maps[0].labels).mean() < 1e-4
    assert pixels[nodule.segment[1] == found.label_maps[1].labels].mean() > -200


def test_an_oblique_table_turns_the_findings_with_the_patient(tiny: Pipeline, findings: Findings, phantom: Phantom) -> None:
    angle = np.deg2rad(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = phantom.affine.copy()
    affine[:3] = turn @ affine[:3]
    found = tiny.run(as_volume(phantom.hu.copy(), affine))
    assert isinstance(found, Findings)
    expected = turn @ np.array(_nodule_of(findings).center_mm)
    assert min(float(np.linalg.norm(np.array(lesion.center_mm) - expected)) for lesion in found.lesions) < 0.5
    assert np.array_equal(found.label_maps[0].labels, findings.label_maps[0].labels)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda p: as_volume(p.hu.copy(), p.affine, modality="MR"), RefusalCode.WRONG_MODALITY),
        (lambda p: as_volume(p.hu.copy(), p.affine, unit="g/ml"), RefusalCode.OUT_OF_DISTRIBUTION),
        (lambda p: as_volume(p.hu[20:26].copy(), p.affine), RefusalCode.TOO_FEW),
        (lambda p: as_volume(p.hu[20:28].copy(), p.affine @ np.diag([0.5, 1, 1, 1])), RefusalCode.TOO_FEW),
        (lambda p: as_volume(p.hu.copy(), p.affine @ np.diag([2.5, 1, 1, 1])), RefusalCode.OUT_OF_DISTRIBUTION),
        (lambda p: as_volume((p.hu + 1024).astype(np.int16), p.affine), RefusalCode.OUT_OF_DISTRIBUTION),
    ],
    ids=["another modality", "another unit", "too few slices", "too short", "slices too far apart", "no Hounsfield units"],
)
def test_what_the_pipeline_does_not_take_is_refused_by_name(
    make: Callable[[Phantom], Volume], code: RefusalCode, tiny: Pipeline, phantom: Phantom
) -> None:
    refusal = tiny.run(make(phantom))
    assert isinstance(refusal, Refusal)
    assert refusal.code is code
    assert refusal.message
    assert refusal.remedy


def test_a_radiograph_that_calls_itself_ct_is_refused(tiny: Pipeline) -> None:
    image = Image2D(
        read_only(np.zeros((64, 64), dtype=np.uint16)),
        None,
        SpacingOrigin.NONE,
        FrameRef("1.2", "1.3"),
        HeaderSummary("CT"),
        "1",
        "2",
    )
    refusal = tiny.run(image)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.UNSUPPORTED_CLASS


@pytest.mark.parametrize("region", ["abdomen", "head"])
def test_a_phantom_of_another_region_is_refused(region: Any, tiny: Pipeline) -> None:
    other = thorax(ThoraxSpec(seed=2, region=region, slices=30, size=128, slice_spacing_mm=5.0, pixel_spacing_mm=3.0))
    refusal = tiny.run(as_volume(other.hu, other.affine))
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.NOT_THIS_REGION


def test_thick_slices_are_processed_with_a_warning_that_travels(tiny: Pipeline, phantom: Phantom) -> None:
    found = tiny.run(as_volume(phantom.hu.copy(), phantom.affine @ np.diag([1.5, 1, 1, 1])))
    assert isinstance(found, Findings)
    assert any("9.0 mm apart" in warning for warning in found.warnings)


def test_fast_says_the_same_as_exact_within_its_promise(bundle: Path, findings: Findings, phantom: Phantom) -> None:
    sidecar = bundle / "pipeline.toml"
    sidecar.write_text(sidecar.read_text() + "\n[fast]\nbfloat16 = true\ncrop_margin_mm = 30.0\nwhole_volume_divisor = 4\n")
    found = load_pipeline(bundle, device="cpu").run(as_volume(phantom.hu.copy(), phantom.affine), speed="fast")
    assert isinstance(found, Findings)
    ours, exact = found.label_maps[0].labels > 0, findings.label_maps[0].labels > 0
    assert 2 * (ours & exact).sum() / (ours.sum() + exact.sum()) > 0.99


def test_unsigned_pixels_without_negative_values_end_in_a_refusal(tiny: Pipeline, phantom: Phantom) -> None:
    refusal = tiny.run(as_volume((phantom.hu.astype(np.int32) + 1024).astype(np.uint16), phantom.affine))
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.OUT_OF_DISTRIBUTION


def test_float_pixels_say_the_same_as_integers(tiny: Pipeline, findings: Findings, phantom: Phantom) -> None:
    found = tiny.run(as_volume(phantom.hu.astype(np.float32), phantom.affine))
    assert isinstance(found, Findings)
    assert np.array_equal(found.label_maps[0].labels, findings.label_maps[0].labels)


def test_progress_runs_forward_to_the_end(tiny: Pipeline, phantom: Phantom) -> None:
    told: list[tuple[str, float]] = []
    tiny.run(as_volume(phantom.hu.copy(), phantom.affine), progress=lambda what, share: told.append((what, share)))
    assert [what for what, _ in told] == ["preprocess", "forward", "postprocess", "postprocess"]
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_plain_segmentation_bundle_needs_no_chest(bundle: Path, phantom: Phantom) -> None:
    (bundle / "pipeline.toml").write_text(
        """
        name = "organs"
        version = "0.2.0"
        title = "Plain segments"
        task = "segmentation"
        postprocess = "segments"
        manufacturer = "somebody"
        intended_use = "test"
        demonstration = true
        [input]
        modality = "CT"
        [[segments]]
        label = "Dark"
        channel = 1
        category = ["91723000", "SCT", "Anatomical Structure"]
        type = ["39607008", "SCT", "Lung"]
        color = [1, 2, 3]
        """
    )
    found = load_pipeline(bundle, device="cpu").run(as_volume(phantom.hu.copy(), phantom.affine))
    assert isinstance(found, Findings)
    (label_map,) = found.label_maps
    assert [segment.label for segment in label_map.segments] == ["Dark"]
    lungs = (phantom.labels == 1) | (phantom.labels == 2)
    assert (label_map.labels[lungs] == 1).mean() > 0.8
    assert found.lesions == ()


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(Exception, match="device") as raised:
        load_pipeline(TINY, device="quantum")
    assert "auto" in str(raised.value)
