"""Bundle folders laid out like those of the Model Zoo, with networks small enough to say beforehand what they find."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from safetensors.torch import save_file

SIDECAR = """
name = "{name}"
version = "1.0.0"
title = "A bundle of the tests"
task = "{task}"
postprocess = "bundle"
manufacturer = "tests"
intended_use = "tests"
demonstration = true
[input]
modality = "{modality}"
unit = ""
{rules}
"""


def write_bundle(
    folder: Path,
    config: Mapping[str, Any],
    rules: str,
    *,
    task: str = "segmentation",
    modality: str = "CT",
    metadata: Mapping[str, Any] | None = None,
    weigh: Callable[[torch.nn.Module], None] | None = None,
    as_yaml: bool = False,
) -> Path:
    """A bundle in `folder`; `weigh` sets the weights of its `network_def`, which are otherwise random but always the same."""
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if as_yaml:
        import yaml

        (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
    else:
        (folder / "configs" / "inference.json").write_text(json.dumps(config, indent=2))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "1.0.0", **(metadata or {})}))
    if "network_def" in config:
        save_weights(folder, config, weigh)
    if rules is not None:
        text = SIDECAR.format(name=folder.name, task=task, modality=modality, rules=rules)
        (folder / "pipeline.toml").write_text(text)
    return folder


def save_weights(folder: Path, config: Mapping[str, Any], weigh: Callable[[torch.nn.Module], None] | None) -> None:
    torch.manual_seed(0)
    parser = ConfigParser(dict(config))
    network = parser.get_parsed_content("network_def")
    if weigh is not None:
        with torch.no_grad():
            weigh(network)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "models" / "model.safetensors")


def thresholds(*limits: float, steep: float = 50.0) -> Callable[[torch.nn.Module], None]:
    """Weights of a 1 × 1 convolution whose most probable channel is n where the value lies between limits n-1 and n.

    Channel n: steep × (n·v − sum of the first n limits).
    """

    def weigh(network: torch.nn.Module) -> None:
        weight, bias = network.weight, network.bias
        assert isinstance(weight, torch.Tensor)
        assert isinstance(bias, torch.Tensor)
        for channel in range(len(limits) + 1):
            weight[channel] = steep * channel
            bias[channel] = -steep * sum(limits[:channel])

    return weigh


def convolution(out_channels: int, *, in_channels: int = 1, dims: int = 3) -> dict[str, Any]:
    """A network that looks at one voxel at a time."""
    name = {2: "torch.nn.Conv2d", 3: "torch.nn.Conv3d"}[dims]
    return {"_target_": name, "in_channels": in_channels, "out_channels": out_channels, "kernel_size": 1}


WINDOWS = {"_target_": "SlidingWindowInferer", "roi_size": [48, 48, 48], "sw_batch_size": 2, "overlap": 0.25}


def ct_segmentation(**changed: Any) -> dict[str, Any]:
    """Laid out like spleen_ct_segmentation: Orientation, Spacing, windows, softmax, Invertd, argmax, saving."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/workspace/data",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": convolution(2),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
                {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 100, "b_min": 0, "b_max": 1},
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False, "num_workers": 4},
        "inferer": WINDOWS,
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "handlers": [{"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'"}],
        "evaluator": {"_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader"},
        "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)"],
        "run": ["$@evaluator.run()"],
        **changed,
    }


INFERER_SCRIPT = '''
from monai.inferers import Inferer


class DetectorInferer(Inferer):
    """As lung_nodule_ct_detection has it: the detector brings its own windows."""

    def __init__(self, detector, operations):
        super().__init__()
        self.detector = detector

    def __call__(self, inputs, network, *args, **kwargs):
        self.detector.network = network
        self.detector.training = network.training
        return self.detector(inputs, use_inferer=False)
'''

FEATURES_SCRIPT = '''
import torch


class Brightness(torch.nn.Module):
    """One feature map, eight times coarser than the image: how bright it is."""

    out_channels = 8  # GroupNorm of the heads has eight groups

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, image):
        pool = torch.nn.functional.avg_pool3d if image.ndim == 5 else torch.nn.functional.avg_pool2d
        bright = pool(image, 8)
        return {"0": torch.cat([bright * self.scale] * self.out_channels, dim=1)}
'''


