"""What the shipped bundle must be: small, modest, measured, and indifferent to window and crop."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from safetensors.torch import load_file

from dicomnode.learning.cases import AIR_HU, TRUTH_LUNG, TRUTH_OUTSIDE, Case, phantom_case
from dicomnode.learning.metrics import dice

BUNDLE = Path(__file__).resolve().parents[2] / "pipelines" / "chest_ct"
WEIGHTS = BUNDLE / "models" / "model.safetensors"


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    return dict(json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "inference.json")
    network: torch.nn.Module = parser.get_parsed_content("network_def")
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval().to(memory_format=torch.channels_last_3d)


@pytest.fixture(scope="module")
def case() -> Case:
    whole = phantom_case(800_000_001, region="chest")
    part = np.s_[:, :, :96]  # enough for windows to differ from the whole; quicker
    return Case(whole.name, whole.image[part], whole.truth[part], whole.lesions)


def test_the_weights_are_below_five_megabytes_and_are_those_that_the_metadata_name(metadata: dict[str, Any]) -> None:
    assert WEIGHTS.stat().st_size < 5_000_000
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == metadata["weights_sha256"]


def test_metadata_and_card_say_demonstration_and_not_for_clinical_use(metadata: dict[str, Any]) -> None:
    card = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    assert metadata["demonstration"] is True
    assert "not for clinical use" in metadata["intended_use"].lower()
    assert "not for clinical use" in card.lower()
    for collection in ("CMB-CRC", "LIDC-IDRI", "Lung-PET-CT-Dx", "RIDER Pilot", "Colorectal-Liver-Metastases"):
        assert collection in card
        assert collection in (BUNDLE.parents[1] / "NOTICE").read_text(encoding="utf-8")


def test_the_card_shows_the_figures_of_the_metadata(metadata: dict[str, Any]) -> None:
    card = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    phantom = metadata["eval_metrics"]["phantom"]
    for name in ("lung_dice", "lesion_dice", "lesion_sensitivity", "false_positives_per_scan"):
        assert f"{phantom[name]}" in card
        assert metadata["metrics"][f"phantom_{name}"] == phantom[name]
    assert len(metadata["eval_metrics"]["real"]) >= 4


def test_training_and_inference_describe_the_same_network() -> None:
    described = [
        json.loads((BUNDLE / "configs" / name).read_text())["network_def"] for name in ("inference.json", "train.json")
    ]
    assert described[0] == described[1]


def test_window_and_crop_change_the_lungs_by_no_more_than_a_hundredth_of_dice(network: torch.nn.Module, case: Case) -> None:
    image = np.where(case.truth == TRUTH_OUTSIDE, AIR_HU, case.image).astype(np.float32)
    scaled = torch.from_numpy(np.clip((image + 1024) / 1624, 0, 1))[None, None]
    padded = torch.nn.functional.pad(scaled, [p for size in reversed(image.shape) for p in (0, -size % 16)])
    with torch.inference_mode():
        whole = _lungs(network(padded), image.shape)
        windows = _lungs(
            sliding_window_inference(padded, (160, 160, 64), 1, network, overlap=0.25, mode="gaussian"), image.shape
        )
        box = _box_around(case.truth == TRUTH_LUNG, margin=12)
        part = torch.from_numpy(np.ascontiguousarray(scaled[0, 0].numpy()[box]))[None, None]
        shape = tuple(part.shape[2:])
        cropped = _lungs(network(torch.nn.functional.pad(part, [p for s in reversed(shape) for p in (0, -s % 16)])), shape)
    truth = case.truth == TRUTH_LUNG
    reference = dice(whole, truth)
    assert reference > 0.95
    assert dice(windows, truth) == pytest.approx(reference, abs=0.01)
    assert dice(cropped, truth[box]) == pytest.approx(reference, abs=0.01)
    assert dice(windows, whole) > 0.99
    assert dice(cropped, whole[box]) > 0.99


def _lungs(logits: torch.Tensor, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    x, y, z = shape
    found: NDArray[np.bool_] = (logits[0].argmax(dim=0) == 1).numpy()[:x, :y, :z]
    return found


def _box_around(mask: NDArray[np.bool_], margin: int) -> tuple[slice, ...]:
    where = np.argwhere(mask)
    return tuple(slice(max(0, a - margin), b + margin + 1) for a, b in zip(where.min(axis=0), where.max(axis=0), strict=True))
