"""ScaleIntensityRanged of a bundle on each slice as it is made, while it is in the cache: MONAI's five passes over a whole
volume, each through memory, become none. The same operations in the same order, in float32.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import EnsureTyped, ScaleIntensityRanged

from dicomnode.imaging.resampling import Floats


def leading_scaling_steps(transforms: Sequence[Any], key: str) -> int:
    """How many of the first transforms only scale the intensities of image `key` in a way that `scale` follows."""
    for count, transform in enumerate(transforms):
        if tuple(getattr(transform, "keys", ())) != (key,) or not _is_followed(transform):
            return count
    return len(transforms)


def scale(plane: Floats, transforms: Sequence[Any]) -> None:
    """These transforms, all followed, on a slice in place."""
    for transform in transforms:
        if isinstance(transform, ScaleIntensityRanged):
            scaler = transform.scaler
            plane -= scaler.a_min
            plane /= scaler.a_max - scaler.a_min
            if scaler.b_min is not None and scaler.b_max is not None:
                plane *= scaler.b_max - scaler.b_min
                plane += scaler.b_min
            if scaler.clip:
                np.clip(plane, scaler.b_min, scaler.b_max, out=plane)


def _is_followed(transform: Any) -> bool:
    if type(transform) is EnsureTyped:
        return set(transform.dtype) <= {None, torch.float32}
    if type(transform) is not ScaleIntensityRanged:
        return False
    scaler = transform.scaler
    return scaler.dtype is np.float32 and scaler.a_max != scaler.a_min
