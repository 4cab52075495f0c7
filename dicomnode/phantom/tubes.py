"""Tubes: vessel and bronchial trees, ribs, great vessels; as capsules (segments with a radius)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """The voxel grid of a phantom: world (mm) of voxel (0, 0, 0) and spacing, both (z, y, x)."""

    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]

    def axis(self, dimension: int) -> Floats:
        """World coordinates in mm along one array axis (0 = z, 1 = y, 2 = x)."""
        steps = np.arange(self.shape[dimension], dtype=np.float32)
        return np.float32(self.origin[dimension]) + steps * np.float32(self.spacing[dimension])

    def box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[slice, slice, slice] | None:
        """Index ranges that hold the world box (z, y, x), None where it misses the grid."""
        start = np.floor((low - self.origin) / self.spacing).astype(int)
        stop = np.ceil((high - self.origin) / self.spacing).astype(int) + 1
        start, stop = np.maximum(start, 0), np.minimum(stop, self.shape)
        if np.any(start >= stop):
            return None
        return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])


@dataclass(frozen=True, slots=True, eq=False)
class Capsules:
    """n capsules: `start`, `end` (n, 3) in LPS mm (x, y, z), `radius` (n,) mm."""

    start: Floats
    end: Floats
    radius: Floats


def chain(points: NDArray[np.float64], radius: float | NDArray[np.float64]) -> Capsules:
    """Capsules along a polyline of (n, 3) points."""
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float32), (len(points) - 1,))
    return Capsules(points[:-1].astype(np.float32), points[1:].astype(np.float32), radii.astype(np.float32))


def capsule_cover(
    grid: Grid, start: Floats, end: Floats, radius: float, soft_mm: float
) -> tuple[tuple[slice, slice, slice], Floats] | None:
    """Where one capsule lies, and how much of each voxel there it fills (0-1).

    A tube thinner than the slice is widened and weakened, as a scanner's slice profile does.
    """
    direction = end - start
    length = float(np.sqrt(direction @ direction)) + 1e-6
    tilt = float(np.hypot(direction[0], direction[1])) / length
    soft = max(soft_mm, 0.55 * tilt * grid.spacing[0])
    wide = max(radius, 0.5 * soft)
    strength = min(1.0, (radius / wide) ** 1.3)
    reach = wide + soft
    low = (np.minimum(start, end) - reach)[::-1].astype(np.float64)
    high = (np.maximum(start, end) + reach)[::-1].astype(np.float64)
    box = grid.box(low, high)
    if box is None:
        return None
    z, y, x = (grid.axis(dimension)[part] for dimension, part in enumerate(box))
    dx, dy, dz = x - start[0], (y - start[1])[:, None], (z - start[2])[:, None, None]
    unit = direction / length
    offset = dx * unit[0] + dy * unit[1] + dz * unit[2]
    along = np.clip(offset, 0.0, length)  # beyond the ends the distance is that to the end point
    squared = dx * dx + dy * dy + dz * dz + along * (along - 2 * offset)
    distance = np.sqrt(np.maximum(squared, 0.0))
    cover = np.clip((wide - distance) / soft + 0.5, 0.0, 1.0) * np.float32(strength)
    return box, cover.astype(np.float32, copy=False)


def grow_tree(
    rng: np.random.Generator, root: NDArray[np.float64], targets: NDArray[np.float64], tip_radius: float, max_radius: float
) -> Capsules:
    """A tree from `root` that reaches every target point (n, 3): thick near the root, thin at the tips (Murray's law).

    Each target joins the nearest node of the tree so far, nearness weighted so that branches leave towards the periphery.
    """
    order = np.argsort(np.linalg.norm(targets - root, axis=1) + rng.uniform(0, 12, len(targets)))
    count = 2 * len(targets) + 1
    nodes = np.empty((count, 3))
    parents = np.zeros(count, dtype=np.int64)
    depth = np.empty(count)
    nodes[0], depth[0], used = root, 0.0, 1
    for target in targets[order]:
        distance = np.linalg.norm(nodes[:used] - target, axis=1)
        nearest = int(np.argmin(distance + 0.35 * depth[:used]))
        bend = (nodes[nearest] + target) / 2 + rng.normal(0, 0.09 * distance[nearest], 3)
        for point, parent in ((bend, nearest), (target, used)):
            nodes[used], parents[used] = point, parent
            depth[used] = depth[parent] + np.linalg.norm(point - nodes[parent])
            used += 1
    flow = np.zeros(count)
    flow[2::2] = 1.0
    for node in range(count - 1, 0, -1):
        flow[parents[node]] += flow[node]
    radius = np.minimum(tip_radius * flow[1:] ** (1 / 2.6), max_radius)
    return Capsules(nodes[parents[1:]].astype(np.float32), nodes[1:].astype(np.float32), radius.astype(np.float32))
