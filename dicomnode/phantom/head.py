"""A head, for what is no chest: skull, brain, ventricles, sinuses and the air around."""

import numpy as np
from numpy.typing import NDArray

from dicomnode.phantom.tubes import Grid

Floats = NDArray[np.float32]


def head_volume(rng: np.random.Generator, grid: Grid) -> Floats:
    """HU (z, y, x) of a head centred on the grid's region; no lung in it."""
    hu = np.full(grid.shape, -1000.0, dtype=np.float32)
    half = np.array([72.0, 92.0, 100.0]) * rng.uniform(0.92, 1.08, 3)
    sinuses = [(rng.uniform(-25, 25), rng.uniform(-80, -50), rng.uniform(-70, -10), rng.uniform(5, 15)) for _ in range(7)]
    x, y = grid.axis(2)[None, :], grid.axis(1)[:, None]
    for index, z in enumerate(grid.axis(0)):
        height = max(0.0, float(z)) / half[2] if z > -20 else 0.0  # below, the skull base and neck go on as a column
        inner = np.sqrt((x / half[0]) ** 2 + (y / half[1]) ** 2 + height**2)
        depth = (1 - inner) * half[0]
        _layer(hu[index], depth + 6, 20.0)
        _layer(hu[index], depth, 900.0 if z > -60 else 60.0)
        _layer(hu[index], depth - 7, 34.0)
        ventricles = 9 - np.sqrt((np.abs(x) - 12) ** 2 + (y / 2.5) ** 2 + (float(z) - 35) ** 2 / 4)
        _layer(hu[index], ventricles, 8.0)
        for sx, sy, sz, radius in sinuses:
            _layer(
                hu[index], np.minimum(radius - np.sqrt((x - sx) ** 2 + (y - sy) ** 2 + (float(z) - sz) ** 2), depth + 3), -990.0
            )
    return hu


def _layer(hu: Floats, distance: NDArray[np.floating], value: float) -> None:
    cover = np.clip(distance + 0.5, 0, 1).astype(np.float32)
    hu += cover * (value - hu)
