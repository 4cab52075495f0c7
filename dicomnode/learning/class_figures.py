"""Figures of a classifier over any number of classes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.learning.metrics import area_under_curve, classification_figures


def multiclass_figures(
    truth: Sequence[str], said: Sequence[str], classes: Sequence[str], probabilities: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Accuracy; recall, precision and F1 of each class and their plain means (macro); how often each was taken for which.

    A figure without a case to rest on is None and counts in no mean. What was said beside `classes` ("uncertain") is wrong.
    With `probabilities` (cases, classes) also the area under the ROC curve of each class against all others, and their mean.
    """
    of_class = {one: _of_class(truth, said, one) for one in classes}
    areas = {}
    if probabilities is not None:
        for number, one in enumerate(classes):
            of_class[one]["auc"] = _rounded(area_under_curve(np.array([t == one for t in truth]), probabilities[:, number]))
        areas = {"auc": _mean([figures["auc"] for figures in of_class.values()])}
    return {
        "cases": len(truth),
        "accuracy": round(sum(a == b for a, b in zip(truth, said, strict=True)) / len(truth), 4) if truth else None,
        **{name: _mean([figures[name] for figures in of_class.values()]) for name in ("recall", "precision", "f1")},
        **areas,
        "classes": of_class,
        "confused": {
            one: {other: count for other in sorted(set(said)) if (count := _count(truth, said, one, other))}
            for one in classes
            if one in truth
        },
    }


def multilabel_figures(
    truth: Sequence[frozenset[str]], probabilities: NDArray[np.float64], thresholds: Mapping[str, float]
) -> dict[str, Any]:
    """The same of classes that do not exclude each other; probabilities: (cases, classes) in the order of `thresholds`."""
    of_class = {
        name: asdict(classification_figures([name in labels for labels in truth], list(probabilities[:, number]), threshold))
        for number, (name, threshold) in enumerate(thresholds.items())
    }
    rounded = {name: {key: _rounded(value) for key, value in figures.items()} for name, figures in of_class.items()}
    means = {key: _mean([one[key] for one in rounded.values()]) for key in ("accuracy", "recall", "precision", "f1", "auc")}
    return {"cases": len(truth), **means, "classes": rounded}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _of_class(truth: Sequence[str], said: Sequence[str], one: str) -> dict[str, Any]:
    hits, meant, named = _count(truth, said, one, one), list(truth).count(one), list(said).count(one)
    return {
        "cases": meant,
        "recall": round(hits / meant, 4) if meant else None,
        "precision": round(hits / named, 4) if named else None,
        "f1": round(2 * hits / (meant + named), 4) if meant + named else None,
    }


def _count(truth: Sequence[str], said: Sequence[str], one: str, other: str) -> int:
    return sum(a == one and b == other for a, b in zip(truth, said, strict=True))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None
