"""Lesions from a probability map on the network's grid, measured on the source grid."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from dicomnode.domain.findings import Code
from dicomnode.engines.chest.findings import classification, lesion_map, lesion_of
from dicomnode.engines.chest.lesions import (
    DENSEST_HU,
    Candidate,
    calibrated,
    each_its_own,
    evidence_of,
    find_candidates,
    without_diffuse,
)
from dicomnode.engines.chest.lungs import lung_labels, lung_view
from dicomnode.engines.chest.sides import LEFT, RIGHT
from dicomnode.engines.sidecar import Calibration, ClassificationRules, DiffuseRule, LesionRules
from dicomnode.engines.values import Prediction
from dicomnode.imaging.resampling import Grid
from tests.engines.conftest import straight_affine

NODULE = Code("27925004", "SCT", "Nodule")
RULES = LesionRules(channel=2, category=NODULE, type=NODULE, min_diameter_mm=3.0, min_lung_contact=0.2)
NETWORK = Grid((70, 80, 110), straight_affine((1.5, 1.25, 1.25), (70, 80, 110)))
SOURCE = Grid((60, 150, 200), straight_affine((2.0, 0.7, 0.7), (60, 150, 200)))
PIXELS = np.full(SOURCE.shape, -500, dtype=np.int16)

Sphere = tuple[tuple[float, float, float], float, float]  # LPS centre, diameter, probability


def _prediction(spheres: list[Sphere], outside_lung: bool = False) -> Prediction:
    """Two box-shaped lungs left and right of x = 0, with soft-edged spheres of lesion."""
    points = NETWORK.points_mm(np.stack(np.indices(NETWORK.shape), axis=-1).astype(float))
    x, y, z = np.moveaxis(points, -1, 0)
    lung = ((np.abs(x) > 8) & (np.abs(x) < 60) & (np.abs(y) < 42) & (np.abs(z) < 45)).astype(np.float32)
    lesion = np.zeros(NETWORK.shape, dtype=np.float32)
    for center, diameter, probability in spheres:
        distance = np.linalg.norm(points - np.array(center), axis=-1)
        edge = np.clip(0.5 - (distance - diameter / 2) / 2.5, 0, 1)  # half at the surface
        np.maximum(lesion, np.where(edge > 0.5, 0.5 + (edge - 0.5) * (probability - 0.5) * 2, edge), out=lesion)
    if outside_lung:
        lung[:] = 0
        lung[:, :5] = 1
    lung = lung * (1 - lesion)
    return Prediction(np.stack([1 - lung - lesion, lung, lesion]).astype(np.float32), NETWORK)


def _candidates(spheres: list[Sphere], rules: LesionRules = RULES, outside_lung: bool = False) -> list[Candidate]:
    view = lung_view(_prediction(spheres, outside_lung), 1, 2, middle_mm=0.0)
    assert view is not None
    return find_candidates(view, PIXELS, SOURCE, rules)


@pytest.mark.parametrize("diameter", [8.0, 12.0, 20.0, 30.0])
def test_a_sphere_is_measured_within_five_percent_and_one_voxel(diameter: float) -> None:
    center = (31.0, 5.2, -7.7)
    (found,) = _candidates([(center, diameter, 0.95)])
    assert found.measures.volume_ml == pytest.approx(np.pi / 6 * diameter**3 / 1000, rel=0.05 if diameter > 10 else 0.12)
    assert found.measures.long_axis_mm == pytest.approx(diameter, abs=0.7)
    assert found.measures.short_axis_mm == pytest.approx(diameter, abs=0.7)
    assert np.allclose(found.measures.center_mm, center, atol=0.5)
    assert found.side == LEFT


def test_lesions_come_most_probable_first_then_largest_and_know_their_side() -> None:
    spheres: list[Sphere] = [((-30, 0, 0), 10, 0.7), ((30, 0, 0), 8, 0.95), ((30, 0, 30), 14, 0.95), ((30, 20, -20), 16, 0.6)]
    found = _candidates(spheres)
    assert [round(c.measures.long_axis_mm) for c in found] == [14, 8, 10, 16]
    assert [c.side for c in found] == [LEFT, LEFT, RIGHT, LEFT]


def test_neighbours_are_not_measured_together() -> None:
    found = _candidates([((30, 0, 0), 10, 0.9), ((42.5, 0, 0), 10, 0.9)])
    assert len(found) == 2
    assert all(c.measures.long_axis_mm == pytest.approx(10, abs=1.0) for c in found)


def test_a_nodule_that_touches_a_larger_lesion_is_a_lesion_of_its_own() -> None:
    found = sorted(_candidates([((25, 0, 0), 24, 0.9), ((41, 0, 0), 10, 0.9)]), key=lambda c: c.measures.volume_ml)
    assert [c.measures.long_axis_mm for c in found] == [pytest.approx(10, abs=1.5), pytest.approx(24, abs=1.5)]
    assert np.allclose(found[0].measures.center_mm, (41, 0, 0), atol=1.5)
    assert np.allclose(found[1].measures.center_mm, (25, 0, 0), atol=1.5)


def test_what_is_too_small_too_large_or_lies_in_no_lung_is_no_lesion() -> None:
    sphere: list[Sphere] = [((30, 0, 0), 10, 0.9)]
    assert len(_candidates(sphere)) == 1
    assert _candidates(sphere, RULES.model_copy(update={"min_diameter_mm": 12.0})) == []
    assert _candidates(sphere, RULES.model_copy(update={"max_diameter_mm": 8.0})) == []
    assert _candidates(sphere, outside_lung=True) == []


def test_many_pale_areas_are_a_disease_of_the_lung_and_no_nodules_but_a_few_are() -> None:
    places = [(side * 34.0, y, z) for side in (-1, 1) for y in (-20.0, 20.0) for z in (-20.0, 20.0)]
    rules = RULES.model_copy(update={"diffuse": DiffuseRule(below=-400, more_than=7)})
    eight = _candidates([(place, 10, 0.9) for place in places])  # PIXELS: everything is -500 HU
    assert without_diffuse(eight, rules) == ([], 8)
    assert without_diffuse(eight[:7], rules) == (eight[:7], 0)
    assert without_diffuse(eight, RULES) == (eight, 0)
    denser = rules.model_copy(update={"diffuse": DiffuseRule(below=-600, more_than=7)})
    assert without_diffuse(eight, denser) == (eight, 0)


def test_a_lesion_at_the_border_of_the_scan_is_measured_as_far_as_it_is_seen() -> None:
    z = SOURCE.points_mm(np.array([[SOURCE.shape[0] - 1, 0.0, 0.0]]))[0, 2]
    source = Grid((50, 150, 200), SOURCE.affine)
    view = lung_view(_prediction([((30, 0, z - 20), 12, 0.9)]), 1, 2, middle_mm=0.0)
    assert view is not None
    (found,) = find_candidates(view, PIXELS[:50], source, RULES)
    assert found.box[0].stop == 50
    assert 0 < found.measures.volume_ml < np.pi / 6 * 12**3 / 1000


def test_lungs_hold_the_lesion_voxels_and_sides() -> None:
    view = lung_view(_prediction([((30, 0, 0), 20, 0.9)]), 1, 2, middle_mm=0.0)
    assert view is not None
    labels = lung_labels(view, SOURCE, (1, 2), {LEFT: 1, RIGHT: 2})
    z, y, x = np.rint(SOURCE.indices(np.array([30.0, 0, 0]))).astype(int)
    assert labels[z, y, x] == 1
    points = SOURCE.points_mm(np.stack(np.indices(SOURCE.shape), axis=-1).astype(float))
    assert (labels[points[..., 0] < -1] != 1).all()
    assert (labels[points[..., 0] > 1] != 2).all()
    for label in (1, 2):
        assert (labels == label).sum() * SOURCE.voxel_ml == pytest.approx(52 * 84 * 90 / 1000, rel=0.04)


@pytest.mark.parametrize(("slope", "intercept"), list(product((0.5, 1.0, 2.0), (-1.0, 0.0))))
def test_calibration_is_monotone_and_stays_a_probability(slope: float, intercept: float) -> None:
    scores = [calibrated(score, Calibration(slope=slope, intercept=intercept)) for score in (0.0, 0.2, 0.5, 0.9, 1.0)]
    assert scores == sorted(scores)
    assert all(0 <= score <= 1 for score in scores)
    assert calibrated(0.7, Calibration()) == pytest.approx(0.7)


def test_a_calcified_mass_is_judged_like_a_dense_one() -> None:
    """The fit saw few candidates above 100 HU; carried on in a straight line, its weight would make nothing of them."""
    weights = Calibration(mean=-0.5, log_long_axis=1.0)
    mass = _candidates([((-30.0, 0.0, 0.0), 20.0, 0.9)])[0].measures
    soft, dense, calcified = (evidence_of(replace(mass, mean=mean), 2.5, weights) for mean in (20.0, DENSEST_HU, 400.0))
    assert soft > dense == calcified


def test_the_classification_never_contradicts_the_lesions() -> None:
    rules = ClassificationRules(name="suspicious nodule", finding=NODULE, threshold=0.5)
    (present,) = classification(_candidates([((30, 0, 0), 10, 0.9)]), 0.4, rules)
    (absent,) = classification([], 0.99, rules)
    assert (present.value, present.value_code.value) == ("present", "52101004")
    assert present.probability == pytest.approx(0.9, abs=0.05)
    assert (absent.value, absent.value_code.value) == ("absent", "272519000")
    assert absent.probability < 0.5
    assert classification([], 0.2, None) == ()


def test_tracking_uids_depend_on_series_model_and_number_alone() -> None:
    (candidate,) = _candidates([((30, 0, 0), 10, 0.9)])
    first = lesion_of(1, candidate, RULES, "tiny", ("1.2", "abc"))
    assert first == lesion_of(1, candidate, RULES, "tiny", ("1.2", "abc"))
    others = {
        lesion_of(number, candidate, RULES, "tiny", identity).tracking_uid
        for number, identity in [(2, ("1.2", "abc")), (1, ("1.3", "abc")), (1, ("1.2", "abd"))]
    }
    assert len(others | {first.tracking_uid}) == 4
    (label_map,) = lesion_map([candidate], (first,), RULES, SOURCE.shape)
    assert (label_map.labels == 1).sum() == label_map.segments[0].voxels
    assert label_map.segments[0].tracking_uid == first.tracking_uid


def test_a_voxel_between_two_lesions_that_touch_is_counted_once() -> None:
    (candidate,) = _candidates([((30, 0, 0), 10, 0.9)])
    pair = [candidate, replace(candidate, mask=np.roll(candidate.mask, 1, axis=2))]
    lesions = tuple(lesion_of(number, one, RULES, "tiny", ("1.2", "abc")) for number, one in enumerate(pair, start=1))
    (label_map,) = lesion_map(pair, lesions, RULES, SOURCE.shape)
    assert [segment.voxels for segment in label_map.segments] == [int((label_map.labels == n).sum()) for n in (1, 2)]
    assert label_map.segments[0].voxels == int(candidate.mask.sum())


def test_a_lesion_that_shares_voxels_with_a_more_probable_one_is_measured_on_its_own_alone() -> None:
    """Else the report's volume is larger than the segment's, and contradicts the segmentation."""
    large, small = _candidates([((30, 0, 0), 10, 0.9), ((50, 0, 0), 10, 0.9)])
    z, y, x = (part.start for part in large.box)
    moved = tuple(slice(start + step, start + step + size)
                  for start, step, size in zip((z, y, x), (1, 2, 6), small.mask.shape, strict=True))  # fmt: skip
    pair = [large, replace(small, box=(moved[0], moved[1], moved[2]))]
    first, second = each_its_own(pair, PIXELS, SOURCE)
    assert first is large
    assert second.mask.sum() < small.mask.sum()
    pair = [first, second]
    lesions = tuple(lesion_of(number, one, RULES, "tiny", ("1.2", "abc")) for number, one in enumerate(pair, start=1))
    (label_map,) = lesion_map(pair, lesions, RULES, SOURCE.shape)
    for lesion, segment in zip(lesions, label_map.segments, strict=True):
        assert int((label_map.labels == segment.number).sum()) == segment.voxels
        assert lesion.volume_ml == pytest.approx(segment.voxels * SOURCE.voxel_ml)
    assert sum(segment.voxels for segment in label_map.segments) < large.mask.sum() + small.mask.sum()
    assert each_its_own([large, large], PIXELS, SOURCE) == [large]  # nothing is left of the second
    apart = [large, small]
    assert each_its_own(apart, PIXELS, SOURCE) == apart
