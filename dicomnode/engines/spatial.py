"""Orientationd and Spacingd of a bundle without their cost: MONAI says onto which grid, our separable interpolation goes there.

The values are MONAI's (bilinear, border) to rounding; time and memory are a tenth, because no coordinate per voxel is made and
the source stays int16. Orientation needs no nibabel this way.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirstd, EnsureTyped, Orientationd, Spacingd
from numpy.typing import NDArray

from dicomnode.imaging.resampling import Grid, oriented

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ZYX_TO_XYZ = [2, 1, 0, 3]


def leading_spatial_steps(transforms: Sequence[Any], key: str) -> int:
    """How many of the first transforms only put image `key` onto another grid, in a way that `network_grid` follows."""
    for count, transform in enumerate(transforms):
        if tuple(getattr(transform, "keys", ())) != (key,) or not _is_followed(transform):
            return count
    return len(transforms)


def network_grid(transforms: Sequence[Any], grid: Grid) -> Grid:
    """The grid (z, y, x) onto which these transforms, all followed, would put a volume on `grid`."""
    for transform in transforms:
        if isinstance(transform, Orientationd):
            grid = oriented(np.broadcast_to(np.int8(0), grid.shape), grid, transform.ornt_transform.axcodes[::-1])[1]
        elif isinstance(transform, Spacingd):
            grid = _spaced(transform, grid)
    return grid


def meta_tensor(pixels: NDArray[np.generic], grid: Grid, *, channel: bool) -> MetaTensor:
    """(z, y, x) on an LPS grid → MONAI's (x, y, z) on a RAS affine, float32; with a leading channel axis if `channel`."""
    array = torch.as_tensor(np.ascontiguousarray(pixels, dtype=np.float32)).permute(2, 1, 0)
    meta = {
        "original_channel_dim": 0 if channel else "no_channel",
        "filename_or_obj": "memory",
        "spatial_shape": np.array(array.shape),
    }
    return MetaTensor(array[None] if channel else array, affine=torch.as_tensor(ras_affine(grid)), meta=meta)


def ras_affine(grid: Grid) -> NDArray[np.float64]:
    """4×4 (x, y, z, 1) → RAS mm of a grid that is (z, y, x, 1) → LPS mm."""
    return np.asarray(_LPS_TO_RAS @ grid.affine[:, _ZYX_TO_XYZ])


def grid_of(shape_xyz: Sequence[int], affine: NDArray[np.float64]) -> Grid:
    """The grid (z, y, x) in LPS of a MONAI image with this spatial shape and RAS affine."""
    x, y, z = (int(size) for size in shape_xyz)
    return Grid((z, y, x), (_LPS_TO_RAS @ affine)[:, _ZYX_TO_XYZ])


def same_grid(one: Grid, other: Grid) -> bool:
    """Whether the same voxels lie at the same places, but for rounding (a thousandth of a mm at the far corner)."""
    corners = np.array([[0, 0, 0], np.array(one.shape) - 1], dtype=float)
    return one.shape == other.shape and bool(np.abs(one.points_mm(corners) - other.points_mm(corners)).max() < 1e-3)


def _is_followed(transform: Any) -> bool:
    if isinstance(transform, EnsureChannelFirstd):
        return True
    if isinstance(transform, EnsureTyped):  # float32 is what we give anyway
        return transform.converter.dtype in (None, torch.float32)
    if isinstance(transform, Orientationd):
        return transform.ornt_transform.axcodes is not None and not transform.ornt_transform.as_closest_canonical
    if isinstance(transform, Spacingd):
        spacing = transform.spacing_transform
        modes = {str(getattr(mode, "value", mode)) for mode in transform.mode}
        padding = {str(getattr(mode, "value", mode)) for mode in transform.padding_mode}
        return modes == {"bilinear"} and padding == {"border"} and not spacing.recompute_affine
    return False


def _spaced(transform: Spacingd, grid: Grid) -> Grid:
    """What MONAI's Spacing would resample onto; its resampler is replaced by one that only listens."""
    asked: dict[str, Any] = {}

    def listen(image: MetaTensor, **arguments: Any) -> MetaTensor:
        asked.update(arguments)
        return image

    spacing = copy.copy(transform.spacing_transform)
    spacing.sp_resample = listen
    nothing = torch.zeros(()).expand(1, *grid.shape[::-1])
    spacing(MetaTensor(nothing, affine=torch.as_tensor(ras_affine(grid))), scale_extent=transform.scale_extent[0])
    return grid_of(asked["spatial_size"], np.asarray(asked["dst_affine"]))
