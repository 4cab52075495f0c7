"""bfloat16 where it is quicker: MONAI's own `amp` flag knows only CUDA."""

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor


def bfloat16_is_quicker(device: torch.device) -> bool:
    """True on GPUs with bfloat16 and on CPUs with AMX tiles; on other CPUs it runs, but slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported()) if supported is not None else False


class AutocastInferer(Inferer):
    """One forward pass under autocast, channels last; gives float32 logits."""

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16_is_quicker(inputs.device)):
            logits: Tensor = network(inputs, *args, **kwargs)
        return logits.float()
