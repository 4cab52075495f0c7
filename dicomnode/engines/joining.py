"""Several series of one study, brought onto the grid of the first."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from dicomnode.domain.imaging import Refusal, RefusalCode, Volume
from dicomnode.imaging.resampling import Grid, linear_on


def joined(image: Volume, others: Mapping[str, Volume], wanted: Sequence[str]) -> list[NDArray[Any]] | Refusal:
    """Pixels (z, y, x) of each series that `wanted` names, on the grid of `image`, which is the first of them.

    A refusal where one is missing, or where nothing says how they lie to each other.
    """
    if len(wanted) < 2:
        return [image.pixels]
    series = [image, *(others[name] for name in wanted[1:] if name in others)]
    if len(series) < len(wanted):
        missing = ", ".join(name for name in wanted[1:] if name not in others)
        return Refusal(
            RefusalCode.NO_ELIGIBLE_SERIES,
            f"the model reads {len(wanted)} series together ({', '.join(wanted)}); missing: {missing}",
            "give it the other series of the study",
        )
    frames = {one.frame_of_reference_uid for one in series}
    if len(frames) > 1 or len({one.study_instance_uid for one in series}) > 1:
        return Refusal(
            RefusalCode.MIXED_GEOMETRY,
            f"the {len(series)} series lie in {len(frames)} frames of reference: nothing says how they fit together",
            "send series of one examination, or register them first",
        )
    grid = Grid(image.shape, image.affine)
    return [one.pixels if one is image else linear_on(one.pixels, Grid(one.shape, one.affine), grid) for one in series]
