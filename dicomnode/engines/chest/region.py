"""Is this a chest? Asked twice: of plain HU before the network runs, and of its lungs afterwards.

A network names lungs in anything; what it cannot fake is a litre of tissue at −850 HU over several centimetres of body. The
limits stand in `pipeline.toml` [region]. An abdomen that shows lung bases passes when it holds as much lung as a half-cut chest
(600 ml over 64 mm by default): a finding there is worth as much. Less is refused.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.domain.imaging import Refusal, RefusalCode
from dicomnode.engines.chest.body import working, working_steps
from dicomnode.engines.chest.planar import opened, sums_of_nine
from dicomnode.engines.sidecar import RegionRules

_PARENCHYMA = (-970.0, -500.0)  # HU; emphysema and bowel gas lie below, consolidation above
_REMEDY = "send a chest CT, or correct the route that chose this series"


def aerated_mask(pixels: NDArray[Any], body: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Lung-like tissue inside the body on the coarse working grid (every `working_steps`-th voxel): (z, y, x) bool.

    `body` is that of `working_body`, on the same grid.
    Opened by one voxel: partial volume around bowel gas and sinuses has the HU of lung, but is thin.
    """
    return aerated_of(working(pixels, spacing_mm), body)


def aerated_of(small: NDArray[Any], body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The same of pixels on the working grid already."""
    clipped = np.clip(small, -1024, 200)  # nine times that is within int16
    nine = sums_of_nine(clipped if clipped.dtype == np.int16 else clipped.astype(np.float32))
    low, high = (round(9 * limit) for limit in _PARENCHYMA)
    return opened((nine > low) & (nine < high) & body)


def refuse_before(aerated: NDArray[np.bool_], spacing_mm: tuple[float, float, float], rules: RegionRules) -> Refusal | None:
    """A refusal where the body holds too little lung-like tissue to run at all. `aerated` is that of `aerated_mask`."""
    steps = working_steps(spacing_mm)
    aerated_ml = np.count_nonzero(aerated) * float(np.prod(spacing_mm)) * float(np.prod(steps)) / 1000
    if aerated_ml >= rules.min_aerated_ml:
        return None
    return Refusal(
        RefusalCode.NOT_THIS_REGION,
        f"not a chest: {aerated_ml:.0f} ml of aerated tissue, at least {rules.min_aerated_ml:.0f} ml expected",
        _REMEDY,
    )


def no_lung() -> Refusal:
    """The refusal where the network names no lung at all."""
    return Refusal(RefusalCode.NOT_THIS_REGION, "not a chest: no lung was found", _REMEDY)


def refuse_after(
    lungs: NDArray[np.bool_],
    pixels: NDArray[Any],
    body: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    rules: RegionRules,
) -> Refusal | None:
    """A refusal where the network's lungs are too small, too short or not filled with lung.

    All arrays (z, y, x) on one canonical grid with `spacing_mm`; pixels in HU. A subsampled grid does.
    """
    voxels = int(np.count_nonzero(lungs))
    lung_ml = voxels * float(np.prod(spacing_mm)) / 1000
    extent_mm = float(np.count_nonzero(lungs.any(axis=(1, 2)))) * spacing_mm[0]
    inside = pixels[lungs]
    parenchyma = float(np.mean((inside > _PARENCHYMA[0]) & (inside < _PARENCHYMA[1]))) if voxels else 0.0
    share = voxels / max(1, int(np.count_nonzero(body)))
    reasons = [
        (lung_ml < rules.min_lung_ml, f"{lung_ml:.0f} ml of lung, at least {rules.min_lung_ml:.0f} ml expected"),
        (extent_mm < rules.min_lung_extent_mm, f"lung over {extent_mm:.0f} mm, {rules.min_lung_extent_mm:.0f} mm expected"),
        (parenchyma < rules.min_parenchyma_share, f"only {parenchyma:.0%} of the supposed lung has the density of lung"),
        (share < rules.min_lung_share_of_body, f"lung is {share:.1%} of the body, {rules.min_lung_share_of_body:.0%} expected"),
    ]
    wrong = [text for is_wrong, text in reasons if is_wrong]
    return Refusal(RefusalCode.NOT_THIS_REGION, f"not a chest: {'; '.join(wrong)}", _REMEDY) if wrong else None
