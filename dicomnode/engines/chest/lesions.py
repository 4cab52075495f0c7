"""Lesions: components of the lesion channel that lie in lung, measured on the source grid."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.engines.chest.lungs import LungView
from dicomnode.engines.chest.parting import pieces_of
from dicomnode.engines.chest.sides import LEFT, RIGHT
from dicomnode.engines.components import Touching, components
from dicomnode.engines.measure import Measures, measure
from dicomnode.engines.sidecar import Calibration, LesionRules
from dicomnode.imaging.resampling import Box, Grid, linear_on

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
# Above it a candidate counts as this dense: a calcified mass is as dense as a vessel with contrast, and no less a lesion.
DENSEST_HU = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A component that obeys the rules of size and place. box, mask: on the source grid; side: LEFT, RIGHT or 0."""

    probability: float
    measures: Measures
    box: Box
    mask: NDArray[np.bool_]
    side: int


def find_candidates(view: LungView, pixels: NDArray[Any], source: Grid, rules: LesionRules) -> list[Candidate]:
    """Most probable first, then largest; pixels: (z, y, x) on `source`. `rules.min_probability` is not applied here."""
    parts = components(view.lesion >= rules.threshold, Touching.CORNERS)
    found = [
        candidate
        for box, seed in zip(parts.boxes(), parts.seeds(), strict=True)
        for candidate in _candidates(view, box, seed, pixels, source, rules)
    ]
    return sorted(found, key=lambda c: (-round(c.probability, 2), -c.measures.volume_ml, c.measures.center_mm))


def without_diffuse(candidates: list[Candidate], rules: LesionRules) -> tuple[list[Candidate], int]:
    """The candidates that stand for themselves, and how many pale ones were taken out: many of them together are no nodules.

    Ground glass all over a lung made up to 38 "nodules" of one synthetic scan; a reader names the pattern, not its patches.
    """
    rule = rules.diffuse
    if rule is None:
        return candidates, 0
    pale = [c for c in candidates if c.measures.mean < rule.below and c.probability >= rules.min_probability]
    if len(pale) <= rule.more_than:
        return candidates, 0
    kept = [candidate for candidate in candidates if candidate.measures.mean >= rule.below]
    return kept, len(pale)


def each_its_own(candidates: list[Candidate], pixels: NDArray[Any], source: Grid) -> list[Candidate]:
    """Candidates that share no voxel, most probable first as they come: what two claim belongs to the first of them.

    The other is measured again without it, so that its volume is that of its segment; one of which nothing is left goes.
    pixels: (z, y, x) on `source`.
    """
    own: list[Candidate] = []
    for candidate in candidates:
        mask = candidate.mask.copy()
        for earlier in own:
            if shared := _shared(candidate.box, earlier.box):
                mask[shared[0]] &= ~earlier.mask[shared[1]]
        if np.array_equal(mask, candidate.mask):
            own.append(candidate)
        elif mask.any():
            box = candidate.box
            measures = measure(mask, pixels[box], source.part(box), box[0].start)
            own.append(replace(candidate, mask=mask, measures=measures))
    return own


def _shared(one: Box, other: Box) -> tuple[Box, Box] | None:
    """The part that two boxes of one grid have in common, in the indices of each; None without."""
    starts = [max(a.start, b.start) for a, b in zip(one, other, strict=True)]
    stops = [min(a.stop, b.stop) for a, b in zip(one, other, strict=True)]
    if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
        return None
    first, second = (
        tuple(slice(start - part.start, stop - part.start) for start, stop, part in zip(starts, stops, box, strict=True))
        for box in (one, other)
    )
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])


def calibrated(score: float, calibration: Calibration, evidence: float = 0.0) -> float:
    """Probability of a score in 0-1; evidence: what else was weighed, on the scale of the logit."""
    score = min(max(score, 1e-6), 1 - 1e-6)
    return 1 / (1 + math.exp(-(calibration.slope * math.log(score / (1 - score)) + calibration.intercept + evidence)))


def evidence_of(measures: Measures, slice_spacing_mm: float, calibration: Calibration) -> float:
    """What size, shape, density and the scan's slice spacing add to the logit of a candidate."""
    return (
        calibration.log_long_axis * math.log(max(measures.long_axis_mm, 1.0))
        + calibration.roundness * measures.short_axis_mm / max(measures.long_axis_mm, 1e-3)
        + calibration.mean * min(measures.mean, DENSEST_HU) / 100
        + calibration.slice_spacing * slice_spacing_mm
    )


def _candidates(
    view: LungView, box: Box, seed: tuple[int, int, int], pixels: NDArray[Any], source: Grid, rules: LesionRules
) -> Iterator[Candidate]:
    """What one component of the lesion channel is made of; box, seed: where it lies and one of its voxels."""
    spacing_mm = view.grid.spacing_mm
    extent_mm = max((s.stop - s.start) * spacing for s, spacing in zip(box, spacing_mm, strict=True))
    if extent_mm > 2 * rules.max_diameter_mm:
        return
    around = _grown(box, view.lesion.shape, 2)
    labels, _ = ndimage.label(view.lesion[around] >= rules.threshold, _TOUCHING)
    component = labels == labels[tuple(at - part.start for at, part in zip(seed, around, strict=True))]
    pieces = pieces_of(component, spacing_mm)
    for number in range(1, int(pieces.max()) + 1):
        own = pieces == number
        found = _candidate(view, around, own, (labels != 0) & ~own, pixels, source, rules)
        if found is not None:
            yield found


def _candidate(
    view: LungView,
    around: Box,
    own: NDArray[np.bool_],
    others: NDArray[np.bool_],
    pixels: NDArray[Any],
    source: Grid,
    rules: LesionRules,
) -> Candidate | None:
    """One candidate; own, others: its voxels and those of its neighbours in the box `around`."""
    shell = ndimage.binary_dilation(own, _TOUCHING) & ~own & ~others
    if float(view.aerated[around][shell].mean() if shell.any() else 0.0) < rules.min_lung_contact:
        return None
    probability = np.where(others, 0, view.lesion[around])
    source_box = source.box_around(view.grid.part(around))
    if source_box is None:
        return None
    mask = linear_on(probability, view.grid.part(around), source.part(source_box)) >= rules.threshold
    if not mask.any():
        return None
    measures = measure(mask, pixels[source_box], source.part(source_box), source_box[0].start)
    if not rules.min_diameter_mm <= measures.long_axis_mm <= rules.max_diameter_mm:
        return None
    scores = view.lesion[around][own]
    score = float(scores.max() if rules.score == "max" else scores.mean())
    evidence = evidence_of(measures, source.spacing_mm[0], rules.calibration)
    side = _side(view.sides[around][shell | own])
    return Candidate(calibrated(score, rules.calibration, evidence), measures, source_box, mask, side)


def _side(sides: NDArray[np.uint8]) -> int:
    left, right = int(np.count_nonzero(sides == LEFT)), int(np.count_nonzero(sides == RIGHT))
    return 0 if left == right else LEFT if left > right else RIGHT


def _grown(box: Box, shape: tuple[int, ...], margin: int) -> Box:
    z, y, x = (slice(max(0, s.start - margin), min(size, s.stop + margin)) for s, size in zip(box, shape, strict=True))
    return z, y, x
