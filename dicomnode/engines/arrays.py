"""Classical models as plain arrays, evaluated by NumPy: trees, forests, support vectors, linear models. No pickle is ever read.

scikit-learn trains them (`dicomnode.learning.classical`); here they are only computed: a model is data like any weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError

Arrays = Mapping[str, NDArray[Any]]
METHODS = ("forest", "tree", "svm", "linear")


def read_arrays(path: Path) -> Arrays:
    """Plain arrays of a safetensors file. Raises PipelineError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: Arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PipelineError(f"{path.name} cannot be read: {error}", "train the pipeline again") from error
    return arrays


def probabilities(arrays: Arrays, row: NDArray[np.float32]) -> NDArray[np.float64]:
    """One probability for each class of a model, summing to 1, for one row of features. Raises PipelineError."""
    try:
        method = METHODS[int(arrays["method"].item())]
        read = row[arrays["columns"]] if "columns" in arrays else row
        scaled = (read.astype(np.float64) - arrays["center"]) / arrays["scale"]
        found: NDArray[np.float64] = {"forest": _forest, "tree": _forest, "svm": _svm, "linear": _linear}[method](
            arrays, scaled
        )
    except (KeyError, IndexError, ValueError) as error:
        raise PipelineError(f"the model's arrays cannot be read: {error}", "train the pipeline again") from error
    total = float(found.sum())
    if not np.isfinite(total) or total <= 0:
        raise PipelineError("the model gives no probabilities", "train the pipeline again")
    calibrated = np.asarray((found / total) ** (1.0 / float(arrays["temperature"].item())), dtype=np.float64)
    return np.asarray(calibrated / calibrated.sum(), dtype=np.float64)


def _forest(arrays: Arrays, row: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over trees of the class shares in the leaf that the row comes to. children < 0: a leaf."""
    feature, threshold, left, right = (arrays[name] for name in ("feature", "threshold", "left", "right"))
    leaves = []
    for root in arrays["roots"]:
        node = int(root)
        while left[node] >= 0:
            node = int(left[node] if row[feature[node]] <= threshold[node] else right[node])
        leaves.append(arrays["value"][node])
    return np.asarray(np.mean(leaves, axis=0), dtype=np.float64)


def _svm(arrays: Arrays, row: NDArray[np.float64]) -> NDArray[np.float64]:
    """One machine for each class against the others, Gaussian kernel, Platt's sigmoid of its decision."""
    distances = ((arrays["support"] - row) ** 2).sum(axis=1)
    kernel = np.exp(-float(arrays["gamma"].item()) * distances)
    decisions = arrays["weights"] @ kernel + arrays["offset"]
    return np.asarray(1.0 / (1.0 + np.exp(-(arrays["platt_slope"] * decisions + arrays["platt_offset"]))), dtype=np.float64)


def _linear(arrays: Arrays, row: NDArray[np.float64]) -> NDArray[np.float64]:
    logits = arrays["weights"] @ row + arrays["offset"]
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum(), dtype=np.float64)


def distance(arrays: Arrays, row: NDArray[np.float32]) -> float:
    """How far a row lies from those that were trained on: Mahalanobis, or to the k nearest of them; in units of its limit."""
    try:
        scaled = (row.astype(np.float64) - arrays["center"]) / arrays["scale"]
        if "neighbours" in arrays:
            gaps = np.sqrt(((arrays["neighbours"] - scaled) ** 2).sum(axis=1))
            far = float(np.sort(gaps)[: int(arrays["k"].item())].mean())
        else:
            far = float(np.sqrt(max(float(scaled @ arrays["precision"] @ scaled), 0.0)))
        return far / float(arrays["limit"].item())
    except (KeyError, ValueError) as error:
        raise PipelineError(f"the model's arrays cannot be read: {error}", "fit the distribution again") from error
