"""Heat maps lie where the image is, instances are told apart, boxes overlap no more, probabilities are calibrated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Box
from dicomnode.engines import load_pipeline
from dicomnode.engines.own_boxes import overlap, without_overlaps
from dicomnode.engines.own_statements import platt
from dicomnode.engines.rules import Platt
from tests.engines.conftest import as_volume
from tests.engines.test_other_tasks import CLASSES, found_by, radiograph
from tests.engines.test_own_way import ONE, as_values, depth_mm, oblique_affine
from tests.engines.zoo import convolution, ct_segmentation, thresholds, write_bundle

AFFINE = oblique_affine()
DEPTH = depth_mm(AFFINE)
CAM = '[heatmap]\nname = "what was looked at"\nchannel = 1\nmethod = "{method}"\nlayer = "{layer}"\n{more}'


def all_positive(network: torch.nn.Module) -> None:
    """Class 1 is the more probable the brighter anything is; nothing is negative anywhere, so activations lie where it is."""
    for name, parameter in network.named_parameters():
        parameter.fill_(1.0 / max(1, parameter[0].numel()) if parameter.ndim > 1 else 0.0)
        if ("bn" in name or "downsample.1" in name) and name.endswith("weight"):
            parameter.fill_(1.0)
    for name, parameter in network.named_parameters():
        if name == "fc.weight":
            parameter[0], parameter[1] = -1.0, 1.0


def resnet(dims: int) -> dict[str, Any]:
    transforms: list[dict[str, Any]] = [{"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True}]
    if dims == 3:
        transforms.append({"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"})
    transforms.append({"_target_": "Resized", "keys": "image", "spatial_size": [32] * dims})
    return {
        "network_def": {
            "_target_": "ResNet",
            "block": "basic",
            "layers": [1, 1, 1, 1],
            "block_inplanes": [4, 4, 4, 4],
            "spatial_dims": dims,
            "n_input_channels": 1,
            "num_classes": 2,
            "conv1_t_stride": 1,
            "no_max_pool": True,
        },
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
    }


def peak(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The centre of what is at least half as hot as the hottest, (z, y, x)."""
    hot: np.ndarray[Any, Any] = np.argwhere(values >= values.max() / 2).mean(axis=0)
    return hot


@pytest.mark.parametrize(("method", "more"), [("gradcam", ""), ("cam", 'head = "fc"')])
def test_a_class_activation_map_lies_on_a_turned_volume_where_the_cause_is(method: str, more: str, tmp_path: Path) -> None:
    layer = "layer2" if method == "gradcam" else "layer4"
    rules = CLASSES + CAM.format(method=method, layer=layer, more=more)
    folder = write_bundle(tmp_path / "cam", resnet(3), rules, task="classification", weigh=all_positive)
    pixels = np.zeros((26, 44, 52), dtype=np.int16)
    pixels[4:9, 30:37, 8:15] = 100
    found = found_by(folder, as_volume(pixels, AFFINE))
    (heat_map,) = found.heatmaps
    assert (heat_map.values.dtype, heat_map.values.shape, heat_map.scale) == (np.uint8, pixels.shape, pytest.approx(1 / 255))
    assert heat_map.values.max() > 200
    cell = 7 if method == "gradcam" else 14  # voxels that one value of the layer stands for, about
    assert np.abs(peak(heat_map.values) - [6, 33, 11]).max() < cell
    assert heat_map.values[20:, :10, 40:].max() < 30


def test_a_class_activation_map_of_a_radiograph_has_its_pixels(tmp_path: Path) -> None:
    rules = 'kind = "image"\n' + CLASSES + CAM.format(method="gradcam", layer="layer1", more="")
    folder = write_bundle(tmp_path / "cam", resnet(2), rules, task="classification", modality="MG", weigh=all_positive)
    pixels = np.zeros((64, 48))
    pixels[45:55, 5:15] = 100
    (heat_map,) = found_by(folder, radiograph(pixels)).heatmaps
    assert heat_map.values.shape == (1, 64, 48)
    assert np.abs(peak(heat_map.values) - [0, 49.5, 9.5]).max() < 4


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    rules = CLASSES + CAM.format(method="gradcam", layer="layer9", more="")
    folder = write_bundle(tmp_path / "cam", resnet(3), rules, task="classification", weigh=all_positive)
    with pytest.raises(PipelineError, match="class-activation map"):
        found_by(folder, as_volume(np.full((20, 30, 30), 90, np.int16), AFFINE))


