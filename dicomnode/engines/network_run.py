"""A volume through a bundle: its preprocessing, its network, its probabilities on the network's grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError, ResourceExhausted
from dicomnode.engines.bundle import Bundle
from dicomnode.engines.devices import computing, is_out_of_memory
from dicomnode.engines.ladder import Descent, Rung, with_less_memory
from dicomnode.engines.reasons import first_line
from dicomnode.engines.scaling import leading_scaling_steps, scale
from dicomnode.engines.sidecar import BundleRules, RunRules
from dicomnode.engines.spatial import grid_of, leading_spatial_steps, meta_tensor, network_grid
from dicomnode.engines.values import NetworkInput, Prediction, whole_box
from dicomnode.imaging.resampling import Grid, in_slabs, slab_of, slices_on

_SLAB = 16  # columns of voxels at a time: a few MB, which stay in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A bundle's preprocessed image: (1, channels, x, y, z) float32, and the grid (z, y, x) that it lies on."""

    tensor: torch.Tensor
    grid: Grid


def preprocess(bundle: Bundle, given: NetworkInput, rules: BundleRules, run: RunRules) -> Prepared:
    """The bundle's own preprocessing of a volume in memory. Raises PipelineError where one of its transforms fails."""
    key = rules.image_key
    steps = leading_spatial_steps(bundle.preprocessing, key)
    try:
        if steps:
            grid = network_grid(bundle.preprocessing[:steps], given.grid)
            if given.region is not None and run.crop_margin_mm is not None:
                margin = math.ceil(run.crop_margin_mm / min(grid.spacing_mm))
                box = grid.box_around(given.grid.part(given.region), margin)
                grid = grid if box is None else grid.part(box)
            scaling = leading_scaling_steps(bundle.preprocessing[steps:], key)
            scaled = bundle.preprocessing[steps : steps + scaling]
            item: dict[str, Any] = {key: meta_tensor(_interpolated(given, grid, scaled), grid, channel=True)}
            steps += scaling
        else:
            item = {key: meta_tensor(given.part(whole_box(given.grid.shape)), given.grid, channel=False)}
        for transform in bundle.preprocessing[steps:]:
            item = transform(item)
    except Exception as error:  # whatever a bundle's transforms raise on this input
        if is_out_of_memory(error):
            raise ResourceExhausted("memory ran out while preprocessing", "give the worker more memory") from error
        raise PipelineError(f"preprocessing failed: {first_line(error)}", "check the bundle's preprocessing") from error
    image = item[key]
    if image.ndim != 4:
        raise PipelineError(
            f"preprocessing gives {image.ndim} axes, channel, x, y, z expected", "add EnsureChannelFirstd to the bundle"
        )
    tensor = image.as_tensor()[None].float()
    return Prepared(tensor, grid_of(tensor.shape[2:], np.asarray(image.affine, dtype=float)))


def _interpolated(given: NetworkInput, grid: Grid, scaled: Sequence[Any]) -> NDArray[np.float32]:
    """What the network shall see, on `grid`, its intensities `scaled`; only the voxels between which it lies are made."""
    result = np.empty(grid.shape, dtype=np.float32)

    def fill(part: slice) -> None:
        slab = slab_of(grid, part)
        box = given.grid.box_around(slab, 1) or whole_box(given.grid.shape)
        for index, plane in enumerate(slices_on(given.part(box)[None], given.grid.part(box), slab), start=part.start):
            result[index] = plane[0]
            scale(result[index], scaled)

    in_slabs(fill, grid.shape[0])
    return result


def predict(
    bundle: Bundle, prepared: Prepared, rules: BundleRules, run: RunRules, *, bfloat16: bool
) -> tuple[Prediction, Descent]:
    """The network's probabilities for a prepared image, and how they were had. Raises ResourceExhausted, PipelineError."""
    whole = run.whole_volume_divisor is not None and prepared.tensor[0, 0].numel() <= run.whole_volume_max_voxels

    def forward(rung: Rung) -> NDArray[np.float32]:
        with computing(rung.device, bfloat16=bfloat16 and rung.device == bundle.device):
            tensor = prepared.tensor.to(rung.device)
            if rung.whole and run.whole_volume_divisor is not None:
                return _by_z(_whole(bundle.network, tensor, run.whole_volume_divisor), rules.activation)
            return _by_z(_windows(bundle, tensor), rules.activation)

    probabilities, descent = with_less_memory(bundle, forward, whole=whole)
    return Prediction(probabilities, prepared.grid), descent


def _by_z(logits: torch.Tensor, activation: str) -> NDArray[np.float32]:
    """Logits (1, channels, x, y, z) → probabilities (channels, z, y, x), contiguous for slicing by z.

    On a CPU in slabs: softmax of everything and its transposition would each hold all channels once more. A GPU turns them
    itself and sends them in one piece.
    """
    if logits.device.type != "cpu":
        return _by_z_there(logits, activation)
    channels, x, y, z = logits.shape[1:]
    result = np.empty((channels, z, y, x), dtype=np.float32)
    target = torch.from_numpy(result).permute(0, 3, 2, 1)
    for begin in range(0, x, _SLAB):
        target[:, begin : begin + _SLAB] = _activated(logits[:, :, begin : begin + _SLAB].float(), activation)[0]
    return result


def _by_z_there(logits: torch.Tensor, activation: str) -> NDArray[np.float32]:
    """As `_by_z`, done where the logits are."""
    turned = _activated(logits.float(), activation)[0].permute(0, 3, 2, 1).contiguous()
    result: NDArray[np.float32] = turned.cpu().numpy()
    return result


def _windows(bundle: Bundle, tensor: torch.Tensor) -> torch.Tensor:
    output = bundle.inferer(tensor, bundle.network)
    if not isinstance(output, torch.Tensor) or output.ndim != tensor.ndim or output.shape[2:] != tensor.shape[2:]:
        raise PipelineError("the network gives no map on its input's grid", "only networks that label voxels can be run so far")
    plain: torch.Tensor = output.as_tensor() if isinstance(output, MetaTensor) else output
    return plain


def _whole(network: torch.nn.Module, tensor: torch.Tensor, divisor: int) -> torch.Tensor:
    """One window over everything, padded at the far ends with the value that stands for air: the lowest."""
    sizes = tensor.shape[2:]
    padding = [amount for size in reversed(sizes) for amount in (0, -size % divisor)]
    padded = torch.nn.functional.pad(tensor, padding, value=float(tensor.min()))
    output: torch.Tensor = network(padded.contiguous(memory_format=torch.channels_last_3d))
    return output[:, :, : sizes[0], : sizes[1], : sizes[2]]


def _activated(logits: torch.Tensor, activation: str) -> torch.Tensor:
    if activation == "softmax":
        return torch.softmax(logits, dim=1)
    return torch.sigmoid(logits) if activation == "sigmoid" else logits
