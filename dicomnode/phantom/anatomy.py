"""One synthetic patient: the numbers that a seed draws, in mm, LPS, with the origin in the middle of the thorax.

Proportions are rough adult averages; they only have to vary as widely as patients do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A soft-edged organ: centre and semi-axes in mm, rotation about z in radians, HU inside."""

    center: tuple[float, float, float]
    axes: tuple[float, float, float]
    angle: float
    hu: float


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The drawn patient. Half widths are mm; `wobble` are phases and amplitudes that make outlines irregular."""

    body_half_width: float
    body_half_depth: float
    body_exponent: float
    fat_mm: float
    lung_half_width: float
    lung_half_depth: float
    lung_center_x: float
    lung_center_y: float
    apex_z: float
    base_z: float
    dome_z: tuple[float, float]  # left, right
    dome_height: float
    mediastinum: tuple[float, float, float]  # half width anterior, middle, posterior
    spine_y: float
    lung_hu: float
    lung_gradient: float  # HU per mm towards the back
    blood_hu: float
    heart: Ellipsoid
    organs: tuple[Ellipsoid, ...]
    gas: tuple[Ellipsoid, ...]
    wobble: NDArray[np.float32]


def draw_anatomy(rng: np.random.Generator, contrast_hu: float | None) -> Anatomy:
    """A patient from the generator's state; `contrast_hu` fixes the blood, None draws native or enhanced."""
    scale = rng.uniform(0.86, 1.12)
    lung_half_width = 70.0 * scale * rng.uniform(0.93, 1.07)
    lung_half_depth = 92.0 * scale * rng.uniform(0.88, 1.12)
    fat = float(rng.choice([6.0, 12.0, 22.0, 38.0], p=[0.25, 0.35, 0.25, 0.15])) * rng.uniform(0.8, 1.2)
    center_x = 62.0 * scale
    blood = contrast_hu
    if blood is None:
        blood = float(rng.uniform(35, 50) if rng.random() < 0.5 else rng.uniform(90, 400))
    dome_left = rng.uniform(-62, -28) * scale
    heart_x = rng.uniform(16, 32)
    heart = Ellipsoid(
        (heart_x, rng.uniform(-32, -18) * scale, rng.uniform(-45, -25) * scale),
        (rng.uniform(44, 58) * scale, rng.uniform(36, 46) * scale, rng.uniform(45, 58) * scale),
        rng.uniform(0.3, 0.8),
        40.0,
    )
    return Anatomy(
        body_half_width=center_x + lung_half_width + 24 + fat,
        body_half_depth=lung_half_depth + 22 + fat * 0.9,
        body_exponent=rng.uniform(2.1, 2.7),
        fat_mm=fat,
        lung_half_width=lung_half_width,
        lung_half_depth=lung_half_depth,
        lung_center_x=center_x,
        lung_center_y=rng.uniform(-4, 6),
        apex_z=rng.uniform(94, 116) * scale,
        base_z=-rng.uniform(100, 125) * scale,
        dome_z=(dome_left, dome_left + rng.uniform(0, 22)),
        dome_height=rng.uniform(45, 75) * scale,
        mediastinum=(rng.uniform(4, 14), rng.uniform(26, 38) * scale, rng.uniform(19, 24) * scale),
        spine_y=lung_half_depth * rng.uniform(0.66, 0.76),
        lung_hu=rng.uniform(-890, -800),
        lung_gradient=rng.uniform(0.0, 0.9),
        blood_hu=blood,
        heart=heart,
        organs=_draw_organs(rng, scale, blood),
        gas=_draw_gas(rng, scale),
        wobble=rng.uniform(-1, 1, (6, 8)).astype(np.float32),
    )


def _draw_organs(rng: np.random.Generator, scale: float, blood_hu: float) -> tuple[Ellipsoid, ...]:
    enhanced = 0.35 * max(0.0, blood_hu - 45)
    s = scale

    def jitter(width: float) -> float:
        return float(rng.uniform(-width, width))

    liver = Ellipsoid(
        (-58 * s + jitter(10), -8 + jitter(8), -120 * s), (82 * s, 78 * s, 88 * s), 0.2, rng.uniform(35, 65) + enhanced
    )
    liver_left = Ellipsoid((10 * s, -40 * s + jitter(8), -112 * s), (62 * s, 34 * s, 40 * s), 0.1, liver.hu)
    spleen = Ellipsoid((88 * s, 38 * s, -118 * s + jitter(10)), (28 * s, 44 * s, 50 * s), -0.4, 48 + enhanced)
    stomach = Ellipsoid((52 * s, -28 * s + jitter(8), -112 * s), (42 * s, 38 * s, 48 * s), 0.3, rng.uniform(0, 40))
    kidneys = tuple(
        Ellipsoid((side * 56 * s, 48 * s, -205 * s + jitter(12)), (27 * s, 25 * s, 52 * s), 0.3 * side, 32 + enhanced * 1.4)
        for side in (-1, 1)
    )
    bowel = tuple(
        Ellipsoid(
            (jitter(95) * s, -25 * s + jitter(45), rng.uniform(-330, -190)),
            (rng.uniform(14, 30), rng.uniform(14, 26), rng.uniform(14, 34)),
            jitter(1.5),
            rng.uniform(0, 60),
        )
        for _ in range(34)
    )
    return (liver, liver_left, spleen, stomach, *kidneys, *bowel)


def _draw_gas(rng: np.random.Generator, scale: float) -> tuple[Ellipsoid, ...]:
    """Gas below the diaphragm: stomach bubble, colon flexures, bowel. Air that is not lung."""
    pockets = []
    if rng.random() < 0.75:
        center = (50 * scale, -48 * scale, rng.uniform(-118, -90) * scale)
        pockets.append(Ellipsoid(center, (rng.uniform(12, 34), rng.uniform(8, 22), rng.uniform(12, 32)), 0.2, -990.0))
    for _ in range(int(rng.integers(4, 26))):
        center = (rng.uniform(-105, 105) * scale, rng.uniform(-75, 20), rng.uniform(-330, -165))
        axes = (rng.uniform(6, 30), rng.uniform(5, 20), rng.uniform(8, 40))
        pockets.append(Ellipsoid(center, axes, rng.uniform(-1.5, 1.5), -980.0))
    if rng.random() < 0.5:  # colon under the diaphragm, beside the lung base
        side = 1 if rng.random() < 0.7 else -1
        center = (side * rng.uniform(60, 100) * scale, rng.uniform(-60, 0), rng.uniform(-150, -115) * scale)
        pockets.append(Ellipsoid(center, (rng.uniform(10, 26), rng.uniform(10, 26), rng.uniform(12, 30)), 0.4, -985.0))
    return tuple(pockets)
