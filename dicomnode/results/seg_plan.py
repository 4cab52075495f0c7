"""Which segment goes into which segmentation instance, and under which number: SEG, report and captures must agree.

A destination may bear only so many segments or frames in one instance. What is more goes into further instances of the same
series, or nothing goes and the report says so: a mask is never cut.
"""

from dataclasses import dataclass

import numpy as np

from dicomnode.domain.findings import Findings, LabelMap, Segment
from dicomnode.domain.imaging import Image2D, Volume
from dicomnode.domain.profiles import OverLimit, Profile, ResultKind, SegForm, WithoutFrameOfReference
from dicomnode.results.context import Context

type_part = tuple[tuple[LabelMap, Segment], ...]
# (name of the label map, voxel value there) → (index of the instance, Segment Number (0062,0004) in it).
type_places = dict[tuple[str, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SegPlan:
    """parts: the segments of each instance in the order of their numbers, none where no segmentation is made.

    note: what a reader of the report must know about it; "" where all is as usual.
    """

    parts: tuple[type_part, ...]
    note: str = ""

    def places(self) -> type_places:
        """Where each segment is."""
        return {
            (one.name, segment.number): (index, number)
            for index, part in enumerate(self.parts)
            for number, (one, segment) in enumerate(part, start=1)
        }


def shown_segments(findings: Findings) -> type_part:
    """Segments that have voxels, in the order of their numbers."""
    return tuple((one, segment) for one in findings.label_maps for segment in one.segments if segment.voxels > 0)


def plan(context: Context, findings: Findings, image: Volume | Image2D) -> SegPlan:
    """The instances of this context's profile."""
    profile, shown = context.profile, shown_segments(findings)
    if not shown or ResultKind.SEG not in context.kinds:
        return SegPlan(())
    nothing = f"Segmentation: 0 of {len(shown)} segments shown"
    if not isinstance(image, Volume) and not profile.seg_on_projections:
        return SegPlan((), f"{nothing}: the destination's viewer shows none over a projection image.")
    without = isinstance(image, Volume) and not context.sources.received_frames_of_reference
    if without and profile.without_frame_of_reference is WithoutFrameOfReference.LEAVE_OUT:
        return SegPlan((), f"{nothing}, for the images have no frame of reference.")
    parts = _split(profile, shown, len(image.frames) if isinstance(image, Volume) else 1)
    limits = f"{profile.max_segments} segments and {profile.max_frames} frames"
    if parts is None or (len(parts) > _fewest(profile, shown) and profile.over_limit is OverLimit.LEAVE_OUT):
        return SegPlan((), f"{nothing}: the destination takes at most {limits} in one object.")
    notes = []
    if len(parts) > _fewest(profile, shown):
        notes.append(f"Segmentation: {len(shown)} of {len(shown)} segments shown, in {len(parts)} objects.")
    if without and profile.without_frame_of_reference is WithoutFrameOfReference.DERIVED:
        notes.append("The images have no frame of reference; that of the segmentation was derived from their series.")
    return SegPlan(parts, " ".join(notes))


def _fewest(profile: Profile, shown: type_part) -> int:
    """Instances without any limit: a label map holds one value a voxel, so each of ours is one (PS3.3 A.51.5)."""
    return len({one.name for one, _ in shown}) if profile.seg_form is SegForm.LABELMAP else 1


def _split(profile: Profile, shown: type_part, slices: int) -> tuple[type_part, ...] | None:
    """Instances filled in order; None where one segment alone is more than an instance bears."""
    frames = _frames(profile, shown, slices)
    parts: list[list[tuple[LabelMap, Segment]]] = []
    used = 0
    for (one, segment), needed in zip(shown, frames, strict=True):
        if needed > profile.max_frames:
            return None
        apart = profile.seg_form is SegForm.LABELMAP and bool(parts) and parts[-1][-1][0].name != one.name
        if profile.seg_form is SegForm.LABELMAP:
            full = bool(parts) and len(parts[-1]) >= profile.max_segments
        else:
            full = bool(parts) and (len(parts[-1]) >= profile.max_segments or used + needed > profile.max_frames)
        if not parts or apart or full:
            parts.append([])
            used = 0
        parts[-1].append((one, segment))
        used += needed
    return tuple(map(tuple, parts))


def _frames(profile: Profile, shown: type_part, slices: int) -> list[int]:
    """Frames of each segment; all slices where that is an upper bound that cannot matter."""
    if profile.keep_empty_frames or len(shown) * slices <= profile.max_frames:
        return [slices] * len(shown)
    counts = {
        one.name: np.stack([np.bincount(labels.ravel(), minlength=_highest(one) + 1) > 0 for labels in one.labels]).sum(axis=0)
        for one, _ in shown
    }
    return [int(counts[one.name][segment.number]) for one, segment in shown]


def _highest(one: LabelMap) -> int:
    return max(int(one.labels.max()), *(segment.number for segment in one.segments))
