"""A bundle's weights in any of their formats, and how much each format must be trusted.

Plain tensors (safetensors; .pt and .pth, read with `weights_only=True`) and ONNX graphs hold data: they need no trust.
TorchScript and `torch.export` archives hold programs: TorchScript may read and write files, and `torch.export.load` evaluates
symbolic expressions of the archive. They are opened only for bundles whose digest is trusted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.engines.catalogue import PROGRAM_SUFFIXES
from dicomnode.engines.reasons import first_line

_CHECKPOINT_KEYS = ("model", "net", "state_dict", "network")


def is_whole_network(path: Path) -> bool:
    """Whether the file brings the network itself, so that no network_def is needed."""
    return path.suffix in PROGRAM_SUFFIXES or path.suffix == ".onnx"


def load_network(path: Path, device: torch.device, *, trusted: bool) -> torch.nn.Module:
    """The network of a TorchScript, `torch.export` or ONNX file. Raises PipelineError."""
    if path.suffix in PROGRAM_SUFFIXES and not trusted:
        raise PipelineError(
            f"the weights {path.name} are a program, and the bundle is not trusted",
            "store the weights as safetensors beside a network_def, or trust the bundle by its digest",
        )
    try:
        if path.suffix == ".onnx":
            from dicomnode.engines.onnx import OnnxNetwork

            return OnnxNetwork(path, device)
        if path.suffix == ".pt2":
            exported: torch.nn.Module = torch.export.load(path).module()
            return exported.to(device)
        scripted: torch.nn.Module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
        return scripted.eval()
    except PipelineError:
        raise
    except Exception as error:  # each format's reader raises its own
        raise PipelineError(f"the network in {path.name} cannot be read: {first_line(error)}", "export it again") from error


def load_weights(network: torch.nn.Module, path: Path) -> None:
    """Puts plain tensors into `network`. Raises PipelineError where they are none or do not fit."""
    state = read_state(path)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise PipelineError(
            f"the weights {path.name} do not fit network_def: {first_line(error)}",
            "train the bundle again, or correct network_def",
        ) from error


def read_state(path: Path) -> Any:
    """The plain tensors of a file by their names in the network. Raises PipelineError where it holds none."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip each raise their own
        raise PipelineError(
            f"the weights {path.name} cannot be read as plain tensors: {first_line(error)}", "store them as safetensors"
        ) from error
    for key in _CHECKPOINT_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    return _unwrapped(state)


def _unwrapped(state: Any) -> Any:
    """Names without the "module." that training on several devices puts before all of them."""
    if isinstance(state, Mapping) and state and all(str(name).startswith("module.") for name in state):
        return {str(name).removeprefix("module."): value for name, value in state.items()}
    return state
