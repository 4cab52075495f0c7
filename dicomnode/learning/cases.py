"""Training cases on the network's grid: phantoms drawn as widely as patients and scanners differ.

A case is an int16 image and a uint8 truth, both (x, y, z) with x to the left, y to the back, z to the head (LPS), as the
bundle's preprocessing gives them. The image is not yet masked by the body: truth says where the body ends.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dicomnode.engines.chest.body import body_mask
from dicomnode.phantom import ThoraxSpec, thorax
from dicomnode.phantom.spec import Disease

GRID_MM = (1.25, 1.25, 1.5)
AIR_HU = -1024
_THICK_SHARE = 0.3

TRUTH_OTHER, TRUTH_LUNG, TRUTH_LESION, TRUTH_OUTSIDE, TRUTH_IGNORE = 0, 1, 2, 3, 255


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One training volume. image: int16 HU (x, y, z); truth: uint8 (x, y, z), values TRUTH_*; lesions: (n, 3) voxel centres;
    traps: (n, 3) voxels that a network took for lesions; missed: (n, 3) centres of lesions that it did not see.
    """

    name: str
    image: NDArray[np.int16]
    truth: NDArray[np.uint8]
    lesions: NDArray[np.float32]
    traps: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    missed: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))


def varied_spec(seed: int, region: Literal["chest", "abdomen", "head"] | None = None) -> ThoraxSpec:
    """Another patient on another scanner for every seed: disease, dose, kernel, contrast, arms, field of view, slab."""
    rng = np.random.default_rng((seed, 77))
    if region is None:
        region = str(rng.choice(["chest", "abdomen", "head"], p=[0.88, 0.08, 0.04]))  # type: ignore[assignment]
    diseases: list[Disease] = ["none", "emphysema", "effusion", "fibrosis", "consolidation", "ground_glass"]
    spacing = float(rng.choice([1.5, 1.5, 2.5, 5.0, 8.0], p=[0.4, 0.2, 0.15, 0.17, 0.08]))
    extent = float(rng.choice([262.0, 190.0, 110.0], p=[0.55, 0.25, 0.2]))
    offset_z = 0.0 if extent > 250 else float(rng.uniform(-0.5, 0.5) * (300 - extent))
    spec = ThoraxSpec(
        seed=seed,
        slices=max(8, round(extent / spacing)),
        size=int(rng.choice([256, 288, 320])),
        slice_spacing_mm=spacing,
        pixel_spacing_mm=GRID_MM[0],
        nodule_count=int(rng.integers(0, 13)),
        region=region or "chest",
        noise_hu=float(np.exp(rng.uniform(np.log(6), np.log(75)))),
        kernel="sharp" if rng.random() < 0.4 else "soft",
        disease=diseases[int(rng.choice(6, p=[0.42, 0.15, 0.11, 0.12, 0.1, 0.1]))],
        center_offset_mm=(float(rng.normal(0, 8)), float(rng.normal(0, 8)), offset_z + float(rng.normal(0, 8))),
    )
    return _in_thick_slices(rng, spec, extent) if spec.region == "chest" and rng.random() < _THICK_SHARE else spec


def _in_thick_slices(rng: np.random.Generator, spec: ThoraxSpec, extent_mm: float) -> ThoraxSpec:
    """The patient once more, where networks err most: few slices, many nodules, vessels that show in one slice only."""
    spacing = float(rng.choice([2.5, 5.0, 8.0], p=[0.2, 0.6, 0.2]))
    return replace(
        spec,
        slice_spacing_mm=spacing,
        slices=max(8, round(extent_mm / spacing)),
        nodule_count=int(rng.integers(4, 17)),
        noise_hu=float(np.exp(rng.uniform(np.log(6), np.log(50)))),
    )


def phantom_case(seed: int, region: Literal["chest", "abdomen", "head"] | None = None) -> Case:
    """A phantom rendered at the network's in-plane spacing; thick slices are interpolated along z as the bundle does."""
    spec = varied_spec(seed, region)
    phantom = thorax(spec)
    image = phantom.hu.transpose(2, 1, 0)
    values = np.array([TRUTH_OTHER, TRUTH_LUNG, TRUTH_LUNG, TRUTH_LESION], np.uint8)
    truth = values[np.minimum(phantom.labels, 3)]
    outside = ~body_mask(phantom.hu, phantom.spacing_mm)
    truth[outside & (truth == TRUTH_OTHER)] = TRUTH_OUTSIDE
    truth = truth.transpose(2, 1, 0)
    if abs(spec.slice_spacing_mm - GRID_MM[2]) > 1e-3:
        image, truth = _resample_z(image, truth, spec.slice_spacing_mm / GRID_MM[2])
    origin = phantom.affine[:3, 3]
    spacing = np.array(GRID_MM)
    lesions = np.array([(np.array(nodule.center_mm) - origin) / spacing for nodule in phantom.nodules], np.float32).reshape(
        -1, 3
    )
    return Case(f"phantom-{seed}", np.ascontiguousarray(image), np.ascontiguousarray(truth), lesions)


def _resample_z(
    image: NDArray[np.int16], truth: NDArray[np.uint8], factor: float
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Linear (truth: nearest) along z; voxel 0 keeps its place."""
    depth = image.shape[2]
    at = np.arange(int((depth - 1) * factor) + 1) / factor
    below = np.minimum(np.floor(at).astype(int), depth - 1)
    above = np.minimum(below + 1, depth - 1)
    part = (at - below).astype(np.float32)
    mixed = image[:, :, below] * (1 - part) + image[:, :, above] * part
    return np.round(mixed).astype(np.int16), truth[:, :, np.round(at).astype(int).clip(0, depth - 1)]
