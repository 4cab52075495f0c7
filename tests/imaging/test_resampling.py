"""Values of one grid on another, against scipy."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy import ndimage

from dicomnode.imaging.resampling import Grid, axis_maps, canonical, exceeding_on, labels_on, linear_on, nearest_on, oriented

RNG = np.random.default_rng(3)


def _grid(shape: tuple[int, int, int], spacing: tuple[float, float, float], rotation: np.ndarray | None = None) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.array(
        [[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]]
    )
    affine[:3, 3] = [-20.0, 7.0, 31.0]
    return Grid(shape, affine)


def _turned() -> np.ndarray:
    matrix, _ = np.linalg.qr(np.array([[0.98, -0.1, 0.05], [0.1, 0.97, -0.08], [-0.04, 0.1, 0.99]]))
    return matrix * np.sign(np.diag(matrix))


def _by_scipy(values: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    matrix = np.linalg.inv(source.affine) @ target.affine
    return ndimage.affine_transform(
        values.astype(np.float64), matrix[:3, :3], matrix[:3, 3], output_shape=target.shape, order=1, mode="nearest"
    )


@pytest.mark.parametrize("rotation", [None, _turned()], ids=["straight", "oblique"])
@pytest.mark.parametrize("slices", [7, 40], ids=["fewer slices", "more slices"])
@pytest.mark.parametrize("target_spacing", [(3.0, 1.1, 1.3), (0.9, 0.5, 0.4)], ids=["coarser", "finer"])
def test_linear_interpolation_agrees_with_scipy(
    rotation: np.ndarray | None, target_spacing: tuple[float, float, float], slices: int
) -> None:
    source = _grid((9, 21, 17), (2.0, 0.7, 0.8), rotation)
    values = RNG.integers(-1000, 1000, source.shape).astype(np.int16)
    whole = _grid((slices, 15, 12), target_spacing, rotation)
    target = Grid(whole.shape, whole.affine + np.array([[0, 0, 0, 0.3], [0, 0, 0, -0.9], [0, 0, 0, 0.2], [0, 0, 0, 0]]))
    assert np.abs(linear_on(values, source, target) - _by_scipy(values, source, target)).max() < 0.01


def test_grids_that_are_not_parallel_go_the_long_way_to_the_same_values() -> None:
    source, target = _grid((9, 21, 17), (2.0, 0.7, 0.8)), _grid((8, 14, 11), (1.5, 1.1, 1.3), _turned())
    values = RNG.normal(size=source.shape).astype(np.float32)
    assert axis_maps(source, target) is None
    assert np.abs(linear_on(values, source, target) - _by_scipy(values, source, target)).max() < 1e-4


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_axes_in_any_order_and_direction_are_followed(order: tuple[int, int, int]) -> None:
    source = _grid((9, 21, 17), (2.0, 0.7, 0.8))
    values = RNG.normal(size=source.shape).astype(np.float32)
    expected = linear_on(values, source, source)
    for flips in product((1, -1), repeat=3):
        affine = source.affine[:, [*order, 3]].copy()
        view = values.transpose(order)
        for axis, flip in enumerate(flips):
            if flip < 0:
                affine[:3, 3] += affine[:3, axis] * (view.shape[axis] - 1)
                affine[:3, axis] *= -1
                view = np.flip(view, axis)
        turned = Grid(view.shape, affine)
        assert np.array_equal(linear_on(view, turned, source), expected)
        back, grid = canonical(view, turned)
        assert np.array_equal(back, values)
        assert np.allclose(grid.affine, source.affine)


def test_an_oblique_volume_keeps_its_world_points_when_its_axes_are_named() -> None:
    source = _grid((9, 21, 17), (2.0, 0.7, 0.8), _turned())
    values = RNG.normal(size=(2, *source.shape))
    view, grid = oriented(values, source, ("I", "R", "A"))
    z, y, x = 3, 5, 7
    (point,) = grid.points_mm(np.array([[z, y, x]]))
    index = np.rint(source.indices(point)).astype(int)
    assert np.array_equal(values[(slice(None), *index)], view[:, z, y, x])
    with pytest.raises(ValueError, match="axes"):
        oriented(values, source, ("S", "I", "L"))


def test_labels_are_chosen_after_interpolation() -> None:
    coarse, fine = _grid((5, 9, 8), (4.0, 2.0, 2.0)), _grid((13, 25, 22), (1.5, 0.7, 0.7))
    probabilities = RNG.random((4, *coarse.shape)).astype(np.float32)
    expected = np.argmax([_by_scipy(channel, coarse, fine) for channel in probabilities], axis=0)
    found = labels_on(probabilities, coarse, fine)
    assert found.dtype == np.uint8
    assert np.mean(found == expected) > 0.9999


def test_there_and_back_a_smooth_field_returns() -> None:
    fine = _grid((20, 40, 36), (2.0, 0.8, 0.8))
    z, y, x = np.indices(fine.shape)
    values = (np.sin(z / 6) + np.cos(y / 9) + np.sin(x / 8)).astype(np.float32)
    coarse = _grid((26, 22, 20), (1.5, 1.4, 1.4))
    assert np.abs(linear_on(linear_on(values, fine, coarse), coarse, fine) - values)[:19, :30, :30].max() < 0.03


def test_nearest_labels_keep_their_place() -> None:
    coarse, fine = _grid((5, 9, 8), (4.0, 2.0, 2.0)), _grid((20, 36, 32), (1.0, 0.5, 0.5))
    labels = RNG.integers(0, 5, coarse.shape).astype(np.uint8)
    assert np.array_equal(nearest_on(labels, coarse, fine)[::4, ::4, ::4], labels)


def test_the_box_around_another_grid_covers_it_and_no_more() -> None:
    source = _grid((20, 36, 32), (1.0, 0.5, 0.5))
    part = source.part((slice(3, 9), slice(4, 30), slice(0, 7)))
    assert source.box_around(part) == (slice(3, 9), slice(4, 30), slice(0, 7))
    assert source.box_around(part, margin=2) == (slice(1, 11), slice(2, 32), slice(0, 9))
    far = Grid(part.shape, part.affine + np.array([[0, 0, 0, 500.0], [0] * 4, [0] * 4, [0] * 4]))
    assert source.box_around(far) is None


@pytest.mark.parametrize("rotation", [None, _turned()], ids=["straight", "oblique"])
@pytest.mark.parametrize("channels", [(1, 2), (2,), (0, 1)])
def test_where_channels_exceed_the_others_is_where_the_most_probable_one_is_among_them(
    channels: tuple[int, ...], rotation: np.ndarray | None
) -> None:
    source, target = _grid((9, 21, 17), (2.0, 0.7, 0.8)), _grid((20, 40, 30), (0.9, 0.4, 0.5), rotation)
    powers = np.exp(ndimage.gaussian_filter(RNG.normal(size=(3, *source.shape)), (0, 1, 2, 2)) * 9).astype(np.float32)
    probabilities = powers / powers.sum(axis=0)
    expected = np.isin(labels_on(probabilities, source, target), channels)
    found = np.stack(list(exceeding_on(probabilities, channels, source, target)))
    assert 0.1 < expected.mean() < 0.95
    assert (found != expected).mean() < 1e-4  # where two are equal but for rounding
