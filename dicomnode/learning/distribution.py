"""Fits what `[distribution]` of a pipeline needs: how the images of its training are scattered, and where that ends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.engines.distribution import features
from dicomnode.engines.pipeline import Pipeline

Method = Literal["mahalanobis", "knn"]
_NEIGHBOURS = 3
_FARTHEST = 0.99  # quantile of the training images' distances, each left out in turn: one stray image does not open the gate


def _slack(images: int) -> float:
    """How far beyond it the limit lies: few images know little of where the others end."""
    return 1.1 + 2.0 / images


def rows_of(pipeline: Pipeline, images: Sequence[Volume | Image2D]) -> NDArray[np.float32]:
    """The features of `images` that the pipeline's `[distribution]` names: (images, features). Raises PipelineError."""
    rules = pipeline.sidecar.distribution
    bundle = pipeline.network_bundle if rules is not None and rules.features == "network" else None
    return np.stack([features(one, pipeline.sidecar, bundle) for one in images])


def fit(rows: NDArray[np.float32], method: Method = "knn") -> dict[str, Any]:
    """Arrays for `engines.arrays.distance`; the limit lies a little beyond the farthest hundredth of `rows`, left out in turn.

    Mahalanobis wants many more images than features; the nearest neighbours want few. Raises ValueError below ten images.
    """
    if len(rows) < 10:
        raise ValueError(f"{len(rows)} images say too little of a distribution, at least 10 are wanted")
    values = rows.astype(np.float64)
    center, scale = values.mean(axis=0), values.std(axis=0)
    # A feature that hardly varies in training must not become the loudest one: a percent of its size is noise.
    scale = np.maximum(scale, np.maximum(1e-6, 0.01 * np.abs(center)))
    scaled = (values - center) / scale
    common: dict[str, Any] = {"center": center, "scale": scale}
    if method == "knn":
        left_out = _left_out_neighbours(scaled)
        model = {"neighbours": scaled, "k": np.array(_NEIGHBOURS)}
    else:
        precision = _precision(scaled)
        without = [(_precision(np.delete(scaled, number, axis=0)), one) for number, one in enumerate(scaled)]
        left_out = np.array([np.sqrt(max(float(one @ inverse @ one), 0.0)) for inverse, one in without])
        model = {"precision": precision}
    limit = float(np.quantile(left_out, _FARTHEST)) * _slack(len(rows))
    return {**common, **model, "limit": np.array(limit), "left_out": np.sort(left_out) / limit}


def save(arrays: dict[str, Any], path: Path) -> None:
    """As `[distribution] weights` wants it."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.array(value, order="C") for name, value in arrays.items()}, path)


def _left_out_neighbours(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    gaps = np.sqrt(((scaled[:, None] - scaled[None]) ** 2).sum(axis=2))
    return np.asarray(np.sort(gaps, axis=1)[:, 1 : _NEIGHBOURS + 1].mean(axis=1), dtype=np.float64)


def _precision(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.covariance import LedoitWolf

    return np.asarray(LedoitWolf(assume_centered=True).fit(scaled).precision_, dtype=np.float64)
