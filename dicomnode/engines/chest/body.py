"""The patient without table, blankets, wires and air: the largest body, with its lungs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.engines.chest.planar import dilated, enclosed, eroded
from dicomnode.engines.components import Touching, components
from dicomnode.imaging.resampling import Box

_WORKING_SPACING_MM = 3.0  # skin needs no finer grid, and full-size morphology costs seconds
_OPENING_MM = 6.0  # table tops, cables and folds of blankets are thinner
# Lung that a small field of view cuts open is lung-like in most of its voxels; air beside the patient, with blankets, is not.
_LUNG_HU = (-950.0, -500.0)
_OPEN_LUNG_SHARE = 0.6


def body_mask(pixels: NDArray[Any], spacing_mm: tuple[float, float, float], threshold: float = -500.0) -> NDArray[np.bool_]:
    """The largest body of a CT, filled per axial slice, so that lungs, airways and bowel belong to it.

    pixels: (z, y, x) HU with z along the body axis; spacing_mm: (z, y, x).
    Returns: (z, y, x) bool of the same shape, up to one working voxel (3 mm) outside the skin; all False without a body.
    """
    z, y, x = pixels.shape
    everything = slice(0, z), slice(0, y), slice(0, x)
    return upsampled(working_body(pixels, spacing_mm, threshold), working_steps(spacing_mm), everything)


def working_body(pixels: NDArray[Any], spacing_mm: tuple[float, float, float], threshold: float = -500.0) -> NDArray[np.bool_]:
    """`body_mask` on the coarse working grid, of every `working_steps`-th voxel."""
    return body_of(working(pixels, spacing_mm), spacing_mm, threshold)


def body_of(small: NDArray[Any], spacing_mm: tuple[float, float, float], threshold: float = -500.0) -> NDArray[np.bool_]:
    """The same of pixels on the working grid already; spacing_mm: of the full grid."""
    body = _largest_body(small > threshold, spacing_mm, working_steps(spacing_mm))
    if body.any():
        body = enclosed(body, (small > _LUNG_HU[0]) & (small < _LUNG_HU[1]), _OPEN_LUNG_SHARE)
    return dilated(body, 1)  # never cut skin at the coarse grid


def working(values: NDArray[Any], spacing_mm: tuple[float, float, float]) -> NDArray[Any]:
    """Every `working_steps`-th voxel, side by side in memory: what is read again and again is a fiftieth of the volume."""
    z, y, x = working_steps(spacing_mm)
    return np.ascontiguousarray(values[::z, ::y, ::x])


def working_steps(spacing_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    """How many voxels one voxel of the coarse working grid spans on each axis (z, y, x)."""
    z, y, x = (max(1, round(_WORKING_SPACING_MM / spacing)) for spacing in spacing_mm)
    return z, y, x


def upsampled(mask: NDArray[np.bool_], steps: tuple[int, int, int], box: Box) -> NDArray[np.bool_]:
    """A mask of the working grid, which took every `steps`-th voxel, on a box of the full grid (nearest voxel)."""
    indices = [
        np.minimum((np.arange(part.start, part.stop) + step // 2) // step, coarse - 1)
        for part, step, coarse in zip(box, steps, mask.shape, strict=True)
    ]
    full: NDArray[np.bool_] = mask[indices[0]][:, indices[1]][:, :, indices[2]]
    return full


def _largest_body(
    solid: NDArray[np.bool_], spacing_mm: tuple[float, float, float], steps: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """The largest component after an in-plane opening, grown back within `solid`."""
    in_plane_mm = spacing_mm[1] * steps[1]
    rounds = max(1, round(_OPENING_MM / 2 / in_plane_mm))
    parts = components(eroded(solid, rounds), Touching.FACES)
    if parts.count == 0:
        return np.zeros_like(solid)
    largest = parts.mask(int(np.argmax(parts.sizes())))
    return dilated(largest, rounds + 1) & solid
