"""Body, lungs, mediastinum and organs of one axial slice, as soft-edged fields.

A field is an approximate signed distance in mm, positive inside; `cover` turns it into the part of a pixel that is filled.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.phantom.anatomy import Anatomy, Ellipsoid

Floats = NDArray[np.float32]
AIR_HU, FAT_HU, MUSCLE_HU = -1000.0, -100.0, 50.0


@dataclass(frozen=True, slots=True, eq=False)
class SlicePlane:
    """The plane of one slice: z in mm, `x` (1, nx) and `y` (ny, 1) in mm, edge softness in mm."""

    z: float
    x: Floats
    y: Floats
    soft_mm: float

    def cover(self, distance: Floats) -> Floats:
        """The filled part of each pixel, 0-1."""
        result = distance * np.float32(1.0 / self.soft_mm)
        result += np.float32(0.5)
        np.clip(result, 0.0, 1.0, out=result)
        return result


def lay(hu: Floats, cover: Floats, value: float | Floats) -> None:
    """Paint `value` over `hu` in place where `cover` says so."""
    hu += cover * (value - hu)


def ellipse_distance(plane: SlicePlane, center: tuple[float, float], half: tuple[float, float], exponent: float) -> Floats:
    """Signed distance (mm) to a superellipse in the plane."""
    u = np.abs((plane.x - center[0]) / half[0]) ** exponent
    v = np.abs((plane.y - center[1]) / half[1]) ** exponent
    radius = (u + v) ** (1.0 / exponent)
    distance: Floats = ((1.0 - radius) * min(half)).astype(np.float32)
    return distance


def paint_ellipsoid(hu: Floats, plane: SlicePlane, organ: Ellipsoid) -> None:
    """Paint one organ's section, if the plane cuts it."""
    height = (plane.z - organ.center[2]) / organ.axes[2]
    if abs(height) >= 1:
        return
    distance, columns, rows = ellipsoid_distance(plane, organ)
    if distance.size:
        lay(hu[rows, columns], plane.cover(distance), organ.hu)


def ellipsoid_distance(plane: SlicePlane, organ: Ellipsoid) -> tuple[Floats, slice, slice]:
    """Signed distance (mm) to an ellipsoid's section in its bounding box, with the box's columns and rows."""
    height = (plane.z - organ.center[2]) / organ.axes[2]
    reach = max(organ.axes[:2]) + 4
    x, y = plane.x[0], plane.y[:, 0]
    columns = slice(*np.searchsorted(x, (organ.center[0] - reach, organ.center[0] + reach)))
    rows = slice(*np.searchsorted(y, (organ.center[1] - reach, organ.center[1] + reach)))
    dx, dy = plane.x[:, columns] - organ.center[0], plane.y[rows] - organ.center[1]
    cos, sin = np.float32(np.cos(organ.angle)), np.float32(np.sin(organ.angle))
    u = (dx * cos + dy * sin) / organ.axes[0]
    v = (dy * cos - dx * sin) / organ.axes[1]
    distance = (1.0 - np.sqrt(u * u + v * v + np.float32(height * height))) * min(organ.axes)
    return distance.astype(np.float32), columns, rows


def body_distance(anatomy: Anatomy, plane: SlicePlane) -> Floats:
    """The trunk's outline: chest, widening to the shoulders, narrowing to the neck, waist below."""
    width, depth = anatomy.body_half_width, anatomy.body_half_depth
    top = anatomy.apex_z
    if plane.z > top - 45:
        rise = (plane.z - top + 45) / 45
        width *= 1 + 0.16 * min(rise, 1.0)
        depth *= 1 - 0.22 * min(rise, 1.0)
    if plane.z > top + 18:
        neck = min((plane.z - top - 18) / 45, 1.0)
        width += neck * (64 + anatomy.fat_mm - width)
        depth += neck * (68 + anatomy.fat_mm - depth)
    return ellipse_distance(plane, (float(anatomy.wobble[0, 2] * 6), 0.0), (width, depth), anatomy.body_exponent)


def lung_distances(anatomy: Anatomy, plane: SlicePlane, grow_mm: float = 0.0) -> tuple[Floats, Floats]:
    """Signed distance (mm) to the pleura of the left and of the right lung; `grow_mm` gives the chest wall around them."""
    taper = _taper(anatomy, plane.z, grow_mm)
    if taper <= 0:
        outside = np.full(np.broadcast_shapes(plane.x.shape, plane.y.shape), -50.0, dtype=np.float32)
        return outside, outside
    return _lung_distance(anatomy, plane, 1, taper, grow_mm), _lung_distance(anatomy, plane, -1, taper, grow_mm)


def _taper(anatomy: Anatomy, z: float, grow_mm: float) -> float:
    """How wide the thorax is at z, 1 at its widest, 0 above the apex."""
    top, middle = anatomy.apex_z + grow_mm, -30.0
    if z <= middle:
        return 1.0 + 0.0004 * (middle - z)
    return float(np.clip((top - z) / (top - middle), 0.0, 1.0) ** 0.42)


