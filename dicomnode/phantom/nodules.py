"""Nodules: drawing them, and planting them into any CT volume, synthetic or real."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.phantom.spec import NoduleKind, NoduleSpec
from dicomnode.phantom.tubes import Grid, capsule_cover

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class NoduleShape:
    """A nodule on a grid: the box it fills, the filled part of every voxel there (0-1), the HU it has there."""

    box: tuple[slice, slice, slice]
    cover: Floats
    hu: Floats


def draw_nodule(rng: np.random.Generator, center_mm: tuple[float, float, float], largest_mm: float = 35.0) -> NoduleSpec:
    """A nodule of random size (6 mm up, small ones more often) and kind at a given place."""
    kinds: list[NoduleKind] = ["solid", "spiculated", "part_solid", "ground_glass"]
    kind = kinds[int(rng.choice(4, p=[0.5, 0.22, 0.16, 0.12]))]
    smallest = 6.0 if kind in ("solid", "spiculated") else 8.0
    diameter = smallest * (largest_mm / smallest) ** float(rng.beta(1.0, 1.5))
    hu = rng.uniform(-620, -380) if kind == "ground_glass" else rng.uniform(-20, 110)
    if kind == "solid" and rng.random() < 0.06:
        hu = rng.uniform(200, 500)  # calcified
    return NoduleSpec(center_mm, float(diameter), float(hu), kind)


def shape_nodule(rng: np.random.Generator, grid: Grid, nodule: NoduleSpec, soft_mm: float) -> NoduleShape | None:
    """The nodule's voxels: an irregular ellipsoid of the asked volume; None where it misses the grid."""
    radius = nodule.diameter_mm / 2
    center = np.array(nodule.center_mm)
    stretch = np.exp(rng.normal(0, 0.13, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    reach = radius * 1.75 + 3 + soft_mm
    box = grid.box((center - reach)[::-1], (center + reach)[::-1])
    if box is None:
        return None
    z, y, x = (grid.axis(dimension)[part] for dimension, part in enumerate(box))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    dx, dy, dz = x - center[0], (y - center[1])[:, None], (z - center[2])[:, None, None]
    u, v, w = ((turn[i, 0] * dx + turn[i, 1] * dy + turn[i, 2] * dz) / (radius * stretch[i]) for i in range(3))
    distance = np.sqrt(u * u + v * v + w * w) + 1e-6
    lobes = _lobes(rng, u / distance, v / distance, w / distance)
    soft = max(soft_mm, 0.45 * grid.spacing[0]) * (1.8 if nodule.kind == "ground_glass" else 1.0)
    depth = (1.0 + lobes - distance) * radius
    cover = np.clip(depth / soft + 0.5, 0, 1).astype(np.float32)
    if nodule.kind == "spiculated":
        _add_spicules(rng, grid, nodule, box, cover)
    return NoduleShape(box, cover, _inside(rng, nodule, depth.astype(np.float32), u, v, w))


def _lobes(rng: np.random.Generator, u: Floats, v: Floats, w: Floats) -> Floats:
    result = np.zeros_like(u)
    for frequency, strength in ((2.0, 0.09), (3.5, 0.07), (6.0, 0.04)):
        a, b, c, phase = rng.normal(size=4)
        result += strength * np.sin(frequency * (a * u + b * v + c * w) + 3 * phase)
    return result


def _add_spicules(
    rng: np.random.Generator, grid: Grid, nodule: NoduleSpec, box: tuple[slice, slice, slice], cover: Floats
) -> None:
    center, radius = np.array(nodule.center_mm, np.float32), nodule.diameter_mm / 2
    for _ in range(int(rng.integers(6, 18))):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        tip = center + (direction * radius * rng.uniform(1.2, 1.7)).astype(np.float32)
        spike = capsule_cover(grid, center, tip.astype(np.float32), rng.uniform(0.4, 0.9), 0.8)
        if spike is None:
            continue
        place, strength = spike
        local = tuple(slice(max(p.start, b.start), min(p.stop, b.stop)) for p, b in zip(place, box, strict=True))
        if any(part.start >= part.stop for part in local):
            continue
        mine = tuple(slice(part.start - b.start, part.stop - b.start) for part, b in zip(local, box, strict=True))
        theirs = tuple(slice(part.start - p.start, part.stop - p.start) for part, p in zip(local, place, strict=True))
        cover[mine] = np.maximum(cover[mine], 0.75 * strength[theirs])


def _inside(rng: np.random.Generator, nodule: NoduleSpec, depth: Floats, u: Floats, v: Floats, w: Floats) -> Floats:
    hu = np.full(depth.shape, nodule.hu, dtype=np.float32)
    if nodule.kind == "part_solid":
        halo = rng.uniform(-640, -420)
        core = np.clip((depth - nodule.diameter_mm * rng.uniform(0.12, 0.25)) / 2.0, 0, 1)
        hu = (halo + core * (nodule.hu - halo)).astype(np.float32)
    texture = 25.0 * np.sin(5 * u + 3 * float(rng.normal())) * np.sin(5 * v - 2 * w)
    if nodule.kind != "ground_glass" and nodule.diameter_mm > 15 and rng.random() < 0.2:  # cavity
        hole = np.clip((depth - nodule.diameter_mm * 0.27) / 1.5, 0, 1)
        hu = hu + hole * (-900 - hu)
    return np.asarray(hu + texture, dtype=np.float32)


def plant(hu: Floats, shape: NoduleShape, allowed: Floats | None = None) -> Floats:
    """Put a nodule into `hu` (z, y, x) in place; gives the cover that was used.

    Denser tissue than the nodule stays (a vessel runs on through ground glass). `allowed` (0-1, like `hu`) keeps it in lung.
    """
    cover = shape.cover if allowed is None else shape.cover * allowed[shape.box]
    region = hu[shape.box]
    region += cover * (np.maximum(shape.hu, np.minimum(region, 150)) - region) * (region < 150)
    return cover
