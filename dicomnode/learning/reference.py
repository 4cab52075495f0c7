"""Reference lungs from thresholds: what real scans without an expert's contours are measured against, and taught with."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LUNG_BELOW_HU = -400
SMALLEST_COMPONENT_VOXELS = 20_000
CLOSING_VOXELS = 3


def reference_lungs(hu: NDArray[np.int16], body: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Aerated lung of a chest CT (z, y, x): components below -400 HU of more than 20,000 voxels that do not reach the border
    of the plane, closed by 3 voxels. Airways that are joined to the lungs count; consolidated lung does not.

    `body` keeps a hollow table out, which the rule alone takes for a lung.
    """
    aerated = hu < LUNG_BELOW_HU if body is None else (hu < LUNG_BELOW_HU) & body
    components, count = ndimage.label(aerated)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    kept = sizes > SMALLEST_COMPONENT_VOXELS
    kept[0] = False
    for edge in (components[:, 0], components[:, -1], components[:, :, 0], components[:, :, -1]):
        kept[np.unique(edge)] = False
    lungs = kept[components]
    padded = np.pad(lungs, CLOSING_VOXELS)
    closed = ndimage.binary_closing(padded, iterations=CLOSING_VOXELS)
    return np.asarray(closed[(slice(CLOSING_VOXELS, -CLOSING_VOXELS),) * 3])


def windpipe(hu: NDArray[np.int16], lungs: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """The trachea inside reference lungs (z, y, x; z towards the head): followed from the top, slice by slice, as the round
    air in the middle that is apart from both lungs in the plane. Empty where none is found.
    """
    result = np.zeros(lungs.shape, dtype=bool)
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    middle = _body_middle(hu)
    before: NDArray[np.bool_] | None = None
    for z in range(lungs.shape[0] - 1, -1, -1):
        spots, count = ndimage.label(lungs[z] & (hu[z] < -750))
        chosen = None
        for number in range(1, count + 1):
            spot = spots == number
            area = spot.sum() * pixel_mm2
            if not 60 < area < 900:
                continue
            y, x = np.argwhere(spot).mean(axis=0)
            near = abs(x - middle[1]) * spacing_mm[2] < 30 and abs(y - middle[0]) * spacing_mm[1] < 60
            if near and (before is None or (spot & before).any()):
                chosen = spot
                break
        if chosen is None and before is not None:
            break  # below the carina
        if chosen is not None:
            before = ndimage.binary_dilation(chosen, iterations=2)
            result[z] = before
    return result


def _body_middle(hu: NDArray[np.int16]) -> tuple[float, float]:
    y, x = np.nonzero(hu[:: max(1, len(hu) // 8)].max(axis=0) > -200)
    if len(x) == 0:
        return hu.shape[1] / 2, hu.shape[2] / 2
    return float(np.median(y)), float(np.median(x))
