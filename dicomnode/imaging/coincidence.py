"""Several frames at one place: copies, time points, echoes, overlapping scan ranges."""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from dicomnode.domain.imaging import RefusalCode
from dicomnode.imaging import geometry
from dicomnode.imaging.headers import DISTINCTIONS, Frame
from dicomnode.imaging.refusing import Refused, count, names
from dicomnode.imaging.seams import describe_ranges, scan_ranges

_NOT_TIME = {"ConvolutionKernel"}  # two kernels are two reconstructions of one moment


def resolve_coincidence(
    frames: Sequence[Frame], normal: geometry.type_vector, same_pixels: Callable[[Frame, Frame], bool], warnings: list[str]
) -> list[Frame]:
    """`frames` (ascending along `normal`) with one at each place; raises Refused where more than copies share a place."""
    offsets = np.array([frame.position @ normal for frame in frames if frame.position is not None])
    step = geometry.typical_step(offsets)
    places = [[frames[index] for index in group] for group in geometry.clusters(offsets, step)]
    shared = [place for place in places if len(place) > 1]
    if not shared:
        return list(frames)
    if all(_are_copies(place, same_pixels) for place in shared):
        extra = [frame for place in shared for frame in place[1:]]
        warnings.append(
            f"{count(len(extra), 'copy') if len(extra) == 1 else f'{len(extra)} copies'} of images left out ({names(extra)})"
        )
        return [place[0] for place in places]
    _refuse_time_points(places)
    _refuse_overlapping_ranges(frames, shared, normal)
    together = [frame for place in shared for frame in place]
    raise Refused(
        RefusalCode.DUPLICATE_POSITION,
        f"different images at the same position: {names(together)}{_difference(shared)}",
        "Send one reconstruction in each series; if an image was changed or sent from two places, delete the wrong one.",
        together,
    )


def _are_copies(place: Sequence[Frame], same_pixels: Callable[[Frame, Frame], bool]) -> bool:
    first = place[0]
    return all(
        (first.slope, first.intercept) == (other.slope, other.intercept)
        and np.allclose(first.position, other.position, atol=1e-3)  # type: ignore[arg-type]  # frames here have positions
        and same_pixels(first, other)
        for other in place[1:]
    )


def _telling(places: Sequence[Sequence[Frame]], keywords: Sequence[str]) -> tuple[str, ...] | None:
    """The fewest of `keywords`, one to three, whose values differ between all frames of each place."""
    for size in (1, 2, 3):
        for chosen in combinations(keywords, size):
            if all(
                len({tuple(frame.distinctions[name] for name in chosen) for frame in place}) == len(place) for place in places
            ):
                return chosen
    return None


def _refuse_time_points(places: Sequence[Sequence[Frame]]) -> None:
    """Complete stacks of time points, echoes, b-values or image types: none of them is the one to take."""
    counts = {len(place) for place in places}
    shared = [place for place in places if len(place) > 1]
    telling = _telling(shared, [name for name in DISTINCTIONS if name not in _NOT_TIME])
    if telling is None or (len(counts) > 1 and 2 * len(shared) <= len(places)):
        return
    together = [frame for place in shared for frame in place]
    number = max(counts)
    what = "complete" if len(counts) == 1 else "incomplete"
    raise Refused(
        RefusalCode.TEMPORAL,
        f"{number} {what} stacks of {len(places)} positions in one series, told apart by {' and '.join(telling)}",
        f"Send each time point, echo or image type as a series of its own (split by {' and '.join(telling)}).",
        together,
    )


def _refuse_overlapping_ranges(
    frames: Sequence[Frame], shared: Sequence[Sequence[Frame]], normal: geometry.type_vector
) -> None:
    ranges = scan_ranges(frames)
    if ranges is not None and all(ranges.changes_between(*pair) for place in shared for pair in combinations(place, 2)):
        together = [frame for place in shared for frame in place]
        raise Refused(RefusalCode.MIXED_GEOMETRY, *describe_ranges(ranges, normal, together), together)


def _difference(shared: Sequence[Sequence[Frame]]) -> str:
    telling = _telling(shared, sorted(DISTINCTIONS))
    return f" (they differ in {' and '.join(telling)})" if telling else ""
