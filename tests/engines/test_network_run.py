"""Preprocessing in memory is MONAI's own; memory that runs out is met by smaller steps."""

from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import EnsureChannelFirstd, EnsureTyped, ScaleIntensityRanged, Spacingd

from dicomnode.domain.errors import PipelineError, ResourceExhausted
from dicomnode.engines.bundle import Bundle
from dicomnode.engines.network_run import Prepared, _by_z, _by_z_there, predict, preprocess
from dicomnode.engines.scaling import leading_scaling_steps
from dicomnode.engines.sidecar import BundleRules, RunRules
from dicomnode.engines.spatial import grid_of, leading_spatial_steps, meta_tensor, network_grid
from dicomnode.engines.values import NetworkInput
from dicomnode.imaging.resampling import Grid, linear_on
from tests.engines.conftest import straight_affine

SHAPE = (24, 60, 70)
GRID = Grid(SHAPE, straight_affine((2.5, 0.8, 0.7), SHAPE))
PIXELS = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)


class _Counting(torch.nn.Module):
    """Two channels: the image and its negative; fails as a full memory does where the batch is too large."""

    def __init__(self, largest_batch: int = 99, message: str = "CUDA out of memory. Tried to allocate 2 GiB") -> None:
        super().__init__()
        self.batches: list[int] = []
        self._largest, self._message = largest_batch, message

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        if len(x) > self._largest:
            raise RuntimeError(self._message)
        return torch.cat([x, -x], dim=1)


def _bundle(network: torch.nn.Module, *transforms: Any, at_once: int = 4) -> Bundle:
    inferer = SlidingWindowInferer(roi_size=(32, 32, 32), sw_batch_size=at_once, overlap=0.0)
    return Bundle(tuple(transforms), network.eval(), inferer, torch.device("cpu"))


@pytest.mark.parametrize(
    "spacing",
    [
        {"pixdim": [1.25, 1.25, 1.5]},
        {"pixdim": [1.5, 1.5, 2.0], "scale_extent": True},
        {"pixdim": [2.0, 2.0, 2.0], "diagonal": True},
        {"pixdim": [-1, -1, 1.0]},
    ],
)
@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_spacing_gives_monais_own_grid_and_values(spacing: dict[str, Any], oblique: bool) -> None:
    turn = np.eye(4)
    if oblique:
        turn[:3, :3] = np.linalg.qr(np.array([[0.99, -0.05, 0.02], [0.05, 0.99, -0.08], [-0.02, 0.08, 0.99]]))[0]
        turn[:3, :3] *= np.sign(np.diag(turn[:3, :3]))
    grid = Grid(SHAPE, turn @ GRID.affine)
    steps = [EnsureChannelFirstd(keys="image"), Spacingd(keys="image", mode="bilinear", **spacing)]
    assert leading_spatial_steps(steps, "image") == 2
    item: Any = {"image": meta_tensor(PIXELS, grid, channel=False)}
    for step in steps:
        item = step(item)
    theirs = item["image"]
    ours = network_grid(steps, grid)
    assert ours.shape == tuple(theirs.shape[:0:-1])
    assert np.allclose(grid_of(theirs.shape[1:], np.asarray(theirs.affine)).affine, ours.affine, atol=1e-6)
    assert np.abs(linear_on(PIXELS, grid, ours) - theirs.numpy()[0].transpose(2, 1, 0)).max() < 0.01


@pytest.mark.parametrize(
    "scaling",
    [
        {"a_min": -1024, "a_max": 600, "b_min": 0.0, "b_max": 1.0, "clip": True},
        {"a_min": -160, "a_max": 240, "b_min": -1.0, "b_max": 1.0},
        {"a_min": 0, "a_max": 7},
    ],
)
def test_scaling_slice_by_slice_gives_monais_own_values(scaling: dict[str, Any]) -> None:
    steps = [
        EnsureChannelFirstd(keys="image"),
        Spacingd(keys="image", pixdim=[1.25, 1.25, 1.5], mode="bilinear"),
        ScaleIntensityRanged(keys="image", **scaling),
        EnsureTyped(keys="image"),
    ]
    assert leading_scaling_steps(steps[2:], "image") == 2
    given = NetworkInput(PIXELS, GRID)
    followed = preprocess(_bundle(_Counting(), *steps), given, BundleRules(), RunRules())
    item: Any = {"image": meta_tensor(linear_on(PIXELS, GRID, followed.grid), followed.grid, channel=True)}
    for step in steps[2:]:
        item = step(item)
    assert np.allclose(followed.tensor[0].numpy(), item["image"].numpy(), atol=1e-4)


def test_steps_that_do_more_than_scale_are_left_to_monai() -> None:
    half = EnsureTyped(keys="image", dtype=torch.float16)
    assert leading_scaling_steps([ScaleIntensityRanged(keys="image", a_min=0, a_max=0), half], "image") == 0
    assert leading_scaling_steps([half], "image") == 0
    assert leading_scaling_steps([ScaleIntensityRanged(keys="label", a_min=0, a_max=1)], "image") == 0


