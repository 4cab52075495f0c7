"""A volume through a bundle: its preprocessing, its network, its probabilities on the network's grid."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from dicomnode.domain.errors import PipelineError, ResourceExhausted
from dicomnode.engines.bundle import Bundle
from dicomnode.engines.devices import computing, is_out_of_memory
from dicomnode.engines.reasons import first_line
from dicomnode.engines.sidecar import BundleRules, RunRules
from dicomnode.engines.spatial import grid_of, leading_spatial_steps, meta_tensor, network_grid
from dicomnode.engines.values import NetworkInput, Prediction
from dicomnode.imaging.resampling import Grid, linear_on

_log = logging.getLogger(__name__)


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
            item: dict[str, Any] = {key: meta_tensor(linear_on(given.pixels, given.grid, grid), grid, channel=True)}
        else:
            item = {key: meta_tensor(given.pixels, given.grid, channel=False)}
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


def predict(bundle: Bundle, prepared: Prepared, rules: BundleRules, run: RunRules, *, bfloat16: bool) -> Prediction:
    """The network's probabilities for a prepared image. Raises ResourceExhausted where memory runs out with one window."""
    with computing(bundle.device, bfloat16=bfloat16):
        logits = with_less_memory(bundle, lambda: _forward(bundle, prepared.tensor.to(bundle.device), run))
        probabilities = _activated(logits.float(), rules.activation)
        # (1, channels, x, y, z) → (channels, z, y, x), contiguous for slicing by z
        array = probabilities[0].permute(0, 3, 2, 1).contiguous().cpu().numpy()
    return Prediction(array, prepared.grid)


def _forward(bundle: Bundle, tensor: torch.Tensor, run: RunRules) -> torch.Tensor:
    if run.whole_volume_divisor is not None and tensor[0, 0].numel() <= run.whole_volume_max_voxels:
        return _whole(bundle.network, tensor, run.whole_volume_divisor)
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


def with_less_memory(bundle: Bundle, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Runs `forward`; on memory running out, again with half the windows at once, down to one."""
    before = getattr(bundle.inferer, "sw_batch_size", 1)
    try:
        while True:
            try:
                return forward()
            except (RuntimeError, MemoryError) as error:
                at_once = getattr(bundle.inferer, "sw_batch_size", 1)
                if not is_out_of_memory(error):
                    raise PipelineError(
                        f"the network failed: {first_line(error)}", "check the bundle's network and inferer"
                    ) from error
                if at_once <= 1:
                    raise ResourceExhausted(
                        "memory ran out in the network", "give the worker more memory, or use the CPU"
                    ) from error
                bundle.inferer.sw_batch_size = at_once // 2
                _log.warning("memory ran out with %d windows at once, trying %d", at_once, at_once // 2)
            if bundle.device.type == "cuda":
                torch.cuda.empty_cache()
    finally:
        if hasattr(bundle.inferer, "sw_batch_size"):
            bundle.inferer.sw_batch_size = before


def _activated(logits: torch.Tensor, activation: str) -> torch.Tensor:
    if activation == "softmax":
        return torch.softmax(logits, dim=1)
    return torch.sigmoid(logits) if activation == "sigmoid" else logits
