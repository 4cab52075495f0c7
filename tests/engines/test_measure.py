"""Measures of lesions on shapes whose truth is known."""

import numpy as np
import pytest

from dicomnode.engines.measure import longest_axes, measure
from dicomnode.imaging.resampling import Grid
from tests.engines.conftest import straight_affine


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.7, 0.7), (2.5, 0.8, 0.8), (1.25, 0.6, 0.9)])
@pytest.mark.parametrize("diameter_mm", [8.0, 15.0, 30.0])
def test_a_sphere_has_its_volume_its_axes_and_its_centre(spacing_mm: tuple[float, float, float], diameter_mm: float) -> None:
    shape = tuple(int(2 * round((diameter_mm + 8) / 2 / spacing)) for spacing in spacing_mm)
    grid = Grid(shape, straight_affine(spacing_mm, shape))
    center = np.array([0.3, -0.4, 0.2])
    points = grid.points_mm(np.stack(np.indices(shape), axis=-1).astype(float))
    # Share of each voxel inside, then half: what a good segmentation gives.
    mask = np.linalg.norm(points - center, axis=-1) <= diameter_mm / 2
    pixels = np.where(mask, 40, -800).astype(np.int16)
    found = measure(mask, pixels, grid, first_slice_index=5)
    truth_ml = np.pi / 6 * diameter_mm**3 / 1000
    if diameter_mm >= 4 * max(spacing_mm):
        assert found.volume_ml == pytest.approx(truth_ml, rel=0.05)
    assert found.long_axis_mm == pytest.approx(diameter_mm, abs=max(spacing_mm[1:]))
    assert found.short_axis_mm == pytest.approx(diameter_mm, abs=max(spacing_mm[1:]))
    assert np.allclose(found.center_mm, center, atol=0.5)
    assert (found.mean, found.std, found.minimum, found.maximum) == (40, 0, 40, 40)
    assert abs(found.key_slice_index - 5 - (shape[0] - 1) / 2) <= 1


def test_the_short_axis_is_the_widest_chord_across_the_long_one() -> None:
    y, x = np.indices((60, 80))
    turned = ((x - 40) * 0.8 + (y - 30) * 0.6, -(x - 40) * 0.6 + (y - 30) * 0.8)
    ellipse = (turned[0] / 25) ** 2 + (turned[1] / 10) ** 2 <= 1
    long_axis, short_axis = longest_axes(ellipse[None], (0.5, 0.5))
    assert long_axis == pytest.approx(25, abs=0.5)
    assert short_axis == pytest.approx(10, abs=0.5)


def test_one_voxel_is_as_large_as_itself() -> None:
    mask = np.zeros((3, 5, 5), dtype=bool)
    mask[1, 2, 3] = True
    assert longest_axes(mask, (0.7, 0.7)) == pytest.approx((0.7, 0.7))


def test_the_longest_axis_is_searched_in_every_slice() -> None:
    mask = np.zeros((2, 40, 40), dtype=bool)
    mask[0, 10:20, 10:20] = True  # largest area
    mask[1, 5, 2:38] = True  # longest
    long_axis, short_axis = longest_axes(mask, (1.0, 1.0))
    assert long_axis == pytest.approx(36, abs=0.1)
    assert short_axis == pytest.approx(1, abs=0.1)
