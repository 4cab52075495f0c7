"""Figures of a classifier over any number of classes."""

from collections.abc import Sequence
from typing import Any


def multiclass_figures(truth: Sequence[str], said: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy; recall, precision and F1 of each class and their plain means (macro); how often each was taken for which.

    A figure without a case to rest on is None and counts in no mean. What was said beside `classes` ("uncertain") is wrong.
    """
    of_class = {one: _of_class(truth, said, one) for one in classes}
    return {
        "cases": len(truth),
        "accuracy": round(sum(a == b for a, b in zip(truth, said, strict=True)) / len(truth), 4) if truth else None,
        **{name: _mean([figures[name] for figures in of_class.values()]) for name in ("recall", "precision", "f1")},
        "classes": of_class,
        "confused": {
            one: {other: count for other in sorted(set(said)) if (count := _count(truth, said, one, other))}
            for one in classes
            if one in truth
        },
    }


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
