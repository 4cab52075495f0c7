"""Where parallel frames lie along their common normal, and whether that is a regular grid. Pure numbers: LPS, mm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

type_vector = NDArray[np.float64]

ORIENTATION_TOLERANCE = 1e-3  # per component: half a millimetre at the edge of a 500 mm field
SPACING_TOLERANCE = 1e-3  # relative
SAME_POSITION = 0.1  # of the step: closer than this is the same place
STEP_TOLERANCE = 0.01  # of the step; positions are written as rounded decimal strings …
STEP_TOLERANCE_MM = 0.02  # … which matters for thin slices
MISSING_TOLERANCE = 0.05  # how near to a multiple of the step a gap must be to be called missing slices
DRIFT_TOLERANCE_PIXELS = 0.5
GRID_TOLERANCE = 0.25  # of the step: small step errors of one sign must not add up
NO_STEP_MM = 0.01  # a difference below this says nothing of the distance between slices


def normal_of(orientation: type_vector) -> type_vector:
    """The direction in which slices follow each other: row × column (PS3.3 C.7.6.2.1.1), a unit vector."""
    normal = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)


def is_orthonormal(orientation: type_vector) -> bool:
    """Whether row and column directions are unit vectors at a right angle."""
    row, column = orientation[:3], orientation[3:]
    errors = (row @ column, np.linalg.norm(row) - 1, np.linalg.norm(column) - 1)
    return bool(np.abs(errors).max() <= ORIENTATION_TOLERANCE)


def typical_step(offsets: type_vector) -> float | None:
    """The median distance between neighbours of ascending `offsets`, those at one place left out; None if there is no other."""
    steps = np.diff(offsets)
    real = steps[steps > NO_STEP_MM]
    return _lower_median(real) if real.size else None


def _lower_median(steps: type_vector) -> float:
    """The median, of an even number the smaller: three slices with a gap have steps of d and 2 d, and d is the step."""
    return float(np.sort(steps)[(steps.size - 1) // 2])


def clusters(offsets: type_vector, step: float | None) -> list[list[int]]:
    """Indices of ascending `offsets`, grouped by place: neighbours closer than a tenth of a step share one."""
    groups: list[list[int]] = [[0]]
    for index in range(1, len(offsets)):
        if step is None or offsets[index] - offsets[index - 1] < SAME_POSITION * step:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


@dataclass(frozen=True, slots=True)
class Drift:
    """How far slices move sideways, in mm, over the stack, and how much of that is not in proportion to the way along it."""

    sideways_mm: float
    irregular_mm: float
    angle_degrees: float


def sideways_drift(positions: NDArray[np.float64], normal: type_vector) -> Drift:
    """`positions` (n, 3) in the order of the stack."""
    offsets = positions @ normal
    sideways = positions - np.outer(offsets, normal)
    sideways = sideways - sideways[0]
    along = offsets - offsets[0]
    slope = along @ sideways / (along @ along)
    total = float(np.linalg.norm(sideways, axis=1).max())
    irregular = float(np.linalg.norm(sideways - np.outer(along, slope), axis=1).max())
    return Drift(total, irregular, float(np.degrees(np.arctan(np.linalg.norm(slope)))))


@dataclass(frozen=True, slots=True)
class StepReport:
    """Which steps are not the usual one. Indices i mean the step between slices i and i + 1."""

    step: float
    missing: tuple[tuple[int, int], ...]  # (i, how many slices are missing there)
    uneven: tuple[int, ...]


def judge_steps(offsets: type_vector) -> StepReport:
    """Looks at each step of ascending, distinct `offsets`; a step of k times the median, k ≥ 2, means k − 1 missing slices."""
    steps = np.diff(offsets)
    step = _lower_median(steps)
    tolerance = max(STEP_TOLERANCE * step, STEP_TOLERANCE_MM)
    missing, uneven = [], []
    for index in np.flatnonzero(np.abs(steps - step) > tolerance):
        multiple = round(steps[index] / step)
        if multiple >= 2 and abs(steps[index] - multiple * step) <= MISSING_TOLERANCE * step:
            missing.append((int(index), multiple - 1))
        else:
            uneven.append(int(index))
    return StepReport(step, tuple(missing), tuple(uneven))


def strays_from_grid(offsets: type_vector) -> bool:
    """Whether some slice lies more than a quarter of a step from where equal steps between first and last would put it."""
    grid = np.linspace(offsets[0], offsets[-1], len(offsets))
    return bool(np.abs(offsets - grid).max() > GRID_TOLERANCE * (grid[1] - grid[0]))


def affine_of(
    orientation: type_vector,
    pixel_spacing: tuple[float, float],
    first_position: type_vector,
    offsets: Sequence[float] | type_vector,
) -> NDArray[np.float64]:
    """4×4: voxel (z, y, x, 1) → LPS mm (x, y, z, 1) of the voxel's centre (PS3.3 C.7.6.2.1.1, with the axes in our order)."""
    row_spacing, column_spacing = pixel_spacing
    affine = np.eye(4)
    affine[:3, 0] = normal_of(np.asarray(orientation)) * (offsets[-1] - offsets[0]) / (len(offsets) - 1)
    affine[:3, 1] = orientation[3:] * row_spacing  # one index further down a column: the next row
    affine[:3, 2] = orientation[:3] * column_spacing
    affine[:3, 3] = first_position
    return affine
