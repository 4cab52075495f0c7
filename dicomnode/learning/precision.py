"""bfloat16 where it is quicker: MONAI's own `amp` flag knows only CUDA."""

from collections.abc import Iterable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn


def bfloat16_is_quicker(device: torch.device) -> bool:
    """True on GPUs with bfloat16 and on CPUs with AMX tiles; on other CPUs it runs, but slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported()) if supported is not None else False


class AutocastInferer(Inferer):  # type: ignore[misc]  # MONAI is untyped
    """One forward pass under autocast, channels last; gives float32 logits.

    frozen_statistics: batch normalization uses its running statistics although the network trains. Two patches are no sample of
    all scans: a network that learned with their statistics falls apart with the running ones (lung Dice .97 became .33), and
    window and crop would matter to one that used them.
    """

    def __init__(self, *, frozen_statistics: bool = False) -> None:
        self.frozen_statistics = frozen_statistics

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Logits of `inputs` (b, channels, x, y, z)."""
        if self.frozen_statistics:
            for layer in normalizations(network):
                layer.eval()
        inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16_is_quicker(inputs.device)):
            logits: Tensor = network(inputs, *args, **kwargs)
        return logits.float()


def normalizations(network: nn.Module) -> list[nn.BatchNorm3d]:
    """The network's batch normalization layers."""
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm3d)]


def measure_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of batch normalization to the plain average over `batches`; no weight changes."""
    layers = normalizations(network)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
    network.train()
    pass_through = AutocastInferer()
    with torch.no_grad():
        for batch in batches:
            pass_through(batch, network)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
