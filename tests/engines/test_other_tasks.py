"""Bundles that classify or detect, that bring code of their own, or that no node can run."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import FrameRef, HeaderSummary, Image2D, Refusal, RefusalCode, SpacingOrigin, Volume
from dicomnode.engines import check_pipeline, load_pipeline
from dicomnode.engines.digest import bundle_digest
from tests.engines.conftest import as_volume
from tests.engines.test_own_way import ONE, as_values, depth_mm, near, oblique_affine
from tests.engines.zoo import convolution, ct_segmentation, retinanet, thresholds, write_bundle

AFFINE = oblique_affine()
DEPTH = depth_mm(AFFINE)
CLASSES = """
[[classes]]
label = "Fatty"
channel = 0
[[classes]]
label = "Dense"
channel = 1
[statement]
name = "breast density"
"""
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}


def found_by(folder: Path, image: Volume | Image2D, *, trusted: bool = False) -> Findings:
    digests = frozenset({bundle_digest(folder)} if trusted else ())
    found = load_pipeline(folder, device="cpu", trusted_digests=digests).run(image)
    assert isinstance(found, Findings), found
    return found


def radiograph(pixels: np.ndarray[Any, Any]) -> Image2D:
    pixels = pixels.astype(np.float32)
    pixels.setflags(write=False)
    frame = FrameRef("2.25.9", "1.2.840.10008.5.1.4.1.1.1.2")
    return Image2D(pixels, None, SpacingOrigin.NONE, frame, HeaderSummary(modality="MG"), "2.25.1", "2.25.2")


def mean_of(network: torch.nn.Module) -> None:
    """Channel 1 minus channel 0 is 40 × (mean value − 0.5)."""
    weight, bias = network.weight, network.bias
    assert isinstance(weight, torch.Tensor)
    assert isinstance(bias, torch.Tensor)
    weight.zero_()
    weight[1] = 40 / weight[1].numel()
    bias[0], bias[1] = 0, -20


def density(*activation: dict[str, Any]) -> dict[str, Any]:
    """breast_density_classification: a projection as RGB, resized, one value per class, the class index saved."""
    return {
        "network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 2, "kernel_size": 24},
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": 2},
                {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1},
                {"_target_": "Resized", "keys": "image", "spatial_size": [24, 24]},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                *activation,
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveClassificationd", "keys": "pred", "saver": None},
            ],
        },
    }


RGB = 'kind = "image"\n[bundle]\nimage_channels = 3\n' + CLASSES


@pytest.mark.parametrize(("value", "label"), [(200.0, "Dense"), (60.0, "Fatty")])
@pytest.mark.parametrize("activation", [(SOFTMAX,), ()])
def test_a_radiograph_is_classified_as_rgb_with_a_probability(
    value: float, label: str, activation: tuple[dict[str, Any], ...], tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path / "density", density(*activation), RGB, task="classification", modality="MG", weigh=mean_of)
    (statement,) = found_by(folder, radiograph(np.full((40, 32), value))).classifications
    assert (statement.name, statement.value) == ("breast density", label)
    assert statement.probability > 0.99
    assert statement.probability > statement.threshold
    assert statement.value_code.meaning.lower().startswith(label.lower())


def test_classes_that_do_not_exclude_each_other_are_said_one_by_one(tmp_path: Path) -> None:
    config = density(SIGMOID)
    config["network_def"] = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 8}
    config["preprocessing"]["transforms"] = [
        {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 100, "b_min": 0, "b_max": 1},
        {"_target_": "Resized", "keys": "image", "spatial_size": [8, 8, 8]},
    ]
    folder = write_bundle(tmp_path / "both", config, CLASSES + "exclusive = false\n", task="classification", weigh=mean_of)
    found = found_by(folder, as_volume(np.full((20, 30, 30), 90, np.int16), AFFINE))
    assert [(one.name, one.value) for one in found.classifications] == [("Fatty", "present"), ("Dense", "present")]
    found = found_by(folder, as_volume(np.full((20, 30, 30), 10, np.int16), AFFINE))
    assert [(one.name, one.value) for one in found.classifications] == [("Fatty", "present"), ("Dense", "absent")]


def test_logits_are_never_sold_as_probabilities(tmp_path: Path) -> None:
    rules = RGB.replace("image_channels", 'activation = "none"\nimage_channels')
    folder = write_bundle(tmp_path / "logits", density(), rules, task="classification", modality="MG", weigh=mean_of)
    with pytest.raises(PipelineError, match="probabilities expected"):
        load_pipeline(folder, device="cpu").run(radiograph(np.full((40, 32), 200.0)))


def test_a_volume_for_a_model_of_radiographs_is_refused_and_the_other_way_round(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "density", density(), RGB, task="classification", modality="MG", weigh=mean_of)
    refusal = load_pipeline(folder, device="cpu").run(as_volume(as_values(DEPTH), AFFINE, modality="MG"))
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.UNSUPPORTED_CLASS
    folder = write_bundle(tmp_path / "spleen", ct_segmentation(), ONE, modality="MG", weigh=thresholds(0.5))
    refusal = load_pipeline(folder, device="cpu").run(radiograph(np.zeros((40, 32))))
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.UNSUPPORTED_CLASS


def test_a_segmented_radiograph_keeps_rows_and_columns(tmp_path: Path) -> None:
    config = ct_segmentation(
        network_def=convolution(2, dims=2), inferer={"_target_": "SlidingWindowInferer", "roi_size": [32, 32]}
    )
    config["preprocessing"]["transforms"][2:4] = [{"_target_": "Resized", "keys": "image", "spatial_size": [64, 80]}]
    rows, columns = np.mgrid[:40, :32]
    inside = (rows > 25) & (columns < 10)
    rules = 'kind = "image"\n' + ONE
    folder = write_bundle(tmp_path / "lungs", config, rules, modality="MG", weigh=thresholds(0.5))
    (label_map,) = found_by(folder, radiograph(inside * 100.0)).label_maps
    assert label_map.labels.shape == (1, 40, 32)
    assert np.mean((label_map.labels[0] == 1) == inside) > 0.98
    assert label_map.segments[0].volume_ml == 0


# --- detection, with code of the bundle


def test_a_detectors_boxes_lie_where_the_bright_bodies_are(tmp_path: Path) -> None:
    folder = retinanet(tmp_path / "nodules")
    found = found_by(folder, as_volume(as_values(DEPTH), AFFINE), trusted=True)
    assert found.boxes
    best = found.boxes[0]
    assert best.label == "Nodule"
    centre = np.array(best.start + np.array(best.stop) - 1) / 2
    assert DEPTH[tuple(np.rint(centre).astype(int))] > 5
    lesion = found.lesions[0]
    assert lesion.probability == best.probability
    assert np.allclose(lesion.center_mm, AFFINE[:3, :3] @ centre + AFFINE[:3, 3], atol=0.5)
    assert any("boxes" in warning for warning in found.warnings)


def test_a_detectors_boxes_in_a_radiograph_lie_on_its_rows_and_columns(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:96, :64]
    bright = (np.abs(rows - 71) < 6) & (np.abs(columns - 20) < 6)
    found = found_by(retinanet(tmp_path / "masses", dims=2), radiograph(bright * 100.0), trusted=True)
    best = found.boxes[0]
    assert best.label == "Nodule"
    assert (best.start[0], best.stop[0]) == (0, 1)
    middle = (np.array(best.start) + np.array(best.stop) - 1) / 2
    assert np.abs(middle[1:] - (71, 20)).max() <= 5
    assert best.probability >= 0.5
    assert found.lesions == ()  # a projection has no volumes to measure


def test_scripts_of_a_bundle_run_only_for_a_trusted_digest(tmp_path: Path) -> None:
    folder = retinanet(tmp_path / "nodules")
    with pytest.raises(PipelineError, match="not trusted"):
        load_pipeline(folder, device="cpu")
    assert any("scripts" in one.what for one in check_pipeline(folder) if one.level == "error")
    digest = bundle_digest(folder)
    (folder / "scripts" / "inferer.py").write_text((folder / "scripts" / "inferer.py").read_text() + "\n")
    with pytest.raises(PipelineError, match="not trusted"):
        load_pipeline(folder, device="cpu", trusted_digests=frozenset({digest}))


def test_two_trusted_bundles_have_scripts_of_their_own(tmp_path: Path) -> None:
    made = []
    for name, factor in (("first", 1.0), ("second", -1.0)):
        config = ct_segmentation(inferer={"_target_": "scripts.own.Scaled", "factor": factor})
        folder = write_bundle(tmp_path / name, config, ONE, weigh=thresholds(0.5))
        (folder / "scripts").mkdir()
        (folder / "scripts" / "__init__.py").write_text("")
        (folder / "scripts" / "own.py").write_text(
            "from monai.inferers import SimpleInferer\n"
            "class Scaled(SimpleInferer):\n"
            "    def __init__(self, factor):\n        self.factor = factor\n"
            "    def __call__(self, inputs, network):\n"
            "        from scripts.late import SIGN\n"
            "        return SIGN * self.factor * network(inputs)\n"
        )
        (folder / "scripts" / "late.py").write_text(f"SIGN = {factor}\n")  # factor × SIGN is 1: only with one's own scripts
        made.append(load_pipeline(folder, device="cpu", trusted_digests=frozenset({bundle_digest(folder)})))
    for pipeline in made:
        found = pipeline.run(as_volume(as_values(DEPTH), AFFINE))
        assert isinstance(found, Findings)
        near(found.label_maps[0].labels == 1, DEPTH, 0.6)
    assert not [name for name in sys.modules if name.partition(".")[0] == "scripts"]


# --- what no node can run


UNRUNNABLE: dict[str, tuple[dict[str, Any], str]] = {
    "generative": (
        {
            "network_def": {"_target_": "monai.networks.nets.DiffusionModelUNet", "spatial_dims": 3},
            "autoencoder_def": {"_target_": "AutoencoderKL"},
            "noise": "$torch.randn(1, 1, 8, 8, 8)",
        },
        "generative",
    ),
    "HoVerNet": (
        {
            "network_def": {"_target_": "HoVerNet", "mode": "fast", "out_classes": 5},
            "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "HoVerNetInstanceMapPostProcessingd"}]},
        },
        "whole-slide",
    ),
    "tiles of a slide": (
        {
            "dataset": {"_target_": "MaskedInferenceWSIDataset", "data": [], "region_size": 256},
            "network_def": {"_target_": "ResNet"},
        },
        "whole-slide",
    ),
    "an architecture from a file": (
        {
            "arch_ckpt": "$torch.load(@bundle_root + '/models/search_code.pt')",
            "network_def": {"_target_": "DiNTS", "dints_space": "@arch_ckpt"},
        },
        "torch.load",
    ),
}


@pytest.mark.parametrize("name", UNRUNNABLE)
def test_what_cannot_be_run_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    config, word = UNRUNNABLE[name]
    folder = write_bundle(tmp_path / "bundle", {**ct_segmentation(), "network_def": convolution(2)}, ONE)
    import json

    plain = {**ct_segmentation(), **config}
    if name == "generative":
        del plain["preprocessing"]
    (folder / "configs" / "inference.json").write_text(json.dumps(plain))
    with pytest.raises(PipelineError, match=word):
        load_pipeline(folder, device="cpu")
    assert any(word in one.what for one in check_pipeline(folder) if one.level == "error")


def test_a_network_with_several_outputs_is_refused_with_their_number(tmp_path: Path) -> None:
    network = {"_target_": "torch.nn.MaxPool3d", "kernel_size": 1, "return_indices": True}
    config = ct_segmentation(network_def=network, inferer={"_target_": "SimpleInferer"})
    folder = write_bundle(tmp_path / "several", config, ONE)
    with pytest.raises(PipelineError, match="2 outputs"):
        load_pipeline(folder, device="cpu").run(as_volume(as_values(DEPTH), AFFINE))
