"""A MONAI bundle in memory: transforms, network with its weights, inferer. This module loads torch and MONAI."""

import importlib
import inspect
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai.inferers
import monai.networks.nets
import monai.transforms
import torch
from monai.bundle import ConfigParser

from dicomnode.domain.errors import PipelineError
from dicomnode.engines.catalogue import inference_file, read_metadata, verified_weights
from dicomnode.engines.safety import ALLOWED_MODULES, WANTED_KEYS, Examined, examine, read_config, without_file_transforms
from dicomnode.engines.sidecar import Sidecar

_log = logging.getLogger(__name__)

_BASES = (monai.transforms.Transform, monai.transforms.Compose, monai.inferers.Inferer, torch.nn.Module)
_HOME_MODULES = ("monai.transforms.", "monai.inferers.", "monai.networks.", "torch.nn.")
_CHECKPOINT_KEYS = ("model", "net", "state_dict", "network")


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """What a bundle brings. Transforms are flat, in order, without those that read or write files."""

    preprocessing: tuple[Any, ...]
    network: torch.nn.Module
    inferer: Any
    device: torch.device


def load_bundle(folder: Path, sidecar: Sidecar, device: torch.device, *, trusted: bool) -> Bundle:
    """Reads, checks and builds a bundle. Raises PipelineError for anything that is not allowed, missing or does not fit."""
    config = read_config(inference_file(folder))
    parser = _parser_of_trusted(config, folder) if trusted else _parser_of_examined(config, folder)
    parser["bundle_root"] = str(folder)
    parser["device"] = f"$torch.device('{device}')"
    try:
        content = {key: parser.get_parsed_content(key) for key in WANTED_KEYS if key in parser}
    except Exception as error:  # whatever a bundle's own arguments make MONAI raise
        raise PipelineError(
            f"{folder.name}: its configuration cannot be built: {_innermost(error)}", "correct configs/inference.json"
        ) from error
    if missing := [key for key in WANTED_KEYS if content.get(key) is None]:
        raise PipelineError(f"{folder.name}: configs/inference.json has no {', '.join(missing)}", "add it to the bundle")
    network = content["network_def"]
    _load_weights(network, verified_weights(folder, sidecar))
    memory_format = torch.channels_last_3d if _is_3d(network) else torch.preserve_format
    return Bundle(
        preprocessing=tuple(_flat(content["preprocessing"])),
        network=network.eval().to(device=device, memory_format=memory_format),
        inferer=content["inferer"],
        device=device,
    )


def _parser_of_examined(config: dict[str, Any], folder: Path) -> ConfigParser:
    examined = examine(config)
    if examined.violations:
        first = examined.violations[0]
        raise PipelineError(
            f"{folder.name} is not trusted and its configuration is not plain: {first.where}: {first.what}"
            + (f" (and {len(examined.violations) - 1} more)" if len(examined.violations) > 1 else ""),
            "see `dicomnode pipelines check`; an administrator may trust the bundle by its digest",
        )
    return ConfigParser(_with_classes(examined))


def _parser_of_trusted(config: dict[str, Any], folder: Path) -> ConfigParser:
    """The whole file as it is, file transforms apart; its scripts folder can be imported."""
    _log.warning("pipeline %s runs code of its bundle: its digest is trusted", folder.name)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    parser = ConfigParser({**without_file_transforms(config), "_meta_": read_metadata(folder)})
    if "imports" in config:
        parser.get_parsed_content("imports")
    return parser


def _with_classes(examined: Examined) -> dict[str, Any]:
    """The examined configuration with each `_target_` as the full name of the class that was checked."""

    def rewritten(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: _class_name(inner) if key == "_target_" else rewritten(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [rewritten(inner) for inner in value]
        return value

    return {key: rewritten(value) for key, value in examined.config.items()}


def _class_name(target: str) -> str:
    """`target` as module and name of an allowed class. Raises PipelineError for functions and anything from elsewhere."""
    module_name, _, name = target.rpartition(".")
    for candidate in (module_name,) if module_name else ALLOWED_MODULES:
        try:
            found = getattr(importlib.import_module(candidate), name, None)
        except ImportError:
            found = None
        if inspect.isclass(found) and issubclass(found, _BASES) and f"{found.__module__}.".startswith(_HOME_MODULES):
            return f"{found.__module__}.{found.__qualname__}"
    raise PipelineError(
        f"{target!r} is no transform, inferer or network of MONAI or torch.nn", "correct the _target_ in the bundle"
    )


def _load_weights(network: torch.nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip each raise their own
        raise PipelineError(
            f"the weights {path.name} cannot be read as plain tensors: {_innermost(error)}", "store them as safetensors"
        ) from error
    for key in _CHECKPOINT_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise PipelineError(
            f"the weights {path.name} do not fit network_def: {_innermost(error)}",
            "train the bundle again, or correct network_def",
        ) from error


def _flat(transforms: Any) -> Iterator[Any]:
    if isinstance(transforms, monai.transforms.Compose):
        transforms = transforms.transforms
    if isinstance(transforms, list | tuple):
        for inner in transforms:
            yield from _flat(inner)
    else:
        yield transforms


def _is_3d(network: torch.nn.Module) -> bool:
    return any(isinstance(module, torch.nn.Conv3d) for module in network.modules())


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
