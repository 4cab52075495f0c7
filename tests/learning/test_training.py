"""The bundle's training configuration drives MONAI's trainer and changes weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dicomnode.learning.cache import save_case
from dicomnode.learning.cases import TRUTH_LESION, TRUTH_LUNG, Case
from dicomnode.learning.training import Plan, fit, plan_for, train

BUNDLE = Path(__file__).resolve().parents[2] / "pipelines" / "chest_ct"


def tiny_cache(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(2):
        image = rng.normal(40, 20, (48, 48, 32)).astype(np.int16)
        truth = np.zeros(image.shape, np.uint8)
        image[8:40, 8:40, 4:28], truth[8:40, 8:40, 4:28] = -850, TRUTH_LUNG
        image[20:26, 20:26, 14:18], truth[20:26, 20:26, 14:18] = 40, TRUTH_LESION
        save_case(folder / "phantom", Case(f"phantom-{number}", image, truth, np.array([[23, 23, 16]], np.float32)))
    return folder


def tiny_changes(cache: Path) -> dict[str, object]:
    return {
        "cache_dir": str(cache),
        "device": "$torch.device('cpu')",
        "epochs": 1,
        "steps_per_epoch": 2,
        "batch_size": 1,
        "patch": [32, 32, 32],
        "workers": 0,
    }


def test_two_steps_of_training_change_the_weights_and_the_same_seed_gives_the_same_ones(tmp_path: Path) -> None:
    changes = tiny_changes(tiny_cache(tmp_path))
    losses = [fit(BUNDLE, tmp_path / f"{name}.safetensors", {**changes, "seed": 7}) for name in ("one", "two")]
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    shipped = load_file(BUNDLE / "models" / "model.safetensors")
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in shipped.items()}
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert all(torch.allclose(one[name].float(), two[name].float(), atol=1e-3) for name in one)
    fit(BUNDLE, tmp_path / "more.safetensors", {**changes, "seed": 8}, start=tmp_path / "one.safetensors")
    more = load_file(tmp_path / "more.safetensors")
    assert any(not torch.equal(one[name], more[name]) for name in one if name.endswith("conv.weight"))


def test_frozen_statistics_stay_as_they_were_measured(tmp_path: Path) -> None:
    changes = tiny_changes(tiny_cache(tmp_path))
    fit(BUNDLE, tmp_path / "live.safetensors", changes)
    frozen = {**changes, "frozen_statistics": True}
    fit(BUNDLE, tmp_path / "frozen.safetensors", frozen, start=tmp_path / "live.safetensors")
    live, after = load_file(tmp_path / "live.safetensors"), load_file(tmp_path / "frozen.safetensors")
    statistics = [name for name in live if name.endswith(("running_mean", "running_var"))]
    assert statistics
    assert all(torch.equal(live[name], after[name]) for name in statistics)
    fit(BUNDLE, tmp_path / "measured.safetensors", frozen, start=tmp_path / "live.safetensors", measure_batches=2)
    measured = load_file(tmp_path / "measured.safetensors")
    assert any(not torch.equal(live[name], measured[name]) for name in statistics)


def test_a_plan_for_few_minutes_is_smaller_in_every_part_and_never_empty() -> None:
    few, full = plan_for(3), Plan()
    for name in Plan.__dataclass_fields__:
        assert 1 <= getattr(few, name) < getattr(full, name), name
    assert plan_for(None) == full == plan_for(10_000)


def test_a_whole_training_in_miniature_gives_a_bundle_with_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    small = tmp_path / "small"
    shutil.copytree(BUNDLE, small)
    config = (small / "configs" / "train.json").read_text()
    for old, new in (
        ('"steps_per_epoch": 50', '"steps_per_epoch": 1'),
        ('"batch_size": 4', '"batch_size": 1'),
        ('"patch": [80, 80, 48]', '"patch": [32, 32, 32]'),
        ('"workers": 1', '"workers": 0'),
    ):
        assert old in config
        config = config.replace(old, new)
    (small / "configs" / "train.json").write_text(config)
    tiny_cache(tmp_path / "out" / "cache")  # phantoms 0 and 1 are there already: none has to be drawn
    told: list[str] = []
    report = train(small, tmp_path / "out", plan=Plan(2, *[1] * 11), progress=lambda what, _share: told.append(what))
    assert report.weights.is_file()
    assert len(report.weights_sha256) == 64
    assert report.folds == {}
    assert {"phantoms", "first", "base", "hard cases", "second", "final"} <= set(told)
    assert report.weights.read_bytes() != (BUNDLE / "models" / "model.safetensors").read_bytes()
