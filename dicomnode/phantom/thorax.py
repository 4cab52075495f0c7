"""From a `ThoraxSpec` to voxels: anatomy, tissue slice by slice, tubes, disease, nodules, surroundings, noise."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomnode.phantom.anatomy import Anatomy, draw_anatomy
from dicomnode.phantom.disease import add_disease
from dicomnode.phantom.head import head_volume
from dicomnode.phantom.nodules import NoduleShape, draw_nodule, plant, shape_nodule
from dicomnode.phantom.noise import add_noise, noise_tiles
from dicomnode.phantom.spec import (
    LABEL_FIRST_NODULE,
    LABEL_LEFT_LUNG,
    LABEL_RIGHT_LUNG,
    NoduleSpec,
    Phantom,
    PlantedNodule,
    ThoraxSpec,
)
from dicomnode.phantom.structures import bones, great_vessels, lung_trees, paint
from dicomnode.phantom.surroundings import add_surroundings
from dicomnode.phantom.tissue import SlicePlane, tissue_slice
from dicomnode.phantom.tubes import Grid

Floats = NDArray[np.float32]
_REGION_CENTER_Z = {"chest": -8.0, "abdomen": -265.0, "head": 0.0}


def thorax(spec: ThoraxSpec) -> Phantom:
    """The synthetic series of `spec`. 100 × 512 × 512 takes a few seconds; the same spec gives the same voxels."""
    grid = _grid(spec)
    rng = np.random.default_rng((spec.seed, 1))
    anatomy_rng = np.random.default_rng((spec.seed if spec.anatomy_seed is None else spec.anatomy_seed, 2))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    planted: tuple[PlantedNodule, ...] = ()
    if spec.region == "head":
        hu = head_volume(anatomy_rng, grid)
    else:
        anatomy = draw_anatomy(anatomy_rng, spec.contrast_hu)
        hu, left, right = _patient(anatomy_rng, anatomy, grid, spec)
        labels[left > 0.5] = LABEL_LEFT_LUNG
        labels[right > 0.5] = LABEL_RIGHT_LUNG
        add_disease(anatomy_rng, hu, labels, left + right, grid, spec.disease)
        labels[(labels > 0) & (hu > -120) & _thick(hu, spec.pixel_spacing_mm)] = (
            0  # hilar trunks, dense disease: not lung in the reference either
        )
        planted = _plant_nodules(rng, spec, grid, hu, labels, left + right)
        add_surroundings(anatomy_rng, hu, anatomy, grid, spec)
    strength = _noise_strength(grid)
    add_noise(rng, hu, spec.noise_hu, strength, noise_tiles(rng, spec.size, spec.pixel_spacing_mm, spec.kernel))
    np.clip(hu, -1024, 3071, out=hu)
    _pad_outside_circle(hu, spec)
    return Phantom(np.round(hu).astype(np.int16), _affine(grid), labels, planted, spec)


def small_thorax(seed: int = 0) -> Phantom:
    """A coarse phantom, 24 slices of 128 × 128, quick enough for every test; still a whole chest with nodules."""
    return thorax(ThoraxSpec(seed=seed, slices=24, size=128, slice_spacing_mm=9.0, pixel_spacing_mm=3.0))


def _grid(spec: ThoraxSpec) -> Grid:
    dx, dy, dz = spec.center_offset_mm
    middle = (spec.size - 1) / 2 * spec.pixel_spacing_mm
    z0 = _REGION_CENTER_Z[spec.region] + dz - (spec.slices - 1) / 2 * spec.slice_spacing_mm
    spacing = (spec.slice_spacing_mm, spec.pixel_spacing_mm, spec.pixel_spacing_mm)
    return Grid((z0, dy - middle, dx - middle), spacing, (spec.slices, spec.size, spec.size))


def _affine(grid: Grid) -> NDArray[np.float64]:
    affine = np.zeros((4, 4))
    for dimension in range(3):
        affine[2 - dimension, dimension] = grid.spacing[dimension]  # array (z, y, x) → LPS (x, y, z)
        affine[2 - dimension, 3] = grid.origin[dimension]
    affine[3, 3] = 1.0
    return affine


def _soft_mm(spec: ThoraxSpec) -> float:
    return max(spec.pixel_spacing_mm * (1.6 if spec.kernel == "soft" else 1.0), 1.1 if spec.kernel == "soft" else 0.6)


def _patient(rng: np.random.Generator, anatomy: Anatomy, grid: Grid, spec: ThoraxSpec) -> tuple[Floats, Floats, Floats]:
    """HU (z, y, x), and the filled part of each voxel for the left and the right lung."""
    hu, left, right = (np.empty(grid.shape, dtype=np.float32) for _ in range(3))
    soft = _soft_mm(spec)
    x, y = grid.axis(2)[None, :], grid.axis(1)[:, None]
    for index, z in enumerate(grid.axis(0)):
        section = tissue_slice(anatomy, SlicePlane(float(z), x, y, soft))
        hu[index], left[index], right[index] = section.hu, section.left, section.right
    for part in (*great_vessels(rng, anatomy), *bones(rng, anatomy)):
        paint(hu, grid, part, soft)
    lung = left + right
    points = {side: _random_points(rng, cover, grid, 1600) for side, cover in ((1, left), (-1, right))}
    for part in lung_trees(rng, anatomy, points, detail=min(1.0, (1.5 / spec.pixel_spacing_mm) ** 1.5)):
        paint(hu, grid, part, soft, lung)
    return hu, left, right


def _random_points(rng: np.random.Generator, cover: Floats, grid: Grid, count: int) -> NDArray[np.float64]:
    """Random world points (n, 3) LPS mm well inside a lung."""
    tries = rng.random((count * 12, 3)) * grid.shape
    index = tries.astype(np.int64)
    kept = tries[cover[index[:, 0], index[:, 1], index[:, 2]] > 0.9][:count]
    points: NDArray[np.float64] = np.asarray(grid.origin) + kept * np.asarray(grid.spacing)
    return points[:, ::-1]


def _thick(hu: Floats, pixel_mm: float) -> NDArray[np.bool_]:
    """Dense structures wider than about 6 mm in the plane, such as the vessels' trunks: the opening of the dense voxels."""
    iterations = max(1, round(2.6 / pixel_mm))
    return ndimage.binary_opening(hu > -120, structure=np.ones((1, 3, 3), bool), iterations=iterations)


