"""Lungs that are not healthy: what must not be taken for a nodule, and what makes lungs hard to outline."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.phantom.spec import Disease
from dicomnode.phantom.tubes import Grid

Floats = NDArray[np.float32]


def add_disease(
    rng: np.random.Generator, hu: Floats, labels: NDArray[np.uint8], lung: Floats, grid: Grid, disease: Disease
) -> None:
    """Paint one disease into `hu` in place; voxels that stop being aerated lose their lung label."""
    _add_plates(rng, hu, lung, grid)
    if disease == "none" or not labels.any():
        return
    if disease == "emphysema":
        pattern = _blobs(rng, grid, rng.uniform(5, 9))
        holes = np.clip((pattern - rng.uniform(0.4, 1.2)) * 3, 0, 1) * lung * (hu < -700)
        hu += holes * (-985 - hu)
    elif disease == "fibrosis":
        edge = _edge(lung, grid, rng.uniform(12, 28))
        strands = np.abs(_blobs(rng, grid, rng.uniform(2.2, 3.5)))
        hu += edge * lung * np.clip(1.0 - strands * 2.2, 0, 1) * rng.uniform(250, 600) * (hu < -500)
        hu += edge * lung * rng.uniform(30, 160) * (hu < -500)
    elif disease == "ground_glass":
        haze = np.clip((_blobs(rng, grid, rng.uniform(10, 22)) - 0.3) * 2, 0, 1) * lung
        hu += haze * (rng.uniform(-650, -450) - hu) * (hu < -600)
    else:
        _fill(rng, hu, labels, lung, grid, disease)


def _fill(rng: np.random.Generator, hu: Floats, labels: NDArray[np.uint8], lung: Floats, grid: Grid, disease: Disease) -> None:
    """Effusion (fluid behind) or consolidation (a lobe without air)."""
    side = 1 if rng.random() < 0.5 else 2
    mine = lung * (labels == side)
    z, y = grid.axis(0)[:, None, None], grid.axis(1)[None, :, None]
    where = np.argwhere(labels[:: max(1, len(labels) // 24), ::4, ::4] == side)
    if len(where) == 0:
        return
    if disease == "effusion":
        level = np.quantile(grid.axis(1)[where[:, 1] * 4], rng.uniform(0.6, 0.9))
        field = y - level - 0.12 * (z - grid.axis(0).mean()) - 3 * np.sin(grid.axis(2)[None, None, :] / 17)
        value = rng.uniform(0, 30)
    else:
        center = where[rng.integers(len(where))] * [max(1, len(labels) // 24), 4, 4]
        place = np.asarray(grid.origin) + center * np.asarray(grid.spacing)
        x = grid.axis(2)[None, None, :]
        field = rng.uniform(20, 45) - np.sqrt((z - place[0]) ** 2 + (y - place[1]) ** 2 + (x - place[2]) ** 2)
        field = field + 9 * _blobs(rng, grid, 8.0)
        value = rng.uniform(10, 60)
    cover = (np.clip(field / 3 + 0.5, 0, 1) * mine).astype(np.float32)
    hu += cover * (value - hu)
    labels[cover > 0.5] = 0


def _add_plates(rng: np.random.Generator, hu: Floats, lung: Floats, grid: Grid) -> None:
    """Fissures in every lung, now and then a band of scar or atelectasis: thin sheets that are no nodules."""
    y, x = grid.axis(1)[:, None], grid.axis(2)[None, :]
    sheets = [(side, rng.uniform(0.55, 0.9), rng.uniform(-12, 12), 0.5, rng.uniform(0.12, 0.5)) for side in (-1, 1)]
    sheets += [
        (int(rng.choice([-1, 1])), rng.normal(0, 1), rng.uniform(-70, 50), rng.uniform(0.8, 1.8), rng.uniform(0.3, 0.9))
        for _ in range(int(rng.integers(0, 4)))
    ]
    soft = max(grid.spacing[0] * 0.6, 1.2)
    for number, (side, slope, offset, thick, strength) in enumerate(sheets):
        bend = 7 * np.sin(y / 31 + offset) + 5 * np.sin(x / 27 - offset)
        reach = (side * x > 0) if number < 2 else np.clip(1.5 - np.hypot(y - offset, x - side * 70) / 40, 0, 1)
        strong = (reach * (strength * min(1.0, 2 * thick / soft))).astype(np.float32)
        tilted = ((slope * y + bend - offset) / np.sqrt(1 + slope * slope)).astype(np.float32)
        for index, height in enumerate(grid.axis(0) / np.sqrt(1 + slope * slope)):  # by slice: stays in the cache
            away = np.abs(tilted + np.float32(height))
            cover = np.clip((thick - away) / soft + 0.5, 0, 1) * strong * lung[index]
            hu[index] += cover * (20 - hu[index]) * (hu[index] < 0)


def _blobs(rng: np.random.Generator, grid: Grid, size_mm: float) -> Floats:
    """A smooth random field (z, y, x) of unit deviation whose structures are about `size_mm` wide."""
    extent = np.array(grid.shape) * grid.spacing
    coarse = np.maximum((extent / size_mm).astype(int) + 2, 2)
    field = rng.standard_normal(coarse).astype(np.float32)
    factors = np.array(grid.shape) / coarse
    zoomed = ndimage.zoom(field, factors, order=1, mode="nearest", grid_mode=True)
    depth, rows, columns = grid.shape
    return np.asarray(zoomed[:depth, :rows, :columns], dtype=np.float32)


def _edge(lung: Floats, grid: Grid, depth_mm: float) -> Floats:
    """1 at the pleura, 0 at `depth_mm` inside."""
    sigma = [depth_mm * 0.5 / step for step in grid.spacing]
    inner = ndimage.gaussian_filter(lung, sigma, truncate=2.0)
    return np.asarray(np.clip((0.95 - inner) * 2.2, 0, 1), dtype=np.float32)