def retinanet(folder: Path, *, dims: int = 3) -> Path:
    """Laid out like lung_nodule_ct_detection, weighed by hand: a box is as probable as its middle is bright.

    dims: 2 for one of radiographs, which lie nowhere and have no spacing.
    """
    config: dict[str, Any] = {
        "network_def": {
            "_target_": "RetinaNet",
            "spatial_dims": dims,
            "num_classes": 1,
            "num_anchors": "$@anchor_generator.num_anchors_per_location()[0]",
            "feature_extractor": {"_target_": "scripts.features.Brightness"},
            "size_divisible": [8] * dims,
            "use_list_output": False,
        },
        "network": "$@network_def.to(@device)",
        "anchor_generator": {
            "_target_": "monai.apps.detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
            "feature_map_scales": [1],
            "base_anchor_shapes": [[10] * dims],
        },
        "detector": {
            "_target_": "RetinaNetDetector",
            "network": "@network",
            "anchor_generator": "@anchor_generator",
            "debug": False,
            "spatial_dims": dims,
            "num_classes": 1,
            "size_divisible": [8] * dims,
        },
        "detector_ops": [
            "$@detector.set_target_keys(box_key='box', label_key='label')",
            "$@detector.set_box_selector_parameters(score_thresh=0.3, topk_candidates_per_level=100, nms_thresh=0.2)",
        ],
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "reader": "itkreader", "affine_lps_to_ras": True},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0]},
                {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 100, "b_min": 0, "b_max": 1},
            ],
        },
        "inferer": {"_target_": "scripts.inferer.DetectorInferer", "detector": "@detector", "operations": "@detector_ops"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "ClipBoxToImaged",
                    "box_keys": "box",
                    "label_keys": ["label", "label_scores"],
                    "box_ref_image_keys": "image",
                    "remove_empty": True,
                },
                {
                    "_target_": "AffineBoxToWorldCoordinated",
                    "box_keys": "box",
                    "box_ref_image_keys": "image",
                    "affine_lps_to_ras": True,
                },
                {"_target_": "ConvertBoxModed", "box_keys": "box", "src_mode": "xyzxyz", "dst_mode": "cccwhd"},
                {"_target_": "DeleteItemsd", "keys": ["image"]},
            ],
        },
    }
    rules, modality = BOXES, "CT"
    if dims == 2:
        steps = config["preprocessing"]["transforms"]
        steps[:] = [step for step in steps if step["_target_"] not in ("Orientationd", "Spacingd")]
        steps[0] = {"_target_": "LoadImaged", "keys": "image"}
        rules, modality = 'kind = "image"\n' + BOXES, "MG"
    folder.mkdir()
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").write_text("")
    (folder / "scripts" / "inferer.py").write_text(INFERER_SCRIPT)
    (folder / "scripts" / "features.py").write_text(FEATURES_SCRIPT)
    parts = {key: value for key, value in config.items() if key != "network_def"}
    write_bundle(folder, parts, rules, task="detection", modality=modality)
    (folder / "configs" / "inference.json").write_text(json.dumps(config, indent=2))
    _retinanet_weights(folder, config)
    return folder


BOXES = '[boxes]\nlabels = ["Nodule"]\nmin_probability = 0.5\nmax_count = 2\n'


def _retinanet_weights(folder: Path, config: Mapping[str, Any]) -> None:
    from dicomnode.engines.building import OwnCode, build

    content = build(config, folder, torch.device("cpu"), ("network_def",), own_code=OwnCode(folder))
    network = content["network_def"]
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            _weigh_head(name, parameter)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "models" / "model.safetensors")


def _weigh_head(name: str, parameter: torch.Tensor) -> None:
    """Convolutions hand on the middle voxel of the first channel; boxes are the anchors."""
    if "feature_extractor" in name:
        return
    parameter.zero_()
    middle: tuple[Any, ...] = (1,) * (parameter.ndim - 2)
    if "regression_head" in name:
        return
    if name.endswith("cls_logits.weight"):
        parameter[(slice(None), 0, *middle)] = 2.0
    elif name.endswith("cls_logits.bias"):
        parameter.fill_(-3.0)
    elif name.endswith("weight") and parameter.ndim > 3:
        for channel in range(len(parameter)):
            parameter[(channel, channel, *middle)] = 1.0
    elif name.endswith("weight"):
        parameter.fill_(1.0)
