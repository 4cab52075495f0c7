"""What lies around the patient in the scanner: table, mattress, blanket, wires, arms. None of it is lung."""

import numpy as np
from numpy.typing import NDArray

from dicomnode.phantom.anatomy import Anatomy
from dicomnode.phantom.spec import ThoraxSpec
from dicomnode.phantom.structures import BONE_HU, Painted, paint
from dicomnode.phantom.tissue import SlicePlane, body_distance, lay
from dicomnode.phantom.tubes import Grid, chain

Floats = NDArray[np.float32]


def add_surroundings(rng: np.random.Generator, hu: Floats, anatomy: Anatomy, grid: Grid, spec: ThoraxSpec) -> None:
    """Paint the surroundings into `hu` (z, y, x) in place, only where there is air outside the body."""
    table = rng.random() < 0.8 if spec.table is None else spec.table
    arms = rng.random() < 0.15 if spec.arms_down is None else spec.arms_down
    blanket = rng.uniform(2, 14) if rng.random() < 0.4 else 0.0
    curve, foam = rng.uniform(0.0006, 0.0022), rng.uniform(-960, -880)
    x, y = grid.axis(2)[None, :], grid.axis(1)[:, None]
    for index, z in enumerate(grid.axis(0)):
        plane = SlicePlane(float(z), x, y, max(1.0, spec.pixel_spacing_mm))
        outline = body_distance(anatomy, plane)
        outside = 1.0 - plane.cover(outline)
        if blanket > 0:
            fold = blanket + 5 * np.sin(x / 23 + z / 40) + 3 * np.sin(y / 15)
            sheet = np.minimum(1.6 - np.abs(-outline - fold), -y + anatomy.body_half_depth - 10)
            lay(hu[index], plane.cover(sheet.astype(np.float32)) * outside, -350.0)
        if table:
            _paint_table(hu[index], plane, outside, anatomy.body_half_depth + 4, curve, foam)
    soft = max(1.0, spec.pixel_spacing_mm)
    if arms:
        _paint_arms(rng, hu, anatomy, grid, soft)
    for _ in range(int(rng.integers(0, 4))):  # wires on the chest
        start = [rng.uniform(-120, 120), -anatomy.body_half_depth - rng.uniform(2, 8), rng.uniform(-100, 100)]
        end = [rng.uniform(-120, 120), -anatomy.body_half_depth - rng.uniform(2, 8), rng.uniform(-100, 100)]
        paint(hu, grid, Painted(chain(np.array([start, end]), 1.2), 800.0), soft)


def _paint_table(hu: Floats, plane: SlicePlane, outside: Floats, top: float, curve: float, foam: float) -> None:
    surface = plane.y - top + curve * plane.x * plane.x
    wide = 215 - np.abs(plane.x)
    lay(hu, plane.cover(np.minimum(np.minimum(surface, 14 - surface), wide).astype(np.float32)) * outside, foam)
    for depth, thick in ((14.0, 1.5), (48.0, 1.8)):
        shell = np.minimum(thick - np.abs(surface - depth), wide)
        lay(hu, plane.cover(shell.astype(np.float32)) * outside, -150.0)


def _paint_arms(rng: np.random.Generator, hu: Floats, anatomy: Anatomy, grid: Grid, soft: float) -> None:
    for side in (-1, 1):
        x = side * (anatomy.body_half_width + rng.uniform(36, 52))
        arm = np.array([[x, 10, 140], [x + side * 6, 22, 0], [x, 20, -360]], float)
        paint(hu, grid, Painted(chain(arm, rng.uniform(34, 42)), -95.0), soft)
        paint(hu, grid, Painted(chain(arm, 28.0), 55.0), soft)
        paint(hu, grid, Painted(chain(arm, 11.0), BONE_HU + 500), soft)
        paint(hu, grid, Painted(chain(arm, 6.0), -20.0), soft)
