"""What is reported of accepted candidates: lesions, their segments, the classification."""

from typing import Literal

import numpy as np

from dicomnode.domain.findings import Classification, LabelMap, Lesion, Segment
from dicomnode.domain.imaging import read_only
from dicomnode.domain.uids import derived_uid
from dicomnode.engines.chest.lesions import Candidate
from dicomnode.engines.chest.sides import LEFT, RIGHT
from dicomnode.engines.sidecar import ClassificationRules, LesionRules

LESION_MAP = "lesions"
_BELOW = 0.01  # "absent" stays below the threshold also when rounded to two digits
_LATERALITY: dict[int, Literal["left", "right", ""]] = {LEFT: "left", RIGHT: "right", 0: ""}


def lesion_of(number: int, candidate: Candidate, rules: LesionRules, pipeline: str, identity: tuple[str, str]) -> Lesion:
    """`candidate` as the `number`-th lesion (1-based); identity: Series Instance UID and model digest, which fix its UID."""
    measures = candidate.measures
    label = f"{rules.label} {number}"
    return Lesion(
        label=label,
        tracking_id=f"{pipeline} {label}",
        tracking_uid=derived_uid(["tracking", *identity, str(number)]),
        center_mm=measures.center_mm,
        long_axis_mm=measures.long_axis_mm,
        short_axis_mm=measures.short_axis_mm,
        volume_ml=measures.volume_ml,
        mean=measures.mean,
        std=measures.std,
        minimum=measures.minimum,
        maximum=measures.maximum,
        probability=candidate.probability,
        laterality=_LATERALITY[candidate.side],
        segment=(LESION_MAP, number),
        key_slice_index=measures.key_slice_index,
    )


def lesion_map(
    reported: list[Candidate], lesions: tuple[Lesion, ...], rules: LesionRules, shape: tuple[int, int, int]
) -> tuple[LabelMap, ...]:
    """The lesions' own label map on the source grid, or nothing: they overlap the lungs, so they cannot share a map."""
    if not reported:
        return ()
    anatomy = {LEFT: rules.anatomy_left, RIGHT: rules.anatomy_right}
    labels = np.zeros(shape, dtype=np.uint8)
    segments = []
    for number, (candidate, lesion) in enumerate(zip(reported, lesions, strict=True), start=1):
        place = labels[candidate.box]
        mask = candidate.mask & (place == 0)  # a voxel between two lesions that touch belongs to the more probable one
        place[mask] = number
        segments.append(
            Segment(
                number=number,
                label=lesion.label,
                category=rules.category,
                type=rules.type,
                anatomy=anatomy.get(candidate.side),
                color_rgb=rules.color,
                volume_ml=lesion.volume_ml,
                voxels=int(np.count_nonzero(mask)),
                tracking_id=lesion.tracking_id,
                tracking_uid=lesion.tracking_uid,
            )
        )
    return (LabelMap(LESION_MAP, read_only(labels), tuple(segments)),)


def classification(
    candidates: list[Candidate], best_voxel: float, rules: ClassificationRules | None
) -> tuple[Classification, ...]:
    """Present when the most probable candidate reaches the threshold; without candidates, absent as probable as `best_voxel`.

    best_voxel: calibrated probability of the lung voxel most like a lesion, candidates apart.
    """
    if rules is None:
        return ()
    if candidates:
        probability = max(candidate.probability for candidate in candidates)
    else:
        probability = min(best_voxel, max(0.0, rules.threshold - _BELOW))
    present = probability >= rules.threshold
    return (
        Classification(
            name=rules.name,
            finding=rules.finding,
            value="present" if present else "absent",
            value_code=rules.present if present else rules.absent,
            probability=float(probability),
            threshold=rules.threshold,
        ),
    )
