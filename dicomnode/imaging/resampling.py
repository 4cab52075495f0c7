"""Values of one grid on another, by linear interpolation.

Two grids whose axes are parallel (any order, any direction) are interpolated axis by axis, slice by slice: an order of
magnitude faster than gathering eight neighbours per voxel, with the same values and without a coordinate per voxel. Matrix
products do the same, but lose their speed when BLAS threads share the cores with other work. Other grids go through scipy.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, permutations, product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.imaging import spacing_of, voxel_ml_of

_PARALLEL_TOLERANCE = 1e-4  # in voxels of the source per voxel of the target: 0.05 voxel over 512
_ROUNDING = 1e-6
_THREADS_AT_MOST = 4
_SLAB_SLICES = 16  # for fewer a thread is not worth its start
Value = TypeVar("Value", bound=np.generic)
Floats = NDArray[np.float32]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """shape: (z, y, x) voxels; affine: 4×4, voxel index (z, y, x, 1) → LPS mm (x, y, z, 1) of the voxel's centre."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x) distance between voxel centres in mm."""
        return spacing_of(self.affine)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return voxel_ml_of(self.affine)

    def part(self, box: Box) -> "Grid":
        """The grid of `array[box]`; slices with start and stop, step 1."""
        starts = np.array([s.start for s in box], dtype=float)
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ starts
        z, y, x = (s.stop - s.start for s in box)
        return Grid((z, y, x), affine)

    def every(self, steps: tuple[int, int, int]) -> "Grid":
        """The grid of `array[::steps[0], ::steps[1], ::steps[2]]`."""
        affine = self.affine.copy()
        affine[:3, :3] *= steps
        z, y, x = (-(-size // step) for size, step in zip(self.shape, steps, strict=True))
        return Grid((z, y, x), affine)

    def box_around(self, other: "Grid", margin: int = 0) -> Box | None:
        """The box of this grid's voxels that covers `other` and `margin` voxels more, or None where they do not meet."""
        last = np.array(other.shape) - 1
        corners = other.points_mm(np.array(list(product(*((0, end) for end in last)))))
        indices = self.indices(corners)
        # What lies on a voxel's centre but for rounding does not need the next voxel.
        starts = np.maximum(np.floor(indices.min(axis=0) + _ROUNDING) - margin, 0).astype(int)
        stops = np.minimum(np.ceil(indices.max(axis=0) - _ROUNDING) + 1 + margin, self.shape).astype(int)
        if (stops <= starts).any():
            return None
        z, y, x = (slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
        return z, y, x

    def points_mm(self, indices: NDArray[np.floating]) -> NDArray[np.float64]:
        """LPS points (…, 3) in mm of voxel indices (…, 3) in (z, y, x) order."""
        return np.asarray(indices @ self.affine[:3, :3].T + self.affine[:3, 3])

    def indices(self, points_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Voxel indices (…, 3), fractional, of LPS points (…, 3) in mm."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points_mm @ inverse[:3, :3].T + inverse[:3, 3])


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box of (z, y, x) that holds all of `mask`, or None where nothing is set."""
    z = np.flatnonzero(mask.any(axis=(1, 2)))
    if not z.size:
        return None
    inside = mask[z[0] : z[-1] + 1].any(axis=0)
    y, x = np.flatnonzero(np.any(inside, axis=1)), np.flatnonzero(np.any(inside, axis=0))
    return slice(int(z[0]), int(z[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1)


# World axis (LPS) and sign of the six anatomical directions.
_DIRECTIONS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}


def canonical(values: NDArray[Value], grid: Grid) -> tuple[NDArray[Value], Grid]:
    """The same voxels as a view (…, z, y, x) whose axes run nearest to head, back and the patient's left, and their grid."""
    return oriented(values, grid, ("S", "P", "L"))


def oriented(values: NDArray[Value], grid: Grid, toward: Sequence[str]) -> tuple[NDArray[Value], Grid]:
    """The same voxels as a view whose axes run nearest to the directions `toward` ("L", "R", "A", "P", "S", "I"; one per axis).

    values: (…, z, y, x); only the last three axes, those of `grid`, are turned. Nothing is interpolated; an oblique
    volume stays oblique. Raises ValueError where `toward` names an axis twice.
    """
    worlds = [_DIRECTIONS[letter][0] for letter in toward]
    if sorted(worlds) != [0, 1, 2]:
        raise ValueError(f"{''.join(toward)} names no three axes of the patient")
    direction = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    # All six orders are tried, so that an axis at 45° cannot be chosen twice.
    order = max(permutations(range(3)), key=lambda axes: sum(abs(direction[w, a]) for w, a in zip(worlds, axes, strict=True)))
    affine = grid.affine[:, [*order, 3]].copy()
    leading = values.ndim - 3
    view = values.transpose(*range(leading), *(leading + axis for axis in order))
    for axis, letter in enumerate(toward):
        world, sign = _DIRECTIONS[letter]
        if affine[world, axis] * sign < 0:
            affine[:3, 3] += affine[:3, axis] * (view.shape[leading + axis] - 1)
            affine[:3, axis] *= -1
            view = np.flip(view, leading + axis)
    z, y, x = view.shape[leading:]
    return view, Grid((z, y, x), affine)


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Target index t on one axis lies at source index `scale * t + offset` of the source's axis `source_axis`."""

    source_axis: int
    scale: float
    offset: float


def axis_maps(source: Grid, target: Grid) -> tuple[AxisMap, AxisMap, AxisMap] | None:
    """How the target's axes (z, y, x) run along the source's, or None where the two grids are not parallel."""
    matrix = np.linalg.inv(source.affine) @ target.affine
    linear, offset = matrix[:3, :3], matrix[:3, 3]
    axes = np.argmax(np.abs(linear), axis=0)
    if sorted(axes.tolist()) != [0, 1, 2]:
        return None
    rest = linear.copy()
    rest[axes, range(3)] = 0
    if np.abs(rest * np.array(target.shape)).max() > _PARALLEL_TOLERANCE * max(target.shape):
        return None
    z, y, x = (AxisMap(int(axis), float(linear[axis, t]), float(offset[axis])) for t, axis in enumerate(axes))
    return z, y, x


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """Linear interpolation along one axis: value = v[lower] + weight × (v[upper] − v[lower]); held at the borders."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: Floats

    @classmethod
    def of(cls, source_size: int, target_size: int, scale: float, offset: float) -> "_Line":
        position = np.clip(scale * np.arange(target_size) + offset, 0, source_size - 1)
        lower = position.astype(np.intp)
        return cls(lower, np.minimum(lower + 1, source_size - 1), (position - lower).astype(np.float32))

    def along(self, values: Floats, axis: int) -> Floats:
        """`values` (channels, y, x) interpolated along axis 1 or 2."""
        result = values.take(self.lower, axis)
        step = values.take(self.upper, axis)
        step -= result
        step *= self.weight[:, None] if axis == 1 else self.weight
        result += step
        return result


def slices_on(
    values: NDArray[np.generic], source: Grid, target: Grid, made: Callable[[Floats], Floats] | None = None
) -> Iterator[Floats]:
    """The target's slices one by one, (channels, y, x) float32, from `values` (channels, z, y, x) on `source`; to be read only.

    Outside the source the nearest border voxel holds. made: what is interpolated in place of a source slice's channels.
    """
    maps = axis_maps(source, target)
    if maps is None:
        yield from (_oblique(values, source, target) if made is None else _oblique(made(_floats(values)), source, target))
        return
    along = values.transpose(0, *(1 + axis_map.source_axis for axis_map in maps))
    depth = along.shape[1]
    rows, columns = (
        _Line.of(along.shape[1 + axis], target.shape[axis], maps[axis].scale, maps[axis].offset) for axis in (1, 2)
    )
    rows_first = along.shape[3] * target.shape[1] < along.shape[2] * target.shape[2]

    def in_plane(plane: Floats) -> Floats:
        return columns.along(rows.along(plane, 1), 2) if rows_first else rows.along(columns.along(plane, 2), 1)

    # Each axis costs least where the slices are small and few: before the others where it makes fewer, after them where more.
    blend_last = target.shape[0] > depth
    blend = _Blend(along, [one for one in (made, in_plane if blend_last else None) if one is not None])
    for index in range(target.shape[0]):
        plane = blend.at(min(max(maps[0].scale * index + maps[0].offset, 0.0), depth - 1.0))
        yield plane if blend_last else in_plane(plane)


class _Blend:
    """Slices of `along` (channels, depth, y, x) at fractional depths, each source slice made ready only once in a row."""

    def __init__(self, along: NDArray[np.generic], steps: Sequence[Callable[[Floats], Floats]]) -> None:
        self._along, self._steps = along, steps
        self._kept: dict[int, Floats] = {}

    def at(self, position: float) -> Floats:
        lower = int(position)
        weight = np.float32(position - lower)
        if weight < 1e-6:
            return self._slice(lower)
        return self._slice(lower) * (1 - weight) + self._slice(lower + 1) * weight

    def _slice(self, index: int) -> Floats:
        if index not in self._kept:
            self._kept = {k: v for k, v in self._kept.items() if abs(k - index) <= 1}
            plane = _floats(self._along[:, index])
            for step in self._steps:
                plane = step(plane)
            self._kept[index] = plane
        return self._kept[index]


def _floats(values: NDArray[np.generic]) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float32)


def _oblique(values: NDArray[np.generic], source: Grid, target: Grid) -> Iterator[Floats]:
    from scipy import ndimage

    matrix = np.linalg.inv(source.affine) @ target.affine
    for index in range(target.shape[0]):
        offset = matrix[:3, 3] + matrix[:3, 0] * index
        plane = np.zeros((1, *target.shape[1:]))
        yield np.stack(
            [
                ndimage.affine_transform(
                    channel.astype(np.float32),
                    np.column_stack([np.zeros(3), matrix[:3, 1:3]]),
                    offset,
                    output_shape=plane.shape,
                    order=1,
                    mode="nearest",
                )[0]
                for channel in values
            ]
        )


def in_slabs(work: Callable[[slice], object], slices: int) -> None:
    """`work` on slabs of so many slices, by as many threads as there are processors (4 at most): numpy lets go of the GIL.

    Slabs are thin: what one of them needs beside its result stays in the cache and is soon free again.
    """
    slabs = max(1, round(slices / _SLAB_SLICES))
    edges = [round(slices * number / slabs) for number in range(slabs + 1)]
    parts = [slice(begin, end) for begin, end in pairwise(edges)]
    workers = min(_THREADS_AT_MOST, len(os.sched_getaffinity(0)), slabs)
    if workers < 2:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="slabs") as pool:
        list(pool.map(work, parts))


def slab_of(grid: Grid, part: slice) -> Grid:
    """The grid of `array[part]`."""
    return grid.part((part, slice(0, grid.shape[1]), slice(0, grid.shape[2])))


def linear_on(values: NDArray[np.generic], source: Grid, target: Grid) -> Floats:
    """`values` (z, y, x) on `source` → (z, y, x) float32 on `target`."""
    result = np.empty(target.shape, dtype=np.float32)

    def fill(part: slice) -> None:
        for index, plane in enumerate(slices_on(values[None], source, slab_of(target, part)), start=part.start):
            result[index] = plane[0]

    in_slabs(fill, target.shape[0])
    return result


def labels_on(probabilities: NDArray[np.generic], source: Grid, target: Grid) -> NDArray[np.uint8]:
    """Most probable channel of (channels, z, y, x) on `source`, chosen after interpolation → (z, y, x) uint8 on `target`."""
    result = np.empty(target.shape, dtype=np.uint8)

    def fill(part: slice) -> None:
        for index, planes in enumerate(slices_on(probabilities, source, slab_of(target, part)), start=part.start):
            result[index] = _most_probable(planes)

    in_slabs(fill, target.shape[0])
    return result


def exceeding_on(
    probabilities: NDArray[np.generic], channels: Sequence[int], source: Grid, target: Grid
) -> Iterator[NDArray[np.bool_]]:
    """The target's slices one by one, (y, x) bool: where one of `channels` exceeds all others, after interpolation.

    Of equals a channel that is not among them wins. Differences are interpolated, one channel fewer than there are.
    """
    others = [channel for channel in range(len(probabilities)) if channel not in channels]
    for planes in slices_on(probabilities, source, target, None if len(others) != 1 else _less(channels, others[0])):
        if len(others) == 1:
            yield np.asarray(planes.max(axis=0) > 0)
        else:
            yield np.asarray(planes[list(channels)].max(axis=0) > planes[others].max(axis=0, initial=-np.inf))


def _less(channels: Sequence[int], other: int) -> Callable[[Floats], Floats]:
    return lambda planes: np.stack([planes[channel] - planes[other] for channel in channels])


def nearest_on(labels: NDArray[Value], source: Grid, target: Grid) -> NDArray[Value]:
    """`labels` (z, y, x) on `source` at the nearest voxel → the same dtype on `target`. Raises ValueError if not parallel."""
    maps = axis_maps(source, target)
    if maps is None:
        raise ValueError("labels are carried only between parallel grids")
    along = labels.transpose(*(axis_map.source_axis for axis_map in maps))
    indices = [
        np.clip(np.rint(m.scale * np.arange(size) + m.offset), 0, limit - 1).astype(np.intp)
        for m, size, limit in zip(maps, target.shape, along.shape, strict=True)
    ]
    return np.asarray(along[indices[0]][:, indices[1]][:, :, indices[2]])


def _most_probable(planes: Floats) -> NDArray[np.uint8]:
    """Running argmax over the first axis; np.argmax over a short leading axis is many times slower."""
    best, label = planes[0].copy(), np.zeros(planes.shape[1:], dtype=np.uint8)
    for channel in range(1, len(planes)):
        better = planes[channel] > best
        label[better] = channel
        np.maximum(best, planes[channel], out=best)
    return label
