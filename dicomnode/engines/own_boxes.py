"""A detector's boxes on the source grid, and in a volume the lesions that they enclose."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from dicomnode.domain.errors import PipelineError
from dicomnode.domain.findings import Box, Lesion
from dicomnode.domain.imaging import Volume
from dicomnode.domain.uids import derived_uid
from dicomnode.engines.measure import measure
from dicomnode.engines.rules import BoxRules
from dicomnode.engines.spatial import ras_affine
from dicomnode.imaging.resampling import Grid


@dataclass(frozen=True, slots=True)
class Tracked:
    """What makes a lesion's identity: the pipeline's name, Series Instance UID, the model's digest."""

    pipeline: str
    series_instance_uid: str
    digest: str


def boxes(item: dict[str, Any], image: MetaTensor, rules: BoxRules, source: Grid) -> tuple[tuple[Box, ...], int]:
    """The boxes of probability enough, most probable first, and how many more there were than are reported.

    The detector's corners (x, y[, z], x, y[, z]) are indices of the preprocessed `image`, whose affine says where they lie; a
    voxel's index is its centre (MONAI's StandardMode). Raises PipelineError where item lacks boxes, labels or scores.
    """
    corners, labels, scores = (_array(item, key) for key in (rules.box_key, rules.label_key, rules.score_key))
    if corners.ndim != 2 or corners.shape[1] not in (4, 6) or not len(corners) == len(labels) == len(scores):
        raise PipelineError(
            f"the detector gives boxes {corners.shape}, labels {labels.shape}, scores {scores.shape}", "correct [boxes]"
        )
    affine = np.linalg.inv(ras_affine(source)) @ image.affine.cpu().numpy().astype(float)  # image (x, y, z) → source (x, y, z)
    found = [
        Box(_label(int(label), rules), *_span(_turned(corner, rules), affine, source.shape), float(min(max(score, 0.0), 1.0)))
        for corner, label, score in zip(corners, labels, scores, strict=True)
        if score >= rules.min_probability
    ]
    inside = [one for one in found if all(start < stop for start, stop in zip(one.start, one.stop, strict=True))]
    ranked = sorted(inside, key=lambda one: (-one.probability, one.start, one.stop))
    if rules.max_overlap is not None:
        ranked = without_overlaps(ranked, rules.max_overlap)
    return tuple(ranked[: rules.max_count]), max(0, len(ranked) - rules.max_count)


def lesions(found: Sequence[Box], volume: Volume, source: Grid, tracked: Tracked) -> tuple[Lesion, ...]:
    """The ellipsoid inside each box as a lesion: the box is all that is known of its outline."""
    made = []
    for number, box in enumerate(found, start=1):
        z, y, x = (slice(start, stop) for start, stop in zip(box.start, box.stop, strict=True))
        measures = measure(_ellipsoid(box), volume.pixels[z, y, x], source.part((z, y, x)), z.start)
        label = f"{box.label} {number}"
        made.append(
            Lesion(
                label=label,
                tracking_id=f"{tracked.pipeline} {label}",
                tracking_uid=derived_uid(["tracking", tracked.series_instance_uid, tracked.digest, str(number)]),
                center_mm=measures.center_mm,
                long_axis_mm=measures.long_axis_mm,
                short_axis_mm=measures.short_axis_mm,
                volume_ml=measures.volume_ml,
                mean=measures.mean,
                std=measures.std,
                minimum=measures.minimum,
                maximum=measures.maximum,
                probability=box.probability,
                laterality="",
                key_slice_index=(box.start[0] + box.stop[0] - 1) // 2,
            )
        )
    return tuple(made)


def _array(item: dict[str, Any], key: str) -> NDArray[Any]:
    if key not in item:
        raise PipelineError(
            f"the detector gives no {key!r}, only {', '.join(map(str, item))}", "correct [boxes] in pipeline.toml"
        )
    return np.asarray(torch.as_tensor(item[key]).cpu())


def without_overlaps(ranked: Sequence[Box], most: float) -> list[Box]:
    """Non-maximum suppression: of two boxes of one label whose intersection over union is above `most` the lesser goes.

    ranked: most probable first. It is done on the source grid, also over what a detector found in different windows.
    """
    kept: list[Box] = []
    for box in ranked:
        if all(one.label != box.label or overlap(one, box) <= most for one in kept):
            kept.append(box)
    return kept


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 … 1."""
    shared = 1.0
    for a, b, c, d in zip(one.start, one.stop, other.start, other.stop, strict=True):
        shared *= max(0, min(b, d) - max(a, c))
    return shared / (_voxels(one) + _voxels(other) - shared)


def _voxels(box: Box) -> float:
    return float(np.prod([b - a for a, b in zip(box.start, box.stop, strict=True)]))


def _turned(corner: NDArray[Any], rules: BoxRules) -> NDArray[Any]:
    """Corners in the order of the image's axes: torchvision counts columns (the last axis) first."""
    half = len(corner) // 2
    return corner if rules.corners == "xyz" else np.concatenate([corner[:half][::-1], corner[half:][::-1]])


def _label(number: int, rules: BoxRules) -> str:
    number -= rules.first_label
    return rules.labels[number] if 0 <= number < len(rules.labels) else f"Class {number}"


type_index = tuple[int, int, int]


def _span(corner: NDArray[Any], affine: NDArray[np.float64], shape: type_index) -> tuple[type_index, type_index]:
    """Start and stop (z, y, x) on the source grid of one box, cut to the image; at least one voxel wide inside it."""
    half = len(corner) // 2
    low, high = (np.append(part, np.zeros(3 - half)) for part in (corner[:half], corner[half:]))
    points = np.array([[*choice, 1.0] for choice in product(*zip(low, high, strict=True))])
    indices = (points @ affine.T)[:, 2::-1]
    starts = np.clip(np.rint(indices.min(axis=0)), 0, shape).astype(int)
    stops = np.clip(np.maximum(np.rint(indices.max(axis=0)), starts + 1), 0, shape).astype(int)
    return (int(starts[0]), int(starts[1]), int(starts[2])), (int(stops[0]), int(stops[1]), int(stops[2]))


def _ellipsoid(box: Box) -> NDArray[np.bool_]:
    sizes = [stop - start for start, stop in zip(box.start, box.stop, strict=True)]
    axes = [(np.arange(size) - (size - 1) / 2) / (size / 2) for size in sizes]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.asarray(z**2 + y**2 + x**2 <= 1)