def _plant_nodules(
    rng: np.random.Generator, spec: ThoraxSpec, grid: Grid, hu: Floats, labels: NDArray[np.uint8], lung: Floats
) -> tuple[PlantedNodule, ...]:
    asked = _draw_places(rng, grid, labels, spec.nodule_count) if spec.nodules is None else spec.nodules
    voxel_ml = float(np.prod(grid.spacing)) / 1000
    planted: list[PlantedNodule] = []
    for nodule in asked:
        shape = shape_nodule(rng, grid, nodule, _soft_mm(spec))
        if shape is None:
            continue
        cover = plant(hu, shape, lung if spec.nodules is None else None)
        inside = cover > 0.5
        volume_ml = float(cover[cover > 0.25].sum()) * voxel_ml
        if not inside.any():
            continue
        label = LABEL_FIRST_NODULE + len(planted)
        labels[shape.box][inside] = label
        planted.append(_truth(grid, shape, inside, volume_ml, label, nodule))
    return tuple(planted)


def _truth(
    grid: Grid, shape: NoduleShape, inside: NDArray[np.bool_], volume_ml: float, label: int, nodule: NoduleSpec
) -> PlantedNodule:
    index = np.argwhere(inside).mean(axis=0) + [part.start for part in shape.box]
    center = np.asarray(grid.origin) + index * np.asarray(grid.spacing)
    diameter = (6000 * volume_ml / np.pi) ** (1 / 3)
    return PlantedNodule((float(center[2]), float(center[1]), float(center[0])), float(diameter), volume_ml, label, nodule.kind)


def _draw_places(rng: np.random.Generator, grid: Grid, labels: NDArray[np.uint8], count: int | None) -> tuple[NoduleSpec, ...]:
    """Nodules anywhere in the lungs, kept apart from each other."""
    lung = np.flatnonzero(labels)
    if count is None:
        count = 0 if rng.random() < 0.3 else int(rng.integers(1, 6))
    if len(lung) == 0:
        return ()
    nodules: list[NoduleSpec] = []
    for _ in range(count):
        index = np.array(np.unravel_index(int(rng.choice(lung)), labels.shape))
        center = (np.asarray(grid.origin) + index * np.asarray(grid.spacing))[::-1]
        nodule = draw_nodule(rng, (float(center[0]), float(center[1]), float(center[2])))
        near = [np.linalg.norm(center - other.center_mm) < nodule.diameter_mm + other.diameter_mm for other in nodules]
        if not any(near):
            nodules.append(nodule)
    return tuple(nodules)


def _noise_strength(grid: Grid) -> Floats:
    z = grid.axis(0)
    return (1.0 + 0.9 * np.exp(-(((z - 115) / 30) ** 2))).astype(np.float32)


def _pad_outside_circle(hu: Floats, spec: ThoraxSpec) -> None:
    if spec.outside_circle_hu is None:
        return
    ramp = np.arange(spec.size) - (spec.size - 1) / 2
    outside = np.hypot(ramp[:, None], ramp[None, :]) > spec.size / 2
    hu[:, outside] = spec.outside_circle_hu
