"""What engine tests share: the tiny bundle, a copy of it to spoil, phantoms as volumes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomnode.domain.imaging import FrameRef, HeaderSummary, Volume, read_only
from dicomnode.engines import Pipeline, load_pipeline

TINY = Path(__file__).parent.parent / "pipelines" / "tiny"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def as_volume(pixels: NDArray[Any], affine: NDArray[np.float64], *, modality: str = "CT", unit: str = "[hnsf'U]") -> Volume:
    """A volume as imaging would give it."""
    frames = tuple(FrameRef(f"2.25.9.{index}", CT_IMAGE_STORAGE) for index in range(len(pixels)))
    headers = HeaderSummary(modality=modality)
    return Volume(read_only(pixels), unit, affine, "2.25.3", frames, headers, "2.25.1", "2.25.2")


def straight_affine(spacing_mm: tuple[float, float, float], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """z to the head, y to the back, x to the left; the volume's middle at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, spacing_mm[2]], [0, spacing_mm[1], 0], [spacing_mm[0], 0, 0]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


@pytest.fixture(scope="session")
def tiny() -> Pipeline:
    return load_pipeline(TINY, device="cpu")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the tiny bundle."""
    folder = tmp_path / "tiny"
    shutil.copytree(TINY, folder)
    return folder


@pytest.fixture
def change_config(bundle: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Changes the copy's configs/inference.json by a function and gives the bundle's folder."""

    def change(edit: Callable[[dict[str, Any]], None]) -> Path:
        path = bundle / "configs" / "inference.json"
        config = json.loads(path.read_text())
        edit(config)
        path.write_text(json.dumps(config))
        return bundle

    return change
