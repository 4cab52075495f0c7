"""Training cases from real chest CT: reference lungs as truth, synthetic nodules planted among real vessels and scars."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.engines.chest.body import body_mask
from dicomnode.learning.cases import (
    GRID_MM,
    TRUTH_IGNORE,
    TRUTH_LESION,
    TRUTH_LUNG,
    TRUTH_OTHER,
    TRUTH_OUTSIDE,
    Case,
)
from dicomnode.learning.reference import reference_lungs, windpipe
from dicomnode.phantom.nodules import draw_nodule, plant, shape_nodule
from dicomnode.phantom.tubes import Grid

Floats = NDArray[np.float32]
Box = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class KnownFinding:
    """A real finding in a training scan: `label` teaches it as a lesion (its dense voxels), else it is ignored. LPS mm."""

    center_mm: tuple[float, float, float]
    radius_mm: float
    label: bool


@dataclass(frozen=True, slots=True, eq=False)
class RealScan:
    """A real axial CT, not yet planted. hu: int16 (z, y, x), spacing and origin in mm (z, y, x), LPS."""

    name: str
    hu: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    findings: tuple[KnownFinding, ...] = ()
    is_chest: bool = True

    @property
    def grid(self) -> Grid:
        """The scan's voxel grid."""
        z, y, x = self.hu.shape
        return Grid(self.origin_mm, self.spacing_mm, (z, y, x))


@dataclass(frozen=True, slots=True, eq=False)
class PreparedScan:
    """A scan with what planting needs, computed once: truth without planted nodules, lung hull (0-1), body."""

    scan: RealScan
    truth: NDArray[np.uint8]
    hull: Floats
    body: NDArray[np.bool_]


def prepare(scan: RealScan) -> PreparedScan:
    """Reference lungs without the windpipe, the hull that nodules may fill, known findings, and the body."""
    body = body_mask(scan.hu, scan.spacing_mm)
    truth = np.where(body, TRUTH_OTHER, TRUTH_OUTSIDE).astype(np.uint8)
    if not scan.is_chest:
        return PreparedScan(scan, truth, np.zeros(scan.hu.shape, np.float32), body)
    lungs = reference_lungs(scan.hu, body)
    lungs &= ~windpipe(scan.hu, lungs, scan.spacing_mm)
    truth[lungs] = TRUTH_LUNG
    z, y, x = np.meshgrid(*(scan.grid.axis(dimension) for dimension in range(3)), indexing="ij", sparse=True)
    for finding in scan.findings:
        cx, cy, cz = finding.center_mm
        near = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < finding.radius_mm**2
        if finding.label:
            hull = ndimage.binary_closing(np.pad(lungs, 12), iterations=12)[(slice(12, -12),) * 3]
            truth[near & (scan.hu > -450) & hull] = TRUTH_LESION
            truth[near & (scan.hu > -450) & ~hull & body] = TRUTH_IGNORE
        else:
            truth[near] = TRUTH_IGNORE
    radius = max(1, round(4 / scan.spacing_mm[1]))
    hull = np.stack(
        [ndimage.binary_closing(np.pad(plane, radius), iterations=radius)[radius:-radius, radius:-radius] for plane in lungs]
    )
    return PreparedScan(scan, truth, ndimage.gaussian_filter(hull.astype(np.float32), (0, 0.8, 0.8)), body)


def planted_case(prepared: PreparedScan, variant: int, seed: int, nodules: int) -> Case:
    """The scan with `nodules` synthetic nodules at random places in its lungs, on the network's grid."""
    scan = prepared.scan
    rng = np.random.default_rng((seed, variant, 5))
    hu, truth = scan.hu.astype(np.float32), prepared.truth.copy()
    centers = [np.array(finding.center_mm) for finding in scan.findings if finding.label]
    inside = np.flatnonzero(prepared.truth == TRUTH_LUNG)
    vessels = np.flatnonzero((prepared.truth == TRUTH_LUNG) & (scan.hu > -500))
    if len(inside) and len(vessels):
        for _ in range(nodules):
            pool = vessels if rng.random() < 0.25 else inside
            index = np.array(np.unravel_index(int(rng.choice(pool)), hu.shape))
            center = (np.asarray(scan.origin_mm) + index * np.asarray(scan.spacing_mm))[::-1]
            if _plant_one(rng, prepared, hu, truth, center):
                centers.append(center)
    image, truth = on_network_grid(hu, scan.spacing_mm), _nearest_on_network_grid(truth, scan.spacing_mm)
    origin = np.asarray(scan.origin_mm)[::-1]
    lesions = np.array([(center - origin) / GRID_MM for center in centers], np.float32).reshape(-1, 3)
    return Case(f"{scan.name}-{variant}", np.round(image).astype(np.int16), truth, lesions)


def _plant_one(
    rng: np.random.Generator, prepared: PreparedScan, hu: Floats, truth: NDArray[np.uint8], center: NDArray[np.float64]
) -> bool:
    scan = prepared.scan
    nodule = draw_nodule(rng, (float(center[0]), float(center[1]), float(center[2])))
    shape = shape_nodule(rng, scan.grid, nodule, soft_mm=float(rng.uniform(0.8, 1.6)))
    if shape is None or np.isin(truth[shape.box], (TRUTH_LESION, TRUTH_IGNORE)).any():
        return False
    grain = rng.standard_normal(shape.cover.shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(grain, (0, 0.7, 0.7)) * np.float32(rng.uniform(15, 60))
    cover = plant(hu, shape, prepared.hull)
    hu[shape.box] += cover * grain
    place = truth[shape.box]
    place[cover > 0.5] = TRUTH_LESION
    return bool((cover > 0.5).any())


def on_network_grid(hu: Floats, spacing_mm: tuple[float, float, float]) -> Floats:
    """(z, y, x) at `spacing_mm` → (x, y, z) at the network's spacing, linear, first voxel kept: as Spacingd does."""
    result = hu.transpose(2, 1, 0)
    for axis, (from_mm, to_mm) in enumerate(zip(spacing_mm[::-1], GRID_MM, strict=True)):
        length = result.shape[axis]
        at = np.arange(int((length - 1) * from_mm / to_mm + 1e-6) + 1) * (to_mm / from_mm)
        below = np.minimum(np.floor(at).astype(int), length - 1)
        above = np.minimum(below + 1, length - 1)
        part = (at - below).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        result = np.take(result, below, axis) * (1 - part) + np.take(result, above, axis) * part
    return np.ascontiguousarray(result, dtype=np.float32)


def _nearest_on_network_grid(truth: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
    result = truth.transpose(2, 1, 0)
    for axis, (from_mm, to_mm) in enumerate(zip(spacing_mm[::-1], GRID_MM, strict=True)):
        length = result.shape[axis]
        at = np.arange(int((length - 1) * from_mm / to_mm + 1e-6) + 1) * (to_mm / from_mm)
        result = np.take(result, np.minimum(np.round(at).astype(int), length - 1), axis)
    return np.ascontiguousarray(result)
