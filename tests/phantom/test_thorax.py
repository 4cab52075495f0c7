"""What the phantom promises of its voxels and its truth."""

import numpy as np
import pytest

from dicomnode.phantom import NoduleSpec, Phantom, ThoraxSpec, small_thorax, thorax


def coarse(**changes: object) -> ThoraxSpec:
    return ThoraxSpec(**{"slices": 40, "size": 160, "slice_spacing_mm": 6.0, "pixel_spacing_mm": 2.4, "nodules": (), **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def healthy() -> Phantom:
    return thorax(coarse(seed=4))


def test_the_same_spec_gives_the_same_voxels_and_another_seed_another_patient() -> None:
    one, again, other = small_thorax(5), small_thorax(5), small_thorax(6)
    assert np.array_equal(one.hu, again.hu)
    assert np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.labels, other.labels)


def test_the_affine_puts_the_middle_voxel_where_the_spec_says() -> None:
    phantom = thorax(coarse(seed=1, center_offset_mm=(10.0, -5.0, 20.0), size=128))
    z, y, x = ((size - 1) / 2 for size in phantom.hu.shape)
    assert phantom.affine @ (z, y, x, 1) == pytest.approx((10.0, -5.0, 20.0 - 8.0, 1.0))
    assert np.linalg.norm(phantom.affine[:3, :3], axis=0) == pytest.approx(phantom.spacing_mm)


def test_the_left_lung_lies_at_positive_x_and_both_lungs_are_as_large_as_adults_lungs(healthy: Phantom) -> None:
    voxel_ml = np.prod(healthy.spacing_mm) / 1000
    for label, side in ((1, 1), (2, -1)):
        where = np.argwhere(healthy.labels == label)
        x_mm = (healthy.affine @ (*where.mean(axis=0), 1))[0]
        assert side * x_mm > 30
        assert 700 < len(where) * voxel_ml < 4500


def test_labelled_lung_is_aerated_and_the_rest_of_the_body_is_not(healthy: Phantom) -> None:
    lung = healthy.labels > 0
    assert np.median(healthy.hu[lung]) < -700
    middle = healthy.hu[:, 60:100, 60:100]
    assert np.mean(middle[healthy.labels[:, 60:100, 60:100] == 0] > -300) > 0.8


def test_a_planted_nodule_is_where_and_as_large_and_as_dense_as_asked() -> None:
    asked = NoduleSpec(center_mm=(75.0, 10.0, -8.0), diameter_mm=24.0, hu=60.0)
    phantom = thorax(
        ThoraxSpec(seed=2, slices=20, size=256, slice_spacing_mm=3.0, pixel_spacing_mm=1.5, nodules=(asked,), noise_hu=0.0)
    )
    (nodule,) = phantom.nodules
    assert nodule.center_mm == pytest.approx(asked.center_mm, abs=3.0)
    assert nodule.diameter_mm == pytest.approx(24.0, rel=0.15)
    inside = phantom.hu[phantom.labels == nodule.label]
    assert np.median(inside) == pytest.approx(60.0, abs=40)
    counted_ml = np.count_nonzero(phantom.labels == nodule.label) * np.prod(phantom.spacing_mm) / 1000
    assert nodule.volume_ml == pytest.approx(counted_ml, rel=0.15)


def test_nodules_drawn_by_the_seed_lie_in_the_lungs_and_apart() -> None:
    phantom = thorax(coarse(seed=11, nodules=None, nodule_count=6))
    healthy = thorax(coarse(seed=11, nodules=()))
    assert len(phantom.nodules) >= 3
    for nodule in phantom.nodules:
        mask = phantom.labels == nodule.label
        assert np.mean(healthy.labels[mask] > 0) > 0.5


def test_no_nodules_means_none() -> None:
    phantom = thorax(coarse(seed=3, nodules=()))
    assert phantom.nodules == ()
    assert phantom.labels.max() <= 2


@pytest.mark.parametrize("region", ["abdomen", "head"])
def test_other_regions_hold_no_lung(region: str) -> None:
    phantom = thorax(coarse(seed=7, region=region, slices=20))
    assert not phantom.labels.any()
    assert np.mean(phantom.hu > -300) > 0.1


@pytest.mark.parametrize("disease", ["emphysema", "effusion", "fibrosis", "consolidation", "ground_glass"])
def test_every_disease_changes_the_lungs_of_the_same_patient(disease: str) -> None:
    ill = thorax(coarse(seed=8, disease=disease, slices=12))
    well = thorax(coarse(seed=8, disease="none", slices=12))
    lung = well.labels > 0
    assert np.mean(np.abs(ill.hu[lung].astype(int) - well.hu[lung]) > 60) > 0.01


def test_a_sharp_kernel_is_noisier_per_pixel_step_but_shows_the_same_patient() -> None:
    soft = thorax(coarse(seed=9, slices=10, kernel="soft"))
    sharp = thorax(coarse(seed=9, slices=10, kernel="sharp"))

    def roughness(phantom: Phantom) -> float:
        return float(np.abs(np.diff(phantom.hu[:, :20, :20].astype(float), axis=2)).mean())

    assert roughness(sharp) > roughness(soft)
    overlap = 2 * np.sum((soft.labels > 0) & (sharp.labels > 0)) / (np.sum(soft.labels > 0) + np.sum(sharp.labels > 0))
    assert overlap > 0.97


def test_padding_outside_the_scan_circle_is_there_when_asked_for() -> None:
    phantom = thorax(coarse(seed=1, slices=8, outside_circle_hu=-3024))
    assert (phantom.hu[:, 0, 0] == -3024).all()
    assert phantom.hu[4, 80, 80] > -1100
