"""Instance segmentation by connected components: each piece of a segment becomes a segment of its own, the largest first."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.domain.findings import LabelMap, Segment
from dicomnode.domain.imaging import read_only
from dicomnode.domain.uids import derived_uid
from dicomnode.engines.sidecar import SegmentRule

_CONNECTED = np.ones((3, 3, 3), dtype=bool)  # a voxel's corners count as well


def with_instances(
    maps: Sequence[LabelMap], rules: Sequence[SegmentRule], voxel_ml: float, identity: Sequence[str]
) -> tuple[tuple[LabelMap, ...], tuple[str, ...]]:
    """The maps, those segments whose rule says `instances` split, and what was left out in a sentence each.

    identity: what the tracking UIDs derive from (series, model). Pieces touch none of each other, so a map holds all of them.
    """
    split = {rule.label: rule for rule in rules if rule.instances}
    if not split:
        return tuple(maps), ()
    found: list[LabelMap] = []
    notes: list[str] = []
    for one in maps:
        kept = tuple(segment for segment in one.segments if segment.label not in split)
        if kept:
            labels = np.where(np.isin(one.labels, [segment.number for segment in kept]), one.labels, 0)
            found.append(LabelMap(one.name, read_only(labels.astype(one.labels.dtype)), kept))
        for segment in one.segments:
            if segment.label in split:
                made, left_out = _pieces(one.labels == segment.number, segment, split[segment.label], voxel_ml, identity)
                found += [made] if made is not None else []
                notes += [f"{left_out} smaller pieces of {segment.label} were left out"] if left_out else []
    return tuple(found), tuple(notes)


def _pieces(
    mask: NDArray[np.bool_], segment: Segment, rule: SegmentRule, voxel_ml: float, identity: Sequence[str]
) -> tuple[LabelMap | None, int]:
    pieces, count = ndimage.label(mask, structure=_CONNECTED)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    order = [int(number) for number in np.argsort(-sizes, kind="stable") if sizes[number] * voxel_ml >= rule.min_instance_ml]
    chosen = order[: rule.max_instances]
    if not chosen:
        return None, count
    numbers = np.zeros(count + 1, dtype=np.uint8)
    for place, piece in enumerate(chosen, start=1):
        numbers[piece + 1] = place
    segments = tuple(
        replace(
            segment,
            number=place,
            label=f"{segment.label[:58]} {place}",
            voxels=int(sizes[piece]),
            volume_ml=float(sizes[piece]) * voxel_ml,
            tracking_id=f"{segment.label} {place}",
            tracking_uid=derived_uid(["tracking", *identity, segment.label, str(place)]),
        )
        for place, piece in enumerate(chosen, start=1)
    )
    return LabelMap(f"{segment.label} instances", read_only(numbers[pieces]), segments), count - len(chosen)
