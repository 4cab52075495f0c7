"""Every layout of inference configuration that the Model Zoo holds, from a volume in memory to findings on its grid."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Refusal, RefusalCode, Volume
from dicomnode.engines import load_pipeline
from tests.engines.conftest import as_volume
from tests.engines.test_own_way import ONE, SHAPE, as_values, depth_mm, near, oblique_affine
from tests.engines.zoo import WINDOWS, convolution, ct_segmentation, thresholds, write_bundle

AFFINE = oblique_affine()
DEPTH = depth_mm(AFFINE)
TWO = '[[segments]]\nlabel = "Rind"\nchannel = 1\n[[segments]]\nlabel = "Core"\nchannel = 2\n'


def ct(values: Any = None) -> Volume:
    return as_volume(as_values(DEPTH) if values is None else values, AFFINE)


def run(folder: Path, image: Volume | None = None, **others: Volume) -> Findings:
    found = load_pipeline(folder, device="cpu").run(image or ct(), others=others)
    assert isinstance(found, Findings), found
    return found


def mask(found: Findings, label: str) -> np.ndarray[Any, Any]:
    ((labels, number),) = [(one.labels, s.number) for one in found.label_maps for s in one.segments if s.label == label]
    return np.asarray(labels == number)


def without(config: dict[str, Any], *targets: str, key: str = "postprocessing") -> dict[str, Any]:
    steps = [step for step in config[key]["transforms"] if step["_target_"] not in targets]
    return {**config, key: {"_target_": "Compose", "transforms": steps}}


def test_a_multi_organ_bundle_that_inverts_labels_gets_no_label_between_two_others(tmp_path: Path) -> None:
    """wholeBody_ct: AsDiscreted before Invertd, whose interpolation would make 1 of 0 and 2."""
    config = ct_segmentation(network_def=convolution(3))
    steps = config["postprocessing"]["transforms"]
    steps[1], steps[2] = steps[2], steps[1]
    rules = '[[segments]]\nlabel = "liver"\nchannel = 1\n[[segments]]\nlabel = "spleen"\nchannel = 2\n'
    found = run(write_bundle(tmp_path / "organs", config, rules, weigh=thresholds(0.5, 0.5001)))  # nothing lies between
    near(mask(found, "spleen"), DEPTH, 1.6)
    assert np.count_nonzero(found.label_maps[0].labels == 1) < 0.01 * np.count_nonzero(found.label_maps[0].labels)


def test_without_an_inverse_of_its_own_probabilities_come_back_by_ours(tmp_path: Path) -> None:
    config = without(ct_segmentation(), "Invertd")
    found = run(write_bundle(tmp_path / "plain", config, ONE, weigh=thresholds(0.5)))
    near(mask(found, "Spleen"), DEPTH, 0.6)


def test_without_any_postprocessing_the_most_probable_channel_is_taken(tmp_path: Path) -> None:
    config = ct_segmentation()
    del config["postprocessing"]
    near(mask(run(write_bundle(tmp_path / "bare", config, ONE, weigh=thresholds(0.5))), "Spleen"), DEPTH, 0.6)


def test_lists_joined_by_an_expression_keys_by_reference_and_channels_made_by_the_loader(tmp_path: Path) -> None:
    config = ct_segmentation(
        preprocessing="$@load_transforms + @deterministic_transforms",
        load_transforms=[{"_target_": "LoadImaged", "keys": "@image_key", "ensure_channel_first": True, "image_only": True}],
        deterministic_transforms=[
            {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@spacing", "mode": "$'bilinear'"},
            {"_target_": "ScaleIntensityRanged", "keys": "@image_key", "a_min": 0, "a_max": 100, "b_min": 0, "b_max": 1},
        ],
        spacing="$[1.5, 3.0 / 2, 2.0]",
    )
    config["inferer"] = {**WINDOWS, "roi_size": "$[len(@spacing) * 16] * 3", "sw_device": "@device"}
    found = run(write_bundle(tmp_path / "joined", without(config, "Invertd"), ONE, weigh=thresholds(0.5)))
    near(mask(found, "Spleen"), DEPTH, 0.6)


def test_a_crop_and_a_pad_are_undone(tmp_path: Path) -> None:
    config = ct_segmentation()
    config["preprocessing"]["transforms"][-1:] = [
        {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "margin": 1, "allow_smaller": True},
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [48, 40, 40]},
        {"_target_": "EnsureTyped", "keys": "image"},
    ]
    found = run(write_bundle(tmp_path / "own_inverse", config, ONE, weigh=thresholds(0.5)))
    near(mask(found, "Spleen"), DEPTH, 0.6)
    found = run(write_bundle(tmp_path / "our_inverse", without(config, "Invertd"), ONE, weigh=thresholds(0.5)))
    near(mask(found, "Spleen"), DEPTH, 0.6)


def slices_config() -> dict[str, Any]:
    """ventricular_short_axis_3label: a 2D network over the slices of a volume."""
    return ct_segmentation(
        network_def=convolution(2, dims=2),
        inferer={"_target_": "SliceInferer", "roi_size": [48, 48], "sw_batch_size": 4, "spatial_dim": 2, "overlap": 0.0},
    )


def test_a_two_dimensional_network_is_taken_over_the_slices(tmp_path: Path) -> None:
    found = run(write_bundle(tmp_path / "slices", slices_config(), ONE, weigh=thresholds(0.5)))
    near(mask(found, "Spleen"), DEPTH, 0.6)


def test_configurations_in_yaml_are_read_like_json(tmp_path: Path) -> None:
    found = run(write_bundle(tmp_path / "yaml", ct_segmentation(), ONE, weigh=thresholds(0.5), as_yaml=True))
    near(mask(found, "Spleen"), DEPTH, 0.6)


def test_an_argument_that_monai_dropped_is_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """swin_unetr_btcv: SwinUNETR lost its img_size; the weights, which must fit, prove that it is the same network."""
    network = {"_target_": "SwinUNETR", "in_channels": 1, "out_channels": 2, "feature_size": 12, "depths": [1, 1, 1, 1]}
    windows = {**WINDOWS, "roi_size": [64, 32, 32], "overlap": 0.0}
    config = ct_segmentation(network_def=network, inferer=windows)
    config["preprocessing"]["transforms"][3]["pixdim"] = [3.0, 3.0, 3.0]
    folder = write_bundle(tmp_path / "dropped", config, ONE)
    written = folder / "configs" / "inference.json"
    written.write_text(written.read_text().replace('"in_channels": 1,', '"in_channels": 1, "img_size": [32, 32, 32],', 1))
    with caplog.at_level(logging.WARNING):
        found = run(folder)
    assert "img_size" in caplog.text
    assert all(label_map.labels.shape == SHAPE for label_map in found.label_maps)  # random weights: anything, but in its place


# --- several series


SERIES = ("t1c", "t1", "t2", "flair")
BRATS = """
[[segments]]
label = "Whole tumor"
channel = 0
[[segments]]
label = "Tumor core"
channel = 1
[[segments]]
label = "Enhancing tumor"
channel = 2
[bundle]
series = ["t1c", "t1", "t2", "flair"]
"""


def brats_config(*last: dict[str, Any]) -> dict[str, Any]:
    """brats_mri_segmentation: four channels in, three sigmoid channels out that overlap."""
    return {
        "device": "$torch.device('cpu')",
        "network_def": convolution(3, in_channels=4),
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "ScaleIntensityd", "keys": "image", "channel_wise": True},
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "inferer": WINDOWS,
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
                *last,
            ],
        },
    }


def nested(network: torch.nn.Module) -> None:
    """Channel n is set where the (n + 2)th series shows something; the first series is looked at by none."""
    weight, bias = network.weight, network.bias
    assert isinstance(weight, torch.Tensor)
    assert isinstance(bias, torch.Tensor)
    weight.zero_()
    bias.fill_(-25.0)
    for channel in range(3):
        weight[channel, channel + 1] = 50.0


def mr(values: np.ndarray[Any, Any]) -> Volume:
    return as_volume(values, AFFINE, modality="MR", unit="1")


def brain() -> dict[str, Volume]:
    shown = {"t1c": DEPTH > 8, "t1": DEPTH > 0, "t2": DEPTH > 3, "flair": DEPTH > 6}
    return {name: mr(where.astype(np.int16) * 300) for name, where in shown.items()}


def test_four_series_are_the_channels_of_one_input_and_overlapping_segments_all_survive(tmp_path: Path) -> None:
    series = brain()
    folder = write_bundle(tmp_path / "brats", brats_config(), BRATS, modality="MR", weigh=nested)
    found = run(folder, series.pop("t1c"), **series)
    for label, depth in (("Whole tumor", 0), ("Tumor core", 3), ("Enhancing tumor", 6)):
        assert np.array_equal(mask(found, label), depth < DEPTH), label
    assert len(found.label_maps) == 3  # each lies within the one before


def test_a_lambda_of_tensors_needs_no_trust(tmp_path: Path) -> None:
    combine = {
        "_target_": "Lambdad",
        "keys": "pred",
        "func": "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[1]] > 0, 1, torch.where(x[[0]] > 0, 2, 0)))",
    }
    rules = BRATS.replace("channel = 0", "channel = 20").replace("channel = 2\n", "channel = 4\n").replace("= 20", "= 2")
    series = brain()
    folder = write_bundle(tmp_path / "brats", brats_config(combine), rules, modality="MR", weigh=nested)
    found = run(folder, series.pop("t1c"), **series)
    (label_map,) = found.label_maps
    assert np.array_equal(mask(found, "Enhancing tumor"), DEPTH > 6)
    assert np.array_equal(mask(found, "Tumor core"), (DEPTH > 3) & (DEPTH <= 6))
    assert np.array_equal(label_map.labels > 0, DEPTH > 0)


def test_a_missing_series_is_named_and_series_of_two_examinations_are_not_joined(tmp_path: Path) -> None:
    series = brain()
    pipeline = load_pipeline(write_bundle(tmp_path / "brats", brats_config(), BRATS, modality="MR", weigh=nested), device="cpu")
    first = series.pop("t1c")
    refusal = pipeline.run(first, others={"t1": series["t1"], "t2": series["t2"]})
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.NO_ELIGIBLE_SERIES
    assert "flair" in refusal.message
    elsewhere = replace(series["t2"], frame_of_reference_uid="2.25.77")
    refusal = pipeline.run(first, others={**series, "t2": elsewhere})
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.MIXED_GEOMETRY


def test_a_series_on_another_grid_is_brought_onto_the_first_ones(tmp_path: Path) -> None:
    series = brain()
    finer = oblique_affine((1.5, 1.1, 0.9))
    deeper = depth_mm(AFFINE)
    series["t1"] = as_volume(np.repeat(deeper > 0, 2, axis=0).astype(np.int16)[:-1] * 300, finer, modality="MR", unit="1")
    folder = write_bundle(tmp_path / "brats", brats_config(), BRATS, modality="MR", weigh=nested)
    found = run(folder, series.pop("t1c"), **series)
    assert np.array_equal(mask(found, "Whole tumor"), DEPTH > 0)


def test_series_under_keys_of_their_own_are_joined_by_the_bundle(tmp_path: Path) -> None:
    """prostate_mri: several keys, joined by ConcatItemsd."""
    config = brats_config()
    keys = ["t2w", "adc"]
    config["network_def"] = convolution(2, in_channels=2)
    config["preprocessing"]["transforms"] = [
        {"_target_": "LoadImaged", "keys": keys},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
        {"_target_": "Orientationd", "keys": keys, "axcodes": "RAS"},
        {"_target_": "ScaleIntensityd", "keys": keys},
        {"_target_": "ConcatItemsd", "keys": keys, "name": "image"},
    ]
    config["postprocessing"]["transforms"] = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    ]
    rules = ONE + '[bundle]\nseries = ["t2w", "adc"]\nseries_as = "keys"\n'

    def second(network: torch.nn.Module) -> None:
        thresholds(0.5)(network)
        network.weight[:, 0] = 0  # type: ignore[index]

    folder = write_bundle(tmp_path / "prostate", config, rules, modality="MR", weigh=second)
    found = run(folder, mr(np.zeros(SHAPE, np.int16)), adc=mr((DEPTH > 0).astype(np.int16) * 300))
    assert np.array_equal(mask(found, "Spleen"), DEPTH > 0)
