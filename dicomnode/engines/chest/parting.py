"""Lesions that touch, told apart: a nodule beside a patch of ground glass is one component to the network, not to a reader."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
# Two bodies are parted where the neck is thinner than this share of the smaller one: lobes of one spiculated lesion stay
# together, a nodule that leans on a larger patch does not.
_NECK_SHARE = 0.75
_LEAST_NECK_MM = 0.8  # by which a body stands out from its neck; less is the coarseness of voxels
_SMALLEST_VOXELS = 60

Pieces = NDArray[np.int32]


def pieces_of(own: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> Pieces:
    """The component `own` (z, y, x) parted at its necks: 0 outside, pieces from 1; all 1 where it has no neck.

    Watershed of the depth below the surface, from the depths that stand out; what has no neck between it is one again.
    """
    whole = own.astype(np.int32)
    if np.count_nonzero(own) < _SMALLEST_VOXELS:
        return whole
    depth = ndimage.distance_transform_edt(np.pad(own, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1].astype(np.float32)
    markers, count = ndimage.label(h_maxima(depth, _LEAST_NECK_MM), _TOUCHING)
    if count < 2:
        return whole
    pieces = watershed(-depth, markers, mask=own)
    if np.any(pieces[own] == 0):  # what hangs on by an edge or a corner alone belongs to the piece that it touches
        pieces = watershed(-depth, pieces, connectivity=_TOUCHING, mask=own)
    peaks = np.array([0.0, *ndimage.maximum(depth, pieces, np.arange(1, count + 1))], np.float32)
    names = _joined(_necks(pieces, depth, count), peaks)
    numbers = np.zeros(count + 1, np.int32)
    for number, name in enumerate(sorted(set(names[1:].tolist())), start=1):
        numbers[names == name] = number
    numbers[0] = 0
    return np.asarray(numbers[pieces])


def _necks(pieces: Pieces, depth: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(count + 1, count + 1) mm: how deep the deepest face between two pieces lies; 0 where they do not meet."""
    necks = np.zeros((count + 1, count + 1), np.float32)
    for axis in range(3):
        ahead, behind = (tuple(part if a == axis else slice(None) for a in range(3)) for part in (slice(1, None), slice(-1)))
        one, other = pieces[ahead], pieces[behind]
        meet = (one != other) & (one > 0) & (other > 0)
        face = np.minimum(depth[ahead], depth[behind])[meet]
        np.maximum.at(necks, (one[meet], other[meet]), face)
        np.maximum.at(necks, (other[meet], one[meet]), face)
    return necks


def _joined(necks: NDArray[np.float32], peaks: NDArray[np.float32]) -> NDArray[np.int64]:
    """(count + 1,): for each piece the one that it belongs to, the widest necks joined first. `necks`, `peaks` are used up."""
    names = np.arange(len(peaks))
    while True:
        share = necks / np.maximum(np.minimum(peaks[:, None], peaks[None, :]), 1e-6)
        kept, gone = sorted(int(place) for place in np.unravel_index(int(np.argmax(share)), share.shape))
        if share[kept, gone] < _NECK_SHARE:
            return names
        names[names == gone] = kept
        peaks[kept] = max(peaks[kept], peaks[gone])
        necks[kept] = np.maximum(necks[kept], necks[gone])
        necks[:, kept] = necks[kept]
        necks[gone], necks[:, gone], necks[kept, kept] = 0, 0, 0
