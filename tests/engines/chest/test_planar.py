"""In-plane morphology is scipy's, voxel for voxel."""

import numpy as np
import pytest
from scipy import ndimage

from dicomnode.engines.chest.planar import dilated, enclosed, eroded, opened, sums_of_nine

CROSS = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]
SQUARE = np.ones((1, 3, 3), dtype=bool)
RNG = np.random.default_rng(8)
MASKS = [RNG.random((5, 30, 41)) < density for density in (0.2, 0.6, 0.9)] + [
    np.ones((2, 4, 4), bool),
    np.zeros((2, 4, 4), bool),
]


@pytest.mark.parametrize("mask", MASKS)
def test_erosion_dilation_and_opening_are_scipys(mask: np.ndarray) -> None:
    for rounds in (1, 3):
        assert np.array_equal(eroded(mask, rounds), ndimage.binary_erosion(mask, CROSS, iterations=rounds, border_value=1))
        assert np.array_equal(dilated(mask, rounds), ndimage.binary_dilation(mask, CROSS, iterations=rounds))
    assert np.array_equal(opened(mask), ndimage.binary_opening(mask, SQUARE))


@pytest.mark.parametrize("mask", MASKS)
def test_what_is_enclosed_in_a_slice_belongs_to_it(mask: np.ndarray) -> None:
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    assert np.array_equal(enclosed(mask), filled)


def test_what_the_edge_cuts_open_belongs_to_it_where_it_is_mostly_something_else() -> None:
    mask = np.zeros((1, 20, 20), dtype=bool)
    mask[0, 10] = True  # above it and below it the image is open
    lung = np.zeros_like(mask)
    lung[0, :7] = True  # seven rows of ten
    assert enclosed(mask, lung, 0.6)[0, :10].all()
    assert not enclosed(mask, lung, 0.8)[0, :10].any()
    assert not enclosed(mask, lung, 0.6)[0, 11:].any()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_sum_of_nine_is_nine_times_the_mean_with_the_border_held(dtype: type) -> None:
    values = RNG.integers(-1024, 200, (4, 13, 17)).astype(dtype)
    expected = 9 * ndimage.uniform_filter(values.astype(np.float64), (1, 3, 3))
    assert np.abs(sums_of_nine(values) - expected).max() < 0.01
