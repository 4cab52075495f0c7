"""A MONAI bundle in memory: transforms, network with its weights, inferer. This module loads torch and MONAI."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai.inferers
import monai.transforms
import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.engines.building import OwnCode, build
from dicomnode.engines.catalogue import inference_file, verified_weights
from dicomnode.engines.kinds import refuse_kind
from dicomnode.engines.lean import leaned
from dicomnode.engines.safety import OWN_WAY_KEYS, WANTED_KEYS, from_memory, read_config, without_file_transforms
from dicomnode.engines.sidecar import Sidecar
from dicomnode.engines.weights import is_whole_network, load_network, load_weights

_FILE_CLASSES = (
    *(monai.transforms.LoadImage, monai.transforms.LoadImaged, monai.transforms.SaveImage, monai.transforms.SaveImaged),
    *(monai.transforms.WriteFileMapping, monai.transforms.WriteFileMappingd),
    monai.transforms.SaveClassificationd,
)


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """What a bundle brings. Transforms are flat, in order, without those that read or write files.

    `postprocessing` is empty for pipelines whose reading stands for it.
    """

    preprocessing: tuple[Any, ...]
    network: torch.nn.Module
    inferer: Any
    device: torch.device
    postprocessing: tuple[Any, ...] = ()
    own_code: OwnCode | None = None  # of a trusted bundle


def load_bundle(folder: Path, sidecar: Sidecar, device: torch.device, *, trusted: bool) -> Bundle:
    """Reads, checks and builds a bundle. Raises PipelineError for anything that is not allowed, missing or does not fit."""
    config = read_config(inference_file(folder))
    if (why := refuse_kind(config)) is not None:
        raise PipelineError(f"{folder.name}: {why}", "choose a bundle that finds something in a DICOM series")
    weights = verified_weights(folder, sidecar)
    whole = is_whole_network(weights)
    own_way = sidecar.postprocess == "bundle"
    wanted = tuple(key for key in (OWN_WAY_KEYS if own_way else WANTED_KEYS) if not (whole and key == "network_def"))
    prepared = from_memory(config) if own_way else without_file_transforms(config)
    own_code = OwnCode(folder) if trusted else None
    content = build(prepared, folder, device, wanted, own_code=own_code)
    if own_way and content.get("inferer") is None:
        content["inferer"] = monai.inferers.SimpleInferer()
    if missing := [key for key in wanted if content.get(key) is None and key != "postprocessing"]:
        raise PipelineError(f"{folder.name}: configs/inference.json has no {', '.join(missing)}", "add it to the bundle")
    network: Any = load_network(weights, device, trusted=trusted) if whole else content["network_def"]
    if not whole:
        load_weights(network, weights)
        memory_format = torch.channels_last_3d if _is_3d(network) else torch.preserve_format
        lean: Any = leaned(network.eval())  # torch's stubs do not know memory_format on a module
        network = lean.to(device=device, memory_format=memory_format)
    return Bundle(
        preprocessing=tuple(flat(content["preprocessing"])),
        network=network,
        inferer=content["inferer"],
        device=device,
        postprocessing=tuple(flat(content.get("postprocessing") or ())),
        own_code=own_code,
    )


def flat(transforms: Any) -> Iterator[Any]:
    """The single transforms of a bundle, in order, without those that read or write files."""
    if type(transforms) is monai.transforms.Compose:  # OneOf and its kind are Compose too, and choose
        transforms = transforms.transforms
    if isinstance(transforms, list | tuple):
        for inner in transforms:
            yield from flat(inner)
    elif not isinstance(transforms, _FILE_CLASSES):  # what a trusted bundle's own code made
        yield transforms


def _is_3d(network: torch.nn.Module) -> bool:
    return any(isinstance(module, torch.nn.Conv3d) for module in network.modules())
