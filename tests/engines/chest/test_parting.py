"""Two lesions that touch are two; one lesion with lobes is one."""

import numpy as np
from numpy.typing import NDArray

from dicomnode.engines.chest.parting import pieces_of

SHAPE, SPACING = (40, 48, 48), (1.5, 1.25, 1.25)


def ball(y_mm: float, radius_mm: float, z_mm: float = 30.0, x_mm: float = 30.0) -> NDArray[np.bool_]:
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    distance = (z * SPACING[0] - z_mm) ** 2 + (y * SPACING[1] - y_mm) ** 2 + (x * SPACING[2] - x_mm) ** 2
    return np.asarray(distance <= radius_mm**2)


def test_a_nodule_that_leans_on_a_larger_patch_is_parted_from_it() -> None:
    patch, nodule = ball(20, 11.0), ball(35, 5.0)
    assert (patch & nodule).any()
    pieces = pieces_of(patch | nodule, SPACING)
    assert pieces.max() == 2
    assert np.array_equal(pieces > 0, patch | nodule)
    of_nodule = pieces[20, 28, 24]
    assert np.mean(pieces[nodule & ~patch] == of_nodule) > 0.9
    assert not np.any(pieces[ball(20, 7.0)] == of_nodule)


def test_three_that_touch_in_a_row_are_three() -> None:
    pieces = pieces_of(ball(14, 6.0) | ball(25, 6.0) | ball(36, 6.0), SPACING)
    assert sorted(np.unique(pieces)) == [0, 1, 2, 3]
    assert [pieces[20, round(y / 1.25), 24] for y in (14, 25, 36)] == [1, 2, 3]


def test_a_ball_and_a_lesion_with_lobes_stay_whole() -> None:
    lobed = ball(24, 9.0) | ball(31, 7.0, x_mm=34) | ball(20, 6.0, z_mm=36)
    for mask in (ball(24, 3.0), ball(24, 14.0), lobed):
        assert np.array_equal(pieces_of(mask, SPACING), mask.astype(np.int32))


def test_no_voxel_is_lost_that_hangs_on_by_a_corner() -> None:
    own = ball(14, 6.0) | ball(25, 6.0)
    z, y, x = np.argwhere(own)[0]
    for step in (1, 2, 3):
        own[z - step, y + step, x + step] = True
    pieces = pieces_of(own, SPACING)
    assert pieces.max() == 2
    assert np.array_equal(pieces > 0, own)


def test_a_component_that_fills_its_box_is_one_piece() -> None:
    assert pieces_of(np.ones((12, 12, 12), bool), SPACING).min() == 1
