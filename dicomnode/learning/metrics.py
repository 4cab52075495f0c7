"""Figures of merit, as pure functions of what was planted and what was found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Target:
    """A lesion that is there: centre (LPS mm) and diameter."""

    center_mm: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True, slots=True)
class Matching:
    """Which targets were found, and how many reported lesions hit none."""

    found: tuple[bool, ...]
    false_positives: int


def match(targets: Sequence[Target], reported_mm: Sequence[tuple[float, float, float]], slack_mm: float = 4.0) -> Matching:
    """A report counts for a target if its centre lies within the target's radius plus `slack_mm`.

    Several reports in one target are one hit and no false positive.
    """
    found = [False] * len(targets)
    false_positives = 0
    for center in reported_mm:
        hits = [
            index
            for index, target in enumerate(targets)
            if np.linalg.norm(np.subtract(center, target.center_mm)) <= target.diameter_mm / 2 + slack_mm
        ]
        for index in hits:
            found[index] = True
        false_positives += not hits
    return Matching(tuple(found), false_positives)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks of one shape; 1 where both are empty."""
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 1.0 if total == 0 else 2.0 * int(np.count_nonzero(one & other)) / total


@dataclass(frozen=True, slots=True)
class ClassificationFigures:
    """Present/absent over scans. A figure without a case to rest on is None."""

    accuracy: float | None
    recall: float | None
    precision: float | None
    f1: float | None
    auc: float | None


def classification_figures(present: Sequence[bool], probability: Sequence[float], threshold: float) -> ClassificationFigures:
    """Accuracy, recall, precision, F1 at `threshold` (present if probability ≥ threshold), and the area under the ROC curve."""
    truth = np.asarray(present, dtype=bool)
    score = np.asarray(probability, dtype=float)
    said = score >= threshold
    hits = int((said & truth).sum())
    recall = hits / int(truth.sum()) if truth.any() else None
    precision = hits / int(said.sum()) if said.any() else None
    f1 = 2 * hits / (int(said.sum()) + int(truth.sum())) if truth.any() or said.any() else None
    accuracy = float((said == truth).mean()) if len(truth) else None
    return ClassificationFigures(accuracy, recall, precision, f1, area_under_curve(truth, score))


def area_under_curve(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    """The share of (present, absent) pairs that the score orders rightly, ties counting half; None without both kinds."""
    positive, negative = score[truth], score[~truth]
    if len(positive) == 0 or len(negative) == 0:
        return None
    above = (positive[:, None] > negative[None, :]).sum() + 0.5 * (positive[:, None] == negative[None, :]).sum()
    return float(above) / (len(positive) * len(negative))
