"""A volume or image from memory where a bundle would read a file, and nothing where it would write one."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirst, MapTransform
from numpy.typing import NDArray

from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.engines.spatial import ras_affine
from dicomnode.imaging.resampling import Grid

_NO_CHANNEL = "no_channel"


class FromMemoryd(MapTransform):  # type: ignore[misc]
    """Stands for a bundle's LoadImaged: the image is there already; only the channel axis may be wanted of the loader."""

    def __init__(self, keys: KeysCollection, ensure_channel_first: bool = False) -> None:
        super().__init__(keys, allow_missing_keys=True)  # a label's key is loaded only where somebody evaluates
        self._channel_first = EnsureChannelFirst() if ensure_channel_first else None

    @property
    def makes_channel(self) -> bool:
        """Whether the loader that it stands for gives the channel axis."""
        return self._channel_first is not None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of `data`, channels first where that was asked for."""
        item = dict(data)
        for key in self.key_iterator(item):
            if self._channel_first is not None:
                item[key] = self._channel_first(item[key])
        return item


class ToMemoryd(MapTransform):  # type: ignore[misc]
    """Stands for a bundle's SaveImaged: what it would write stays in memory."""

    def __init__(self) -> None:
        super().__init__("nothing", allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of `data`."""
        return dict(data)


def volumes_tensor(pixels: Sequence[NDArray[Any]], grid: Grid) -> MetaTensor:
    """Volumes (z, y, x), all on `grid`, as MONAI's readers give one or several files: float32, RAS affine.

    One volume is (x, y, z) without a channel axis; several are (channel, x, y, z).
    """
    stacked = [torch.as_tensor(np.array(one, dtype=np.float32)).permute(2, 1, 0) for one in pixels]
    array = stacked[0] if len(stacked) == 1 else torch.stack(stacked)
    return _with_meta(array, ras_affine(grid), _NO_CHANNEL if len(stacked) == 1 else 0, grid.shape[::-1])


def image_tensor(image: Image2D, channels: int) -> MetaTensor:
    """A projection image as MONAI's PIL reader gives it: (x, y), or (x, y, channel) with one value in all channels.

    Its affine is the identity: a projection lies nowhere in the patient.
    """
    array = torch.as_tensor(np.array(image.pixels, dtype=np.float32)).T
    if channels > 1:
        array = array[..., None].expand(*array.shape, channels).contiguous()
    return _with_meta(array, np.eye(4), -1 if channels > 1 else _NO_CHANNEL, array.shape[:2])


def volume_grid(volume: Volume) -> Grid:
    """The grid of a volume's voxels."""
    return Grid(volume.shape, volume.affine)


def _with_meta(array: torch.Tensor, affine: NDArray[np.float64], channel_dim: str | int, shape: Sequence[int]) -> MetaTensor:
    as_tensor = torch.as_tensor(affine)
    meta = {
        "original_channel_dim": channel_dim,
        "filename_or_obj": "memory",
        "spatial_shape": np.array(shape),
        "original_affine": affine.copy(),
        "space": "RAS",
    }
    return MetaTensor(array, affine=as_tensor, meta=meta)
