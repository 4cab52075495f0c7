"""What pixels alone say of a series, as a row of numbers: shares of tissues, where the body ends, how it looks from far away.

Neither headers nor the affine are asked, only the voxels in their stored order and the distances between them: plane, body part
and contrast are to be judged from what is shown, because tags lie. Intensities count as Hounsfield units only where the volume
says so.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.domain.imaging import Image2D, Volume

_GRID_MM = 4.0  # about what features are computed on
_MOST_SAMPLES = 160  # along an axis
_BODY_HU = -400.0
_TISSUES_HU = ((-2000, -920), (-920, -500), (-500, -150), (-150, -30), (-30, 20), (20, 90), (90, 160), (160, 300), (300, 4000))
_THIRDS = 3
_LOOK = 6  # a projection is shrunk to 6 × 6

NAMES: tuple[str, ...] = (
    *("projection", "hounsfield", "slices", "extent_z_mm", "extent_y_mm", "extent_x_mm", "body_y_mm", "body_x_mm"),
    *("body_share", "body_mirror_y", "body_mirror_x", "body_mirror_z", "top", "bottom", "left", "right", "first", "last"),
    *(f"tissue_{low}_{high}" for low, high in _TISSUES_HU),
    *(f"lung_third_{number}" for number in range(_THIRDS)),
    *(f"bone_third_{number}" for number in range(_THIRDS)),
    *("lung_spread", "bone_ring", "core_p90", "core_p97", "core_p99", "core_share"),
    *(f"shadow_{row}_{column}" for row in range(_LOOK) for column in range(_LOOK)),
)


def series_features(image: Volume | Image2D) -> NDArray[np.float32]:
    """One number for each of `NAMES`, finite. Projections have no millimetres and no tissues: 0 stands there."""
    if isinstance(image, Image2D):
        sample, spacing = _shrunk(image.pixels[None], (1.0, 1.0, 1.0))
        return _row(_unit(sample), spacing, projection=True, hounsfield=False)
    sample, spacing = _shrunk(image.pixels, image.spacing_mm)
    hounsfield = image.unit == "[hnsf'U]"
    return _row(np.clip(sample, -1100, 3000) if hounsfield else _unit(sample), spacing, projection=False, hounsfield=hounsfield)


def _shrunk(
    pixels: NDArray[Any], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """Block means on a grid of about `_GRID_MM`; slices are only left out, never mixed."""
    steps = [max(1, round(_GRID_MM / one), -(-size // _MOST_SAMPLES)) for one, size in zip(spacing, pixels.shape, strict=True)]
    planes = np.asarray(pixels[:: steps[0]], dtype=np.float32)
    _, y, x = planes.shape
    height, width = y // steps[1] * steps[1], x // steps[2] * steps[2]
    blocks = planes[:, :height, :width].reshape(len(planes), height // steps[1], steps[1], width // steps[2], steps[2])
    return blocks.mean(axis=(2, 4)), (spacing[0] * steps[0], spacing[1] * steps[1], spacing[2] * steps[2])


def _unit(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values of unknown unit between their 1st and 99th percentile as 0 … 1."""
    low, high = np.percentile(sample, (1, 99))
    return np.asarray(np.clip((sample - low) / max(float(high - low), 1e-6), 0, 1), dtype=np.float32)


def _row(
    sample: NDArray[np.float32], spacing: tuple[float, float, float], *, projection: bool, hounsfield: bool
) -> NDArray[np.float32]:
    body = _body(sample, hounsfield=hounsfield)
    values = [float(projection), float(hounsfield), 0.0 if projection else float(len(sample))]
    values += [0.0, 0.0, 0.0] if projection else [size * one for size, one in zip(sample.shape, spacing, strict=True)]
    values += _outline(body, spacing, projection=projection)
    values += _tissues(sample, body) if hounsfield else [0.0] * (len(_TISSUES_HU) + 2 * _THIRDS + 2)
    values += _core(sample, body) if hounsfield else [0.0] * 4
    values += _shadow(sample[0]) if projection else [0.0] * _LOOK**2
    row = np.nan_to_num(np.array(values, dtype=np.float32), posinf=0.0, neginf=0.0)
    assert len(row) == len(NAMES)  # noqa: S101 - the two are written apart
    return row


