"""An nnU-Net v2 model folder is a pipeline: its own preprocessing and windows, labels on the source grid, checkpoints as data.

nnunetv2 is an optional extra and not in the node's lock. What needs it is skipped loudly where it is not installed.
"""

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Refusal
from dicomnode.engines import check_pipeline, load_pipeline
from dicomnode.engines.digest import bundle_digest
from dicomnode.engines.nnunet import draft_nnunet
from tests.engines.conftest import as_volume
from tests.engines.test_own_way import as_values, depth_mm, near, oblique_affine

INSTALLED = find_spec("nnunetv2") is not None
needs_nnunet = pytest.mark.skipif(
    not INSTALLED, reason="NOT PROVEN HERE: nnunetv2 is not installed; pip install 'dicomnode-ai[nnunet]', then run this again"
)
AFFINE = oblique_affine()
DEPTH = depth_mm(AFFINE)


@dataclass
class RunsCode:
    witness: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


def plans(channels: int = 1) -> dict[str, Any]:
    """As nnU-Net's planner writes them, for two stages of four and eight features."""
    resample = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset900_Tests",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.5, 1.5],
        "original_median_shape_after_transp": [40, 48, 48],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(one): {"max": 100, "mean": 50, "median": 50, "min": 0, "percentile_00_5": 0, "percentile_99_5": 100, "std": 10}
            for one in range(channels)
        },
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [32, 32, 32],
                "median_image_size_in_voxels": [40, 48, 48],
                "spacing": [2.0, 1.5, 1.5],
                "normalization_schemes": ["CTNormalization"] * channels,
                "use_mask_for_norm": [False] * channels,
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resample,
                "resampling_fn_seg_kwargs": {**resample, "is_seg": True},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resample,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": 2,
                        "features_per_stage": [4, 8],
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                        "strides": [[1, 1, 1], [2, 2, 2]],
                        "n_conv_per_stage": [1, 1],
                        "n_conv_per_stage_decoder": [1],
                        "conv_bias": True,
                        "norm_op": None,
                        "norm_op_kwargs": {},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.Identity",  # linear, so that interpolation is exact
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": True,
            }
        },
    }


def dataset(channels: tuple[str, ...] = ("CT",)) -> dict[str, Any]:
    names = {str(number): name for number, name in enumerate(channels)}
    return {"channel_names": names, "labels": {"background": 0, "spleen": 1}, "numTraining": 3, "file_ending": ".nii.gz"}


def write_model(folder: Path, *, weights: dict[str, torch.Tensor] | None = None, extra: object = None) -> Path:
    """A trained model as `nnUNetv2_train` leaves it, with its sidecar."""
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans()))
    (folder / "dataset.json").write_text(json.dumps(dataset()))
    checkpoint = {
        "network_weights": weights or {},
        "optimizer_state": {"state": {}, "param_groups": []},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "epoch_start_timestamps": [1.0]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"plans": plans(), "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset(), "device": "cpu"},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    if extra is not None:
        checkpoint["logging"] = extra
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    (folder / "pipeline.toml").write_text(draft_nnunet(folder, "spleen_nnunet", None).text)
    return folder


def brightness() -> dict[str, torch.Tensor]:
    """Weights by which a voxel is spleen where it is brighter than the mean of training, 50, through all layers."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    one = plans()["configurations"]["3d_fullres"]["architecture"]
    network = get_network_from_plans(
        one["network_class_name"],
        one["arch_kwargs"],
        one["_kw_requires_import"],
        1,
        2,
        allow_init=False,
        deep_supervision=False,
    )
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for name, value in state.items():
        if name.endswith("weight") and "transpconv" not in name and value.shape[2:] == (3, 3, 3):
            if "decoder.stages" in name:
                value[0, value.shape[1] // 2, 1, 1, 1] = 1.0  # the skipped feature, behind those from below
            else:
                value[0, 0, 1, 1, 1] = 1.0
        if name.endswith("seg_layers.0.weight"):
            value[1, 0] = 10.0
    return state


def test_a_folder_is_drafted_and_checked_without_running_anything(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "spleen")
    said = {one.what: one for one in check_pipeline(folder)}
    assert any("weights_only" in what for what in said)
    missing = [one for what, one in said.items() if "nnunetv2 is not installed" in what]
    assert bool(missing) is not INSTALLED
    assert all("dicomnode-ai[nnunet]" in one.remedy for one in missing)
    assert [one for one in said.values() if one.level == "error"] == missing
    assert 'label = "spleen"' in (folder / "pipeline.toml").read_text()


def test_several_channels_become_roles_of_series(tmp_path: Path) -> None:
    folder = tmp_path / "brats"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(dataset(("T1", "FLAIR"))))
    draft = draft_nnunet(folder, "brats", None)
    assert 'modality = "MR"' in draft.text
    assert 'SeriesDescription = "*flair*"' in draft.text
    assert any("T1" in doubt for doubt in draft.doubts)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("architecture", "network_class_name"), "os.system"),
        (("architecture", "arch_kwargs", "nonlin"), "subprocess.Popen"),
        (("resampling_fn_data",), "shutil.rmtree"),
        (("preprocessor_name",), "MyPreprocessor"),
    ],
)
def test_plans_can_name_no_other_code(place: tuple[str, ...], value: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "spleen")
    changed = plans()
    inner = changed["configurations"]["3d_fullres"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (folder / "plans.json").write_text(json.dumps(changed))
    assert any(value in one.what and one.level == "error" for one in check_pipeline(folder))
    with pytest.raises(PipelineError, match=value):
        load_pipeline(folder, device="cpu")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    folder = write_model(tmp_path / "spleen", extra=RunsCode(ran))
    with pytest.raises(PipelineError, match="cannot be read as plain tensors"):
        load_pipeline(folder, device="cpu")
    assert not ran.exists()


def test_what_makes_the_model_is_in_its_digest(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "spleen")
    before = bundle_digest(folder)
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes() + b"\0")
    after = bundle_digest(folder)
    (folder / "plans.json").write_text(json.dumps({**plans(), "plans_name": "other"}))
    assert len({before, after, bundle_digest(folder)}) == 3


@needs_nnunet
def test_a_model_segments_a_volume_where_it_lies(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "spleen", weights=brightness())
    found = load_pipeline(folder, device="cpu").run(as_volume(as_values(DEPTH), AFFINE))
    assert isinstance(found, Findings), found
    (label_map,) = found.label_maps
    assert label_map.segments[0].label == "spleen"
    near(label_map.labels, DEPTH, 1.5)
    assert set(found.timings_s) == {"preprocess", "forward", "postprocess"}


@needs_nnunet
def test_two_runs_agree_and_another_modality_is_refused(tmp_path: Path) -> None:
    pipeline = load_pipeline(write_model(tmp_path / "spleen", weights=brightness()), device="cpu")
    volume = as_volume(as_values(DEPTH), AFFINE)
    first, second = pipeline.run(volume), pipeline.run(volume, speed="fast")
    assert isinstance(first, Findings)
    assert isinstance(second, Findings)
    assert np.array_equal(first.label_maps[0].labels, second.label_maps[0].labels)
    assert isinstance(pipeline.run(as_volume(as_values(DEPTH), AFFINE, modality="MR")), Refusal)
