"""Bones, great vessels, airways and the trees of the lungs of one patient, as painted tubes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.phantom.anatomy import Anatomy
from dicomnode.phantom.tubes import Capsules, Grid, capsule_cover, chain, grow_tree

Floats = NDArray[np.float32]
BONE_HU, LUMEN_HU = 420.0, -985.0


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """Capsules with the HU they carry. `only_in_lung` keeps thin branches out of the chest wall."""

    capsules: Capsules
    hu: float
    only_in_lung: bool = False


def paint(hu: Floats, grid: Grid, painted: Painted, soft_mm: float, lung: Floats | None = None) -> None:
    """Paint the capsules over `hu` (z, y, x) in place."""
    capsules = painted.capsules
    for start, end, radius in zip(capsules.start, capsules.end, capsules.radius, strict=True):
        found = capsule_cover(grid, start, end, float(radius), soft_mm)
        if found is None:
            continue
        box, cover = found
        if painted.only_in_lung and lung is not None:
            cover = cover * lung[box]
        region = hu[box]
        region += cover * (painted.hu - region)


def bones(rng: np.random.Generator, anatomy: Anatomy) -> list[Painted]:
    """Ribs with marrow, spine with processes, sternum, clavicles, scapulae."""
    painted: list[Painted] = []
    marrow = rng.uniform(140, 260)
    slope = rng.uniform(28, 52)
    for side in (-1, 1):
        for number in range(11):
            points = _rib(anatomy, side, anatomy.apex_z + 6 - number * rng.uniform(20, 23), slope)
            if points is None:
                continue
            painted.append(Painted(chain(points, rng.uniform(4.6, 6.2)), BONE_HU + 120))
            painted.append(Painted(chain(points, 2.8), marrow))
        top = anatomy.apex_z
        collar = np.array(
            [[side * 18, -anatomy.lung_half_depth * 0.72, top - 18], [side * 90, -30, top + 14], [side * 150, 10, top + 20]]
        )
        painted.append(Painted(chain(collar, 6.0), BONE_HU))
        blade = [[side * (70 + 8 * i), anatomy.body_half_depth - 26 - 5 * i, top - 15 - 12 * i] for i in range(8)]
        painted.append(Painted(chain(np.array(blade), 4.5), BONE_HU))
    front = -anatomy.lung_half_depth - 6
    sternum = np.array([[0, front + 22, anatomy.apex_z - 30], [0, front + 8, 30], [0, front + 4, -55]])
    painted.append(Painted(chain(sternum, 8.5), marrow + 60))
    painted.extend(_spine(anatomy, marrow))
    return painted


def _rib(anatomy: Anatomy, side: int, z_back: float, slope: float) -> NDArray[np.float64] | None:
    angles = np.linspace(np.pi * 0.56, -np.pi * 0.40, 15)  # from the spine over the side to the front
    fraction = np.linspace(0, 1, len(angles))
    z = z_back - slope * fraction**1.15 * 1.6
    taper = np.clip((anatomy.apex_z + 12 - z) / (anatomy.apex_z + 42), 0.04, 1.05) ** 0.42
    if z_back > anatomy.apex_z + 10:
        return None
    center = anatomy.lung_center_x * (0.62 + 0.38 * taper)
    half_x = anatomy.lung_half_width * taper + 7
    half_y = anatomy.lung_half_depth * (0.25 + 0.75 * taper) * np.minimum(1, taper * 2.2) + 7
    cos, sin = np.cos(angles), np.sin(angles)
    x = side * (center + half_x * np.sign(cos) * np.abs(cos) ** 0.89)
    y = anatomy.lung_center_y + 12 * (1 - taper) + half_y * np.sign(sin) * np.abs(sin) ** 0.89
    return np.stack([x, y, z], axis=1)


def _spine(anatomy: Anatomy, marrow: float) -> list[Painted]:
    painted = []
    for level in range(-16, 9):
        z = level * 23.0 - 4
        y = anatomy.spine_y + 0.0009 * (z + 20) ** 2 * (1 if z < 120 else 0.6)
        body = np.array([[-5.0, y, z], [5.0, y, z]])
        painted.append(Painted(chain(body, 16.5), BONE_HU))
        painted.append(Painted(chain(body, 14.0), marrow))
        for side in (-1, 1):
            arch = np.array([[side * 10, y + 17, z - 2], [side * 8, y + 30, z - 4], [0, y + 36, z - 8]])
            painted.append(Painted(chain(arch, 4.2), BONE_HU))
            painted.append(Painted(chain(np.array([[side * 12, y + 22, z], [side * 34, y + 30, z + 2]]), 4.5), BONE_HU * 0.8))
        painted.append(Painted(chain(np.array([[0, y + 34, z - 6], [0, y + 48, z - 16]]), 3.2), BONE_HU * 0.8))
    cord = np.array([[0, anatomy.spine_y + 24, -380], [0, anatomy.spine_y + 24, 200]])
    painted.append(Painted(chain(cord, 7.0), 30.0))
    return painted


def great_vessels(rng: np.random.Generator, anatomy: Anatomy) -> list[Painted]:
    """Aorta, pulmonary trunk with its branches, caval veins, oesophagus, trachea and main bronchi."""
    blood, back = anatomy.blood_hu, anatomy.spine_y
    venous = blood * rng.uniform(0.6, 1.3) if blood > 60 else blood
    arch_z = 42 + rng.uniform(-8, 8)
    aorta_x, radius = rng.uniform(20, 27), rng.uniform(11, 16)
    arch = [
        [-6, -22, -20], [-14, -30, 10], [-13, -26, arch_z - 14], [-2, -16, arch_z], [12, 4, arch_z + 3],
        [aorta_x, 24, arch_z - 8],
        [aorta_x, back - 14, arch_z - 30], [aorta_x - 4, back - 14, -60], [8, back - 22, -140], [4, back - 26, -360],
    ]  # fmt: skip
    trunk = [[14, -34, -8], [17, -22, 14], [10, -8, 20]]
    cava_upper = [[-24, -12, 70], [-26, -12, 30], [-24, -12, -12]]
    cava_lower = [[-18, -4, -40], [-20, 6, -80], [-16, back - 30, -360]]
    carina = np.array([0.0, 8.0, 24 + rng.uniform(-8, 8)])
    gullet = [[2, 26, 150], [3, 24, 60], [4, back - 22, 0], [10, back - 26, -80]]
    tubes = [
        Painted(chain(np.array(gullet, float), 7.0), 35.0),
        Painted(chain(np.array(arch, float), radius), blood),
        Painted(chain(np.array(trunk, float), rng.uniform(11, 14)), venous),
        Painted(chain(np.array(cava_upper, float), 9.0), venous * (1.6 if blood > 150 else 1.0)),
        Painted(chain(np.array(cava_lower, float), 11.0), venous),
    ]
    for side in (-1, 1):
        branch = np.array([[10, -8, 20], [side * 22, 2, 16 + 4 * side], [side * 42, 10, 8]], float)
        tubes.append(Painted(chain(branch, rng.uniform(7.5, 10)), venous))
        neck = np.array([[side * 12, -8, arch_z + 8], [side * 22, -10, 105], [side * 26, -4, 170]], float)
        tubes.append(Painted(chain(neck, 5.0), blood))
    windpipe = np.array([[0, 2, 190], [0, 4, 80], carina], float)
    tubes += [Painted(chain(windpipe, 10.5), 40.0), Painted(chain(windpipe, 8.8), LUMEN_HU)]
    for side, drop in ((-1, 14), (1, 24)):
        bronchus = np.array([carina, [side * 20, 8, carina[2] - drop * 0.6], hilum(anatomy, side)])
        tubes += [Painted(chain(bronchus, 7.2), 35.0), Painted(chain(bronchus, 5.6), LUMEN_HU)]
    tubes.append(Painted(chain(np.array([carina + np.array([0, 0, 4]), carina]), 8.0), LUMEN_HU))
    return tubes


def hilum(anatomy: Anatomy, side: int) -> NDArray[np.float64]:
    """Where vessels and bronchi enter the lung of one side (+1 left, -1 right), LPS mm."""
    return np.array([side * (anatomy.mediastinum[1] + 14), 6.0, 8.0 + 3 * side])


def lung_trees(
    rng: np.random.Generator, anatomy: Anatomy, points: dict[int, NDArray[np.float64]], detail: float
) -> list[Painted]:
    """Arteries, veins and bronchi of both lungs; `points[side]`: random points (n, 3) in that lung; `detail` scales counts."""
    painted: list[Painted] = []
    for side, inside in points.items():
        if len(inside) < 20:
            continue
        root = hilum(anatomy, side)
        veins_root = root + np.array([-side * 4.0, -8.0, -26.0])
        vessel_hu = anatomy.blood_hu * 0.9 - 5
        for start, share in ((root, 0.5), (veins_root, 0.4)):
            count = min(int(1900 * detail * share), len(inside))
            tree = grow_tree(rng, start, rng.permutation(inside)[:count], rng.uniform(0.42, 0.62), rng.uniform(4.5, 7.0))
            painted.append(Painted(tree, vessel_hu, only_in_lung=True))
        airway = grow_tree(rng, root, rng.permutation(inside)[: int(45 * min(1.0, detail * 2))], 0.75, 4.2)
        wall = Capsules(airway.start, airway.end, airway.radius + rng.uniform(0.5, 1.1))
        painted.append(Painted(wall, -60.0, only_in_lung=True))
        painted.append(Painted(airway, -960.0))
    return painted