def _body(sample: NDArray[np.float32], *, hounsfield: bool) -> NDArray[np.bool_]:
    """The largest piece of each slice that is no air, its holes filled."""
    inside = sample > (_BODY_HU if hounsfield else 0.15)
    found = np.zeros(inside.shape, dtype=bool)
    for number, plane in enumerate(inside):
        pieces, count = ndimage.label(ndimage.binary_opening(plane))
        if count:
            largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
            found[number] = ndimage.binary_fill_holes(pieces == largest)
    return found


def _outline(body: NDArray[np.bool_], spacing: tuple[float, float, float], *, projection: bool) -> list[float]:
    columns, rows, slices = body.any(axis=(0, 1)), body.any(axis=(0, 2)), body.any(axis=(1, 2))
    size_y, size_x = float(rows.sum()), float(columns.sum())
    mm = [0.0, 0.0] if projection else [size_y * spacing[1], size_x * spacing[2]]
    box = body[np.ix_(slices, rows, columns)]
    mirrored = [_agreement(box, axis) for axis in (1, 2, 0)]
    edges = (body[:, :2].any(axis=1), body[:, -2:].any(axis=1), body[:, :, :2].any(axis=2), body[:, :, -2:].any(axis=2))
    shares = body.mean(axis=(1, 2))
    return [*mm, float(body.mean()), *mirrored, *(float(edge.mean()) for edge in edges), float(shares[0]), float(shares[-1])]


def _agreement(box: NDArray[np.bool_], axis: int) -> float:
    """Share of voxels in which a mask and its mirror image agree: bodies are symmetric to one plane only."""
    return float((box == np.flip(box, axis)).mean()) if box.size else 0.0


def _tissues(sample: NDArray[np.float32], body: NDArray[np.bool_]) -> list[float]:
    inside = sample[body]
    total = max(len(inside), 1)
    shares = [float(((inside >= low) & (inside < high)).sum()) / total for low, high in _TISSUES_HU]
    lung = body & (sample >= -950) & (sample < -500)
    bone = body & (sample >= 300)
    areas = np.maximum(body.sum(axis=(1, 2)), 1)
    of_slices = [part.sum(axis=(1, 2)) / areas for part in (lung, bone)]
    thirds = [float(one.mean()) if len(one) else 0.0 for shares_ in of_slices for one in np.array_split(shares_, _THIRDS)]
    edge = body & ~ndimage.binary_erosion(body, structure=np.ones((1, 5, 5), dtype=bool))
    ring = float((bone & edge).sum()) / max(int(edge.sum()), 1)
    return [*shares, *thirds, float(of_slices[0].std()), ring]


def _core(sample: NDArray[np.float32], body: NDArray[np.bool_]) -> list[float]:
    """How bright soft tissue is away from bone: blood that carries contrast medium stands out there."""
    near_bone = ndimage.binary_dilation(sample >= 450, iterations=2)
    soft = body & (sample > 0) & ~near_bone
    core = ndimage.binary_erosion(soft, structure=np.ones((1, 3, 3), dtype=bool))
    if core.sum() < 50:
        return [0.0, 0.0, 0.0, 0.0]
    smooth = ndimage.uniform_filter(sample, size=(1, 3, 3))[core]
    return [*(float(one) for one in np.percentile(smooth, (90, 97, 99))), float((smooth > 110).mean())]


def _shadow(plane: NDArray[np.float32]) -> list[float]:
    rows = [block.mean(axis=0) for block in np.array_split(plane, _LOOK, axis=0)]
    return [float(part.mean()) if part.size else 0.0 for row in rows for part in np.array_split(row, _LOOK)]
