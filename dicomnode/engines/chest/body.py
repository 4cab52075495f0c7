"""The patient without table, blankets, wires and air: the largest body, with its lungs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.imaging.resampling import Box

_WORKING_SPACING_MM = 3.0  # skin needs no finer grid, and full-size morphology costs seconds
_OPENING_MM = 6.0  # table tops, cables and folds of blankets are thinner
# Lung that a small field of view cuts open is lung-like in most of its voxels; air beside the patient, with blankets, is not.
_LUNG_HU = (-950.0, -500.0)
_OPEN_LUNG_SHARE = 0.6
_IN_PLANE = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]


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
    steps = working_steps(spacing_mm)
    small = pixels[:: steps[0], :: steps[1], :: steps[2]]
    mask = _fill(small, _largest_body(small > threshold, spacing_mm, steps))
    return np.asarray(ndimage.binary_dilation(mask, _IN_PLANE))  # never cut skin at the coarse grid


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
    eroded = ndimage.binary_erosion(solid, _IN_PLANE, iterations=rounds, border_value=1)  # a body cut by the field of view
    labels, count = ndimage.label(eroded)
    if count == 0:
        return np.zeros_like(solid)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    grown: NDArray[np.bool_] = ndimage.binary_dilation(largest, _IN_PLANE, iterations=rounds + 1) & solid
    return grown


def _fill(small: NDArray[Any], body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`body` with everything that it encloses in-plane, and with lung that the edge of the image cuts open."""
    if not body.any():
        return body
    labels, count = ndimage.label(~body, _IN_PLANE)
    outside = np.zeros(count + 1, dtype=bool)
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        outside[np.unique(edge)] = True
    candidates = np.flatnonzero(outside[1:]) + 1
    lung_like = (small > _LUNG_HU[0]) & (small < _LUNG_HU[1])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    share = np.bincount(labels[lung_like], minlength=count + 1)[candidates] / sizes[candidates]
    outside[candidates[share > _OPEN_LUNG_SHARE]] = False
    outside[0] = False
    return ~outside[labels]
