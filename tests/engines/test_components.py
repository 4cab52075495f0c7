"""Components by runs are those of scipy.ndimage.label: number for number, size for size, box for box."""

import numpy as np
import pytest
from scipy import ndimage

from dicomnode.engines.components import Touching, components

STRUCTURES = {
    Touching.FACES: ndimage.generate_binary_structure(3, 1),
    Touching.CORNERS: np.ones((3, 3, 3), dtype=bool),
    Touching.IN_PLANE: ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None],
}
SHAPES = ((7, 9, 11), (1, 1, 1), (5, 1, 8), (1, 13, 1), (4, 6, 2))


@pytest.mark.parametrize("touching", Touching)
@pytest.mark.parametrize("density", [0.0, 0.1, 0.35, 0.6, 1.0])
def test_they_are_those_of_scipy_in_the_same_order(touching: Touching, density: float) -> None:
    rng = np.random.default_rng(3)
    for shape in SHAPES:
        mask = rng.random(shape) < density
        labels, count = ndimage.label(mask, STRUCTURES[touching])
        found = components(mask, touching)
        assert found.count == count
        assert np.array_equal(found.painted(np.arange(1, count + 1).astype(np.uint8)), labels.astype(np.uint8))
        assert np.array_equal(found.sizes(), np.bincount(labels.ravel(), minlength=count + 1)[1:])
        assert found.boxes() == ndimage.find_objects(labels)
        seeds = found.seeds()
        for number in range(count):
            assert seeds[number] == tuple(np.argwhere(labels == number + 1)[0])
            assert np.array_equal(found.mask(number), labels == number + 1)
            assert np.array_equal(found.columns(number), (labels == number + 1).sum(axis=(0, 1)))


def test_a_mask_that_is_a_turned_view_is_read_as_it_stands() -> None:
    mask = (np.random.default_rng(4).random((6, 7, 8)) < 0.4).transpose(2, 1, 0)[::-1]
    assert components(mask, Touching.FACES).count == ndimage.label(mask)[1]