def _lung_distance(anatomy: Anatomy, plane: SlicePlane, side: int, taper: float, grow_mm: float) -> Floats:
    phase = anatomy.wobble[1 if side > 0 else 2]
    bend_x = phase[0] * 4 * np.sin(plane.y / 28 + phase[1] * 3 + plane.z / 60)
    bend_y = phase[2] * 4 * np.sin(plane.x / 33 + phase[3] * 3 - plane.z / 50)
    center_x = side * (anatomy.lung_center_x * (0.62 + 0.38 * taper))
    half = (
        anatomy.lung_half_width * taper + grow_mm,
        anatomy.lung_half_depth * (0.25 + 0.75 * taper) * min(1, taper * 2.2) + grow_mm,
    )
    u = (plane.x + bend_x - center_x) / half[0]
    v = (plane.y + bend_y - anatomy.lung_center_y - 12 * (1 - taper)) / half[1]
    squared = u * u + v * v
    # A superellipse of about exponent 2.25 without powers, which cost most of the time here: squarer where |u| = |v|.
    wall = (1.0 - np.sqrt(squared - np.float32(0.16) * np.minimum(u * u, v * v))) * min(half)
    if grow_mm > 0:
        return np.asarray(wall, dtype=np.float32)
    distance = np.minimum(wall, side * plane.x - _medial_border(anatomy, plane, side))
    dome = anatomy.dome_z[0 if side > 0 else 1]
    drop = anatomy.dome_height * squared + 10 * v
    diaphragm = (plane.z - dome + drop) * np.float32(0.6)
    floor = plane.z - anatomy.base_z
    return np.asarray(np.minimum(np.minimum(distance, diaphragm), floor), dtype=np.float32)


def _medial_border(anatomy: Anatomy, plane: SlicePlane, side: int) -> Floats:
    """How far from the midline the mediastinum reaches at every y (mm)."""
    front, middle, back = anatomy.mediastinum
    y = plane.y / anatomy.lung_half_depth
    width = (
        front + (middle - front) * np.exp(-(((y + 0.05) / 0.42) ** 2)) + (back - front) * np.exp(-(((y - 0.75) / 0.33) ** 2))
    )
    phase = anatomy.wobble[3 if side > 0 else 4]
    width = width + 3.5 * phase[0] * np.sin(plane.y / 14 + plane.z / 24 + 3 * phase[1])
    hilum = 13 * np.exp(-((plane.z - 8) ** 2) / 700.0 - ((plane.y - 4) / 18) ** 2)
    return np.asarray(width + hilum + 2 * phase[2] * np.sin(plane.y / 7 - plane.z / 11), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class TissueSlice:
    """One slice before vessels and bones: HU, and how far inside the left and right lung each pixel is (0-1)."""

    hu: Floats
    left: Floats
    right: Floats
    body: Floats


def tissue_slice(anatomy: Anatomy, plane: SlicePlane) -> TissueSlice:
    """Fat, muscle, organs, mediastinum, heart and lungs of one slice; air outside the body."""
    shape = np.broadcast_shapes(plane.x.shape, plane.y.shape)
    hu = np.full(shape, AIR_HU, dtype=np.float32)
    outline = body_distance(anatomy, plane)
    body = plane.cover(outline)
    lay(hu, body, FAT_HU)
    lay(hu, plane.cover(np.minimum(outline, 2.0 - outline)), 10.0)  # skin
    wall_left, wall_right = lung_distances(anatomy, plane, grow_mm=17.0)
    trunk = np.minimum(np.maximum(wall_left, wall_right), outline - 3)
    middle = np.minimum(anatomy.body_half_depth - 16 - np.abs(plane.y), 75 - np.abs(plane.x))
    trunk = np.maximum(trunk, np.minimum(middle, outline - 4)) if plane.z < anatomy.apex_z else np.minimum(outline - 8, 90)
    lay(hu, plane.cover(trunk), MUSCLE_HU)
    streaks = np.sin(plane.x / 9 + plane.z / 20 + anatomy.wobble[5, 0]) * np.sin(plane.y / 8 - plane.z / 30)
    lay(hu, plane.cover(np.minimum((streaks - 0.62).astype(np.float32) * 12, trunk - 2)), FAT_HU * 0.8)
    core = np.minimum(np.maximum(wall_left, wall_right) - 15, outline - 12)
    if plane.z < anatomy.dome_z[1] + 5:
        inside = plane.cover(core)
        lay(hu, inside, FAT_HU * 0.9)
        for organ in anatomy.organs:
            paint_ellipsoid(hu, plane, organ)
        if plane.z < anatomy.dome_z[1] - 20:
            for pocket in anatomy.gas:
                paint_ellipsoid(hu, plane, pocket)
    else:
        clefts = np.sin(plane.x / 11 + anatomy.wobble[5, 1] * 3 + plane.z / 40) * np.sin(plane.y / 13 + plane.z / 17)
        lay(hu, plane.cover(np.minimum((clefts - 0.1).astype(np.float32) * 14, core - 2)), FAT_HU)
    return _with_lungs(anatomy, plane, hu, body)


def _with_lungs(anatomy: Anatomy, plane: SlicePlane, hu: Floats, body: Floats) -> TissueSlice:
    left, right = lung_distances(anatomy, plane)
    heart = anatomy.heart
    if abs(plane.z - heart.center[2]) < heart.axes[2]:
        distance, columns, rows = ellipsoid_distance(plane, heart)
        for lung in (left, right):
            np.minimum(lung[rows, columns], 3 - distance, out=lung[rows, columns])
        lay(hu[rows, columns], plane.cover(distance + 3), FAT_HU)
        lay(hu[rows, columns], plane.cover(distance), 30 + 0.45 * anatomy.blood_hu)
        lay(hu[rows, columns], plane.cover(distance - 13), anatomy.blood_hu)
    covers = []
    for lung in (left, right):
        cover = plane.cover(lung)
        covers.append(np.minimum(cover, body, out=cover))
        lay(hu, cover, anatomy.lung_hu + np.float32(anatomy.lung_gradient) * plane.y)
    return TissueSlice(hu, covers[0], covers[1], body)
