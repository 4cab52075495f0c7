"""Does this look like a CT of a body at all? A lost rescale slope or a screenshot must not become a finding."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.imaging import Refusal, RefusalCode
from dicomnode.engines.sidecar import IntensityRules

_SAMPLES_PER_AXIS = 96


def refuse_intensities(pixels: NDArray[Any], rules: IntensityRules) -> Refusal | None:
    """pixels: (z, y, x) HU. A refusal where air, soft tissue or their proportions are missing."""
    sample = pixels[tuple(slice(None, None, max(1, size // _SAMPLES_PER_AXIS)) for size in pixels.shape)].astype(np.float32)
    if not np.isfinite(sample).all():
        return _refusal("it holds values that are no numbers")
    sample = sample[sample >= -1100]  # padding outside the scan circle says nothing
    if sample.size == 0:
        return _refusal("it holds nothing but padding")
    air, tissue, dense = (
        float(np.mean((sample >= low) & (sample < high))) for low, high in ((-1100, -700), (-250, 300), (700, np.inf))
    )
    span = f"values run from {sample.min():.0f} to {sample.max():.0f}"
    if air < rules.min_air_share:
        return _refusal(f"{air:.1%} of it is air, at least {rules.min_air_share:.1%} expected; {span}")
    if tissue < rules.min_tissue_share:
        return _refusal(f"{tissue:.1%} of it is soft tissue, at least {rules.min_tissue_share:.1%} expected; {span}")
    if dense > rules.max_dense_share:
        return _refusal(f"{dense:.1%} of it is denser than 700 HU, at most {rules.max_dense_share:.1%} expected; {span}")
    return None


def _refusal(why: str) -> Refusal:
    return Refusal(
        RefusalCode.OUT_OF_DISTRIBUTION,
        f"the values are not those of a CT in Hounsfield units: {why}",
        "check Rescale Slope and Intercept of the source, or correct the route that chose this series",
    )
