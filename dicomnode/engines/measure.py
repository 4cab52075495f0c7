"""Measures of one region on the source grid: where it is, how large, how dense."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from dicomnode.imaging.resampling import Grid

# The outline of a pixel runs through the middles of its edges: a digitised disc keeps its diameter, a pixel is one pixel wide.
_EDGE_MIDDLES = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])


@dataclass(frozen=True, slots=True)
class Measures:
    """center_mm: LPS (x, y, z); axes in mm; intensities in the volume's unit; key_slice_index: 0-based z, largest area."""

    center_mm: tuple[float, float, float]
    volume_ml: float
    long_axis_mm: float
    short_axis_mm: float
    mean: float
    std: float
    minimum: float
    maximum: float
    key_slice_index: int


def measure(mask: NDArray[np.bool_], pixels: NDArray[Any], grid: Grid, first_slice_index: int = 0) -> Measures:
    """mask, pixels: (z, y, x) on `grid`, z being the source's slices; mask not empty.

    `first_slice_index` is the z of the mask's first slice in the whole volume.
    """
    indices = np.argwhere(mask)
    x, y, z = grid.points_mm(indices.mean(axis=0))
    inside = pixels[mask].astype(np.float64)
    areas = mask.sum(axis=(1, 2))
    long_axis, short_axis = longest_axes(mask, grid.spacing_mm[1:])
    return Measures(
        center_mm=(float(x), float(y), float(z)),
        volume_ml=len(indices) * grid.voxel_ml,
        long_axis_mm=long_axis,
        short_axis_mm=short_axis,
        mean=float(inside.mean()),
        std=float(inside.std()),
        minimum=float(inside.min()),
        maximum=float(inside.max()),
        key_slice_index=first_slice_index + int(np.argmax(areas)),
    )


def longest_axes(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> tuple[float, float]:
    """(long, short) in mm: the largest in-plane diameter over all slices, and the largest chord across it in that slice."""
    best = (0.0, 0.0)
    for plane in mask:
        if plane.any():
            best = max(best, _plane_axes(plane, spacing_mm))
    return best


def _plane_axes(plane: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> tuple[float, float]:
    outline = (np.argwhere(plane)[:, None, :] + _EDGE_MIDDLES[None]).reshape(-1, 2) * np.array(spacing_mm)
    hull = outline[ConvexHull(outline).vertices]
    between = hull[:, None, :] - hull[None, :, :]
    lengths = np.linalg.norm(between, axis=2)
    first, second = np.unravel_index(int(np.argmax(lengths)), lengths.shape)
    along = between[first, second] / lengths[first, second]
    return float(lengths[first, second]), _largest_chord(hull @ along, hull @ np.array([-along[1], along[0]]))


def _largest_chord(position: NDArray[np.float64], height: NDArray[np.float64]) -> float:
    """The longest chord of a convex outline across the axis `position`; both (points,), in the outline's order."""
    start, end = int(np.argmin(position)), int(np.argmax(position))
    position, height = np.roll(position, -start), np.roll(height, -start)
    turn = (end - start) % len(position)
    one_way = position[: turn + 1], height[: turn + 1]
    way_back = np.append(position[turn:], position[0])[::-1], np.append(height[turn:], height[0])[::-1]
    # Height between two convex chains is largest at a vertex of one of them.
    return float(np.max(np.abs(np.interp(position, *one_way) - np.interp(position, *way_back))))
