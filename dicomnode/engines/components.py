"""Connected components of a mask, found by its runs along the last axis: lungs are some hundred thousand runs, not ten million
voxels. The same components as scipy.ndimage.label, in the same order, in a fraction of its time and memory.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dicomnode.imaging.resampling import Box

Indices = NDArray[np.int64]


class Touching(Enum):
    """What joins two voxels: (rows behind as (dz, dy), how many columns further a run reaches)."""

    IN_PLANE = (((0, 1),), 0)  # a shared edge, in slices of their own
    FACES = (((0, 1), (1, 0)), 0)
    CORNERS = (((0, 1), (1, -1), (1, 0), (1, 1)), 1)


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Runs in raster order. rows: z × size of y + y; starts, stops: columns, stop exclusive; numbers: of components, from 0."""

    shape: tuple[int, int, int]
    rows: Indices
    starts: Indices
    stops: Indices
    numbers: Indices
    count: int

    def sizes(self) -> Indices:
        """(count,) voxels of each component."""
        return self.sums(self.stops - self.starts)

    def sums(self, of_runs: NDArray[np.generic]) -> Indices:
        """(count,) of a whole number for each run."""
        return np.bincount(self.numbers, weights=of_runs, minlength=self.count).astype(np.int64)

    def columns(self, number: int) -> Indices:
        """(x,) voxels of a component in each column."""
        mine = self.numbers == number
        width = self.shape[2] + 1
        begun, ended = (np.bincount(ends[mine], minlength=width) for ends in (self.starts, self.stops))
        return np.cumsum(begun - ended)[:-1]

    def boxes(self) -> list[Box]:
        """The smallest box around each component."""
        z, y = np.divmod(self.rows, self.shape[1])
        edges = []
        for values, extreme, first in ((z, np.minimum, True), (z, np.maximum, False), (y, np.minimum, True)):
            edges.append(self._extreme(values, extreme, first=first))
        edges.append(self._extreme(y, np.maximum, first=False))
        edges.append(self._extreme(self.starts, np.minimum, first=True))
        edges.append(self._extreme(self.stops, np.maximum, first=False))
        return [
            (slice(z0, z1 + 1), slice(y0, y1 + 1), slice(x0, x1)) for z0, z1, y0, y1, x0, x1 in np.stack(edges, axis=1).tolist()
        ]

    def seeds(self) -> list[tuple[int, int, int]]:
        """The first voxel (z, y, x) of each component in raster order."""
        _, first = np.unique(self.numbers, return_index=True)
        z, y = np.divmod(self.rows[first], self.shape[1])
        return [(z0, y0, x0) for z0, y0, x0 in np.stack([z, y, self.starts[first]], axis=1).tolist()]

    def _extreme(self, values: Indices, extreme: np.ufunc, *, first: bool) -> Indices:
        found = np.full(self.count, np.iinfo(np.int64).max if first else -1)
        extreme.at(found, self.numbers, values)
        return found

    def painted(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`values[number]` where the component of this number lies, else 0: (z, y, x) uint8."""
        depth, height, width = self.shape
        ends = np.zeros(2 * len(self.rows) + 2, dtype=np.int64)
        ends[1:-1:2] = self.rows * width + self.starts
        ends[2:-1:2] = self.rows * width + self.stops
        ends[-1] = depth * height * width
        colours = np.zeros(len(ends) - 1, dtype=np.uint8)
        colours[1::2] = values[self.numbers]
        return np.repeat(colours, np.diff(ends)).reshape(self.shape)

    def mask(self, number: int) -> NDArray[np.bool_]:
        """One component, (z, y, x) bool."""
        values = np.zeros(self.count, dtype=np.uint8)
        values[number] = 1
        return self.painted(values).view(bool)


def components(mask: NDArray[np.bool_], touching: Touching) -> Components:
    """Of a mask (z, y, x)."""
    depth, height, width = mask.shape
    flat = np.ascontiguousarray(mask).reshape(depth * height, width)
    changes = np.empty((depth * height, width + 1), dtype=bool)
    changes[:, :1] = flat[:, :1]
    changes[:, -1:] = flat[:, -1:]
    np.not_equal(flat[:, 1:], flat[:, :-1], out=changes[:, 1:-1])
    ends = np.flatnonzero(changes)
    # Rows one after the other, with one column between them in which no run lies.
    starts, stops = ends[0::2], ends[1::2]
    rows = starts // (width + 1)
    first, second = _joined(starts, stops, rows % height if height else rows, mask.shape, touching)
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(len(starts), len(starts)))
    count, numbers = connected_components(graph, directed=False) if len(starts) else (0, np.zeros(0, dtype=np.int32))
    begins = rows * (width + 1)
    return Components(mask.shape, rows, starts - begins, stops - begins, _in_raster_order(numbers, count), count)


def _joined(
    starts: Indices, stops: Indices, y: Indices, shape: tuple[int, int, int], touching: Touching
) -> tuple[Indices, Indices]:
    """Pairs of runs that touch: each with those of the rows behind it."""
    _, height, width = shape
    behind, reach = touching.value
    first, second = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for dz, dy in behind:
        asking = np.flatnonzero((y + dy >= 0) & (y + dy < height)) if dy else np.arange(len(starts))
        shift = (dz * height + dy) * (width + 1)
        low = np.searchsorted(stops, starts[asking] + (shift - reach), side="right")
        high = np.searchsorted(starts, stops[asking] + (shift + reach), side="left")
        counts = np.maximum(high - low, 0)
        first.append(np.repeat(asking, counts))
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        second.append(np.repeat(low, counts) + steps)
    return np.concatenate(first), np.concatenate(second)


def _in_raster_order(numbers: NDArray[np.int32], count: int) -> Indices:
    _, first = np.unique(numbers, return_index=True)
    place = np.empty(count, dtype=np.int64)
    place[np.argsort(first)] = np.arange(count)
    return np.asarray(place[numbers], dtype=np.int64)