def test_steps_that_do_more_than_move_to_another_grid_are_left_to_monai() -> None:
    steps = [
        EnsureChannelFirstd(keys="image"),
        Spacingd(keys="image", pixdim=[2, 2, 2], mode="nearest"),
        EnsureTyped(keys="image"),
    ]
    assert leading_spatial_steps(steps, "image") == 1
    assert (
        leading_spatial_steps([EnsureChannelFirstd(keys="image"), ScaleIntensityRanged("image", -1000, 1000, 0, 1)], "image")
        == 1
    )


def test_a_crop_keeps_the_grid_of_the_whole() -> None:
    steps = (
        EnsureChannelFirstd(keys="image"),
        Spacingd(keys="image", pixdim=[1.5, 1.5, 2.0], mode="bilinear"),
        ScaleIntensityRanged("image", -1000, 1000, 0, 1),
    )
    given = NetworkInput(PIXELS, GRID, (slice(8, 16), slice(20, 40), slice(10, 50)))
    bundle = _bundle(_Counting(), *steps)
    whole = preprocess(bundle, given, BundleRules(), RunRules())
    crop = preprocess(bundle, given, BundleRules(), RunRules(crop_margin_mm=3.0))
    assert crop.tensor.numel() < 0.5 * whole.tensor.numel()
    start = np.rint(whole.grid.indices(crop.grid.points_mm(np.zeros(3)))).astype(int)
    inside = tuple(slice(s, s + size) for s, size in zip(start, crop.grid.shape, strict=True))
    assert np.allclose(crop.tensor[0, 0].permute(2, 1, 0), whole.tensor[0, 0].permute(2, 1, 0)[inside], atol=1e-5)


def test_probabilities_lie_on_the_grid_that_the_image_had() -> None:
    bundle = _bundle(_Counting(), EnsureTyped(keys="image"), EnsureChannelFirstd(keys="image"))
    prepared = preprocess(bundle, NetworkInput(PIXELS, GRID), BundleRules(), RunRules())
    assert prepared.grid.shape == SHAPE
    assert np.allclose(prepared.grid.affine, GRID.affine)
    prediction, _ = predict(_bundle(_Counting()), _one(), BundleRules(activation="none"), RunRules(), bfloat16=False)
    assert np.allclose(prediction.probabilities[0], PIXELS, atol=1)


def _one() -> Prepared:
    return Prepared(torch.as_tensor(PIXELS.astype(np.float32)).permute(2, 1, 0)[None, None], GRID)


@pytest.mark.parametrize("divisor", [8, 16])
def test_one_window_gives_what_many_give(divisor: int) -> None:
    many, _ = predict(_bundle(_Counting()), _one(), BundleRules(), RunRules(), bfloat16=False)
    one, _ = predict(_bundle(_Counting()), _one(), BundleRules(), RunRules(whole_volume_divisor=divisor), bfloat16=False)
    assert np.allclose(many.probabilities, one.probabilities, atol=1e-5)
    assert np.allclose(one.probabilities.sum(axis=0), 1, atol=1e-5)


def test_memory_that_runs_out_halves_the_windows_at_once_and_restores_the_setting() -> None:
    network = _Counting(largest_batch=1)
    bundle = _bundle(network, at_once=4)
    predict(bundle, _one(), BundleRules(), RunRules(), bfloat16=False)
    assert network.batches[:3] == [4, 2, 1]
    assert bundle.inferer.sw_batch_size == 4


def test_memory_that_runs_out_with_one_window_is_said_and_can_be_tried_again() -> None:
    bundle = _bundle(_Counting(largest_batch=0, message="[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(ResourceExhausted) as raised:
        predict(bundle, _one(), BundleRules(), RunRules(), bfloat16=False)
    assert raised.value.retryable


def test_a_network_that_fails_otherwise_is_not_tried_again() -> None:
    network = _Counting(largest_batch=0, message="mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(PipelineError, match="shapes") as raised:
        predict(_bundle(network), _one(), BundleRules(), RunRules(), bfloat16=False)
    assert not raised.value.retryable
    assert len(network.batches) == 1


def test_a_transform_that_fails_is_an_error_of_the_pipeline() -> None:
    bundle = _bundle(_Counting(), EnsureChannelFirstd(keys="another_key"))
    with pytest.raises(PipelineError, match="another_key"):
        preprocess(bundle, NetworkInput(PIXELS, GRID), BundleRules(image_key="image"), RunRules())


def test_an_image_without_a_channel_axis_is_an_error_of_the_bundle() -> None:
    with pytest.raises(PipelineError, match="axes") as raised:
        preprocess(_bundle(_Counting()), NetworkInput(PIXELS, GRID), BundleRules(), RunRules())
    assert "EnsureChannelFirstd" in raised.value.remedy


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_a_gpu_hands_over_what_a_cpu_makes_in_slabs(activation: str) -> None:
    """The way of a GPU, on a CPU: there is none here."""
    logits = torch.randn(1, 3, 40, 7, 9).contiguous(memory_format=torch.channels_last_3d).to(torch.bfloat16)
    there, here = _by_z_there(logits, activation), _by_z(logits, activation)
    assert there.shape == here.shape == (3, 9, 7, 40)
    assert there.flags.c_contiguous
    assert here.flags.c_contiguous
    np.testing.assert_allclose(there, here, atol=1e-6)