def test_the_pieces_of_a_segment_become_segments_largest_first(tmp_path: Path) -> None:
    pixels = np.zeros((26, 44, 52), dtype=np.int16)
    pixels[3:8, 5:15, 5:15] = 100
    pixels[15:23, 25:40, 30:45] = 100
    pixels[15:17, 5:7, 40:42] = 100  # too small
    config = ct_segmentation(inferer={"_target_": "SimpleInferer"})
    config["preprocessing"]["transforms"] = [
        one for one in config["preprocessing"]["transforms"] if one["_target_"] != "Spacingd"
    ]
    rules = ONE.rstrip() + "\ninstances = true\nmin_instance_ml = 0.1\n"
    folder = write_bundle(tmp_path / "lesions", config, rules, weigh=thresholds(0.5))
    found = found_by(folder, as_volume(pixels, AFFINE))
    (label_map,) = found.label_maps
    first, second = label_map.segments
    assert first.label.endswith(" 1")
    assert (first.voxels, second.voxels) == (8 * 15 * 15, 5 * 10 * 10)
    assert len({first.tracking_uid, second.tracking_uid}) == 2
    assert (label_map.labels[20, 30, 35], label_map.labels[5, 10, 10], label_map.labels[15, 5, 40]) == (1, 2, 0)
    assert "1 smaller pieces" in " ".join(found.warnings)


def test_of_overlapping_boxes_of_one_kind_the_most_probable_stays() -> None:
    best = Box("Nodule", (0, 0, 0), (10, 10, 10), 0.9)
    same = Box("Nodule", (1, 0, 0), (11, 10, 10), 0.8)
    other_kind = Box("Mass", (0, 0, 0), (10, 10, 10), 0.7)
    beside = Box("Nodule", (9, 0, 0), (19, 10, 10), 0.6)
    flat = [Box("Calc", (0, 0, 0), (1, 8, 8), 0.9), Box("Calc", (0, 1, 0), (1, 9, 8), 0.8)]  # of a projection
    assert overlap(best, same) == pytest.approx(900 / 1100)
    assert without_overlaps([best, same, other_kind, beside], 0.3) == [best, other_kind, beside]
    assert without_overlaps(flat, 0.5) == flat[:1]


def test_probabilities_are_calibrated_as_the_sidecar_says(tmp_path: Path) -> None:
    assert platt(0.8, Platt()) == 0.8
    assert platt(0.8, Platt(slope=1.0, intercept=-np.log(4))) == pytest.approx(0.5)
    rules = CLASSES.replace('label = "Dense"', 'label = "Dense"\ncalibration = { slope = 0.1, intercept = 0.0 }')
    config = resnet(3)
    config["network_def"] = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 32}
    config["postprocessing"]["transforms"] = [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]

    def sure(network: torch.nn.Module) -> None:
        network.weight.zero_()  # type: ignore[union-attr,operator]
        network.bias.fill_(6.0)  # type: ignore[union-attr,operator]

    folder = write_bundle(tmp_path / "sure", config, rules + "exclusive = false\n", task="classification", weigh=sure)
    fatty, dense = found_by(folder, as_volume(np.zeros((20, 30, 30), np.int16), AFFINE)).classifications
    assert fatty.probability > 0.99
    assert dense.probability == pytest.approx(1 / (1 + np.exp(-0.6)), abs=1e-3)


def test_an_autoencoder_says_how_far_an_image_is_from_what_it_knows_and_where(tmp_path: Path) -> None:
    config = ct_segmentation(network_def=convolution(1), inferer={"_target_": "SimpleInferer"})
    config["postprocessing"]["transforms"] = [{"_target_": "EnsureTyped", "keys": "pred"}]

    def knows_only_air(network: torch.nn.Module) -> None:
        network.weight.zero_()  # type: ignore[union-attr,operator]
        network.bias.zero_()  # type: ignore[union-attr,operator]

    rules = '[anomaly]\nname = "anomaly"\nthreshold = 0.01\n'
    folder = write_bundle(tmp_path / "auto", config, rules, task="anomaly", weigh=knows_only_air)
    pipeline = load_pipeline(folder, device="cpu")
    strange = found_by(folder, as_volume(as_values(DEPTH), AFFINE))
    (said,) = strange.classifications
    assert (said.name, said.value) == ("anomaly", "present")
    assert said.probability > said.threshold
    (heat_map,) = strange.heatmaps
    assert heat_map.values[DEPTH > 3].min() > 150
    assert heat_map.values[DEPTH < -6].max() < 30
    familiar = pipeline.run(as_volume(np.zeros((26, 44, 52), np.int16), AFFINE))
    assert familiar.classifications[0].value == "absent"  # type: ignore[union-attr]
