"""Left and right lung: components, parted where they touch, named by where they lie in the patient."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.engines.components import Components, Touching, components

LEFT, RIGHT = 1, 2  # values in a side map
_SMALLEST_PART_ML = 15.0  # a smaller island is no lung: bowel gas, airway, a pixel cloud
_JOINED_SHARE = 0.2  # a component with this much of itself on each side of the middle is two lungs that touch
_LUNG_SHARE = 0.2  # of all lung: the smaller of two lungs is at least this
_APART_MM = 60.0  # between the middles of two lungs
_CORE_STEP_MM = 1.0
_LARGEST_CORE_MM = 16.0


@dataclass(frozen=True, slots=True)
class Frame:
    """What tells the sides apart, on canonical axes.

    left_mm: (x,) mm from the middle of the body, positive to the patient's left.
    """

    spacing_mm: tuple[float, float, float]
    left_mm: NDArray[np.float64]


def split_lungs(lungs: NDArray[np.bool_], frame: Frame) -> NDArray[np.uint8]:
    """lungs: (z, y, x) bool on canonical axes → (z, y, x) uint8: 0, LEFT or RIGHT. Islands below 15 ml are dropped.

    One lung alone keeps its side; lungs that touch (at the anterior junction, or where the map leaked) are parted where they
    are thinnest.
    """
    parts = components(lungs, Touching.FACES)
    sizes, voxel_ml = parts.sizes(), float(np.prod(frame.spacing_mm)) / 1000
    left_mm = _between_two_lungs(parts, sizes, frame)
    values, joined = np.zeros(parts.count, dtype=np.uint8), []
    for number in np.flatnonzero(sizes * voxel_ml >= _SMALLEST_PART_ML).tolist():
        share_left = float(parts.columns(number) @ (left_mm > 0)) / sizes[number]
        if min(share_left, 1 - share_left) < _JOINED_SHARE:
            values[number] = LEFT if share_left > 0.5 else RIGHT
        else:
            joined.append(number)
    sides = parts.painted(values)
    if joined:
        boxes = parts.boxes()
        for number in joined:
            box = boxes[number]
            part = parts.mask(number)[box]
            sides[box][part] = _parted(part, left_mm[box[2]], frame.spacing_mm)[part]
    return sides


def _between_two_lungs(parts: Components, sizes: NDArray[np.int64], frame: Frame) -> NDArray[np.float64]:
    """Where two lungs lie apart, the middle is between them: arms or a narrow field of view shift the middle of the body."""
    if parts.count < 2:
        return frame.left_mm
    largest = [int(number) for number in np.argsort(sizes)[::-1][:2]]
    if sizes[largest[1]] < _LUNG_SHARE * sizes.sum():
        return frame.left_mm
    middles = np.array([parts.columns(number) @ frame.left_mm for number in largest]) / sizes[largest]
    if abs(middles[0] - middles[1]) < _APART_MM:
        return frame.left_mm
    return np.asarray(frame.left_mm - middles.mean())


def _parted(part: NDArray[np.bool_], left_mm: NDArray[np.float64], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Two touching lungs → LEFT and RIGHT, by a watershed of the depth from two cores that no longer touch.

    On every second voxel: an eighth of the time, and the seam between two lungs is known no better than that.
    """
    from skimage.segmentation import watershed

    coarse = _halved(part)
    left_mm = left_mm[::2]
    depth = ndimage.distance_transform_edt(np.pad(coarse, 1), sampling=[2 * s for s in spacing_mm])[1:-1, 1:-1, 1:-1]
    cores = _cores(depth, left_mm)
    if cores is None:  # nothing parts them: the middle of the body does
        sides = np.broadcast_to(np.where(left_mm > 0, LEFT, RIGHT).astype(np.uint8), coarse.shape)
    else:
        sides = np.asarray(watershed(-depth, cores, mask=coarse), dtype=np.uint8)
    z, y, x = (np.arange(size) // 2 for size in part.shape)
    return np.asarray(sides[z][:, y][:, :, x])


def _halved(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Blocks of 2³ voxels, True where any of them is."""
    even = np.pad(part, [(0, size % 2) for size in part.shape])
    z, y, x = (size // 2 for size in even.shape)
    return np.asarray(even.reshape(z, 2, y, 2, x, 2).any(axis=(1, 3, 5)))


def _cores(depth: NDArray[np.float64], left_mm: NDArray[np.float64]) -> NDArray[np.uint8] | None:
    """The first depth at which the two sides' largest pieces lie apart, as markers LEFT and RIGHT."""
    for level in np.arange(_CORE_STEP_MM, min(_LARGEST_CORE_MM, depth.max()), _CORE_STEP_MM):
        labels, count = ndimage.label(depth > level)
        if count < 2:
            continue
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        where = np.nonzero(labels)
        middles = np.bincount(labels[where], weights=where[2], minlength=count + 1)[1:] / sizes
        is_left = np.interp(middles, np.arange(len(left_mm)), left_mm) > 0
        if not (is_left.any() and not is_left.all()):
            continue
        left, right = (np.where(is_left == side, sizes, 0) for side in (True, False))
        if min(left.max(), right.max()) < 0.15 * sizes.sum():
            continue
        markers = np.zeros(count + 1, dtype=np.uint8)
        markers[1:][is_left] = LEFT
        markers[1:][~is_left] = RIGHT
        return markers[labels]
    return None
