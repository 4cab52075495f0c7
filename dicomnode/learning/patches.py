"""Patches for training: drawn from cached cases, degraded as scanners and readers' settings degrade real ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional
from torch.utils.data import Dataset

from dicomnode.learning.cache import list_cases, load_case, missed_lesions
from dicomnode.learning.cases import AIR_HU, TRUTH_IGNORE, TRUTH_LESION, TRUTH_LUNG, TRUTH_OTHER, TRUTH_OUTSIDE, Case

LOW_HU, HIGH_HU = -1024.0, 600.0  # the range that inference.json scales to 0-1
_FULL_WEIGHT_VOXELS = 1000  # a lesion of 16 mm; smaller ones count more by voxel
_MAX_WEIGHT = 6.0
_MISSED_SHARE = 0.3  # of the patches, where a network's misses were noted: one lesion in six, but what is still to be learned

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Pool:
    """A folder's cases, and those of its lesions that a network missed."""

    folder: Path
    names: tuple[str, ...]
    missed: tuple[tuple[str, Floats], ...]

    @classmethod
    def of(cls, folder: Path, held_out: tuple[str, ...]) -> "_Pool":
        names = tuple(name for name in list_cases(folder) if not name.startswith(held_out))
        return cls(
            folder, names, tuple((name, place) for name, place in missed_lesions(folder) if not name.startswith(held_out))
        )

    def draw(self, rng: np.random.Generator) -> tuple[str, Floats | None]:
        """A case, and the missed lesion to look at or None."""
        if self.missed and rng.random() < _MISSED_SHARE:
            return self.missed[int(rng.integers(len(self.missed)))]
        return self.names[int(rng.integers(len(self.names)))], None


class PatchDataset(Dataset[dict[str, torch.Tensor]]):
    """`length` random patches, the same for the same seed, whatever the number of loader processes.

    folders: case folders with the share of patches each gives. Cases whose name starts with one of `held_out` are never drawn.
    Gives `image` float32 (1, x, y, z) scaled to 0-1 and `label` int64 (1, x, y, z): 0 other, 1 lung, 2 lesion, -1 ignored.
    """

    def __init__(
        self,
        folders: Sequence[str],
        shares: Sequence[float],
        patch: Sequence[int],
        length: int,
        seed: int = 0,
        held_out: Sequence[str] = (),
    ) -> None:
        self.pools: list[_Pool] = []
        kept: list[float] = []
        for folder, share in zip(map(Path, folders), shares, strict=True):
            pool = _Pool.of(folder, tuple(held_out))
            if pool.names and share > 0:
                self.pools.append(pool)
                kept.append(share)
        if not kept:
            raise ValueError(f"no training cases in {', '.join(folders)}")
        self.shares = np.array(kept) / np.sum(kept)
        self.patch, self.length, self.seed = tuple(patch), length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        pool = self.pools[int(rng.choice(len(self.pools), p=self.shares))]
        name, place = pool.draw(rng)
        image, truth = draw_patch(rng, load_case(pool.folder, name), self.patch, place)
        image = degrade(rng, image)
        label = np.stack([np.where(truth == TRUTH_OUTSIDE, TRUTH_OTHER, truth), lesion_weights(truth)])
        scaled = np.clip((image - LOW_HU) / (HIGH_HU - LOW_HU), 0, 1)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(scaled, np.float32))[None],
            "label": torch.from_numpy(label),
        }


def lesion_weights(truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What each voxel counts in the loss: 1, 0 where ignored, more in small lesions, so that one of 6 mm is no rounding error
    beside one of 30 mm.
    """
    weights = np.where(truth == TRUTH_IGNORE, 0, 1).astype(np.uint8)
    lesions, count = ndimage.label(truth == TRUTH_LESION)
    if count:
        sizes = np.bincount(lesions.ravel(), minlength=count + 1)
        by_lesion = np.sqrt(_FULL_WEIGHT_VOXELS / np.maximum(sizes, 1)).clip(1, _MAX_WEIGHT).round()
        by_lesion[0] = 1
        weights = np.where(lesions > 0, by_lesion[lesions], weights).astype(np.uint8)
    return weights


def draw_patch(
    rng: np.random.Generator, case: Case, patch: tuple[int, ...], place: Floats | None = None
) -> tuple[Floats, NDArray[np.uint8]]:
    """A patch of image (HU) and truth around `place`, else a lesion, a trap, lung or anywhere; flipped, at times magnified."""
    size = np.array(patch)
    zoom = rng.uniform(0.8, 1.25) if rng.random() < 0.35 else 1.0
    source = np.round(size / zoom).astype(int)
    corner = (_center(rng, case, source) if place is None else _near(rng, case, place, source)) - source // 2
    image, truth = _cut(case, corner, source)
    if rng.random() < 0.85:  # the engine masks the body before the network; a net that also stands a missed table is better
        image[truth == TRUTH_OUTSIDE] = AIR_HU
    if zoom != 1.0:
        image = functional.interpolate(torch.from_numpy(image)[None, None], size=patch, mode="trilinear").numpy()[0, 0]
        truth = functional.interpolate(torch.from_numpy(truth)[None, None], size=patch, mode="nearest").numpy()[0, 0]
    for axis in range(3):
        if rng.random() < 0.5:
            image, truth = np.flip(image, axis), np.flip(truth, axis)
    return np.ascontiguousarray(image), np.ascontiguousarray(truth)


def _center(rng: np.random.Generator, case: Case, size: NDArray[np.int64]) -> NDArray[np.int64]:
    shape = np.array(case.image.shape)
    choice = rng.random()
    places = case.traps if choice < 0.3 and len(case.traps) else case.lesions
    if choice < 0.65 and len(places):
        return _near(rng, case, places[rng.integers(len(places))], size)
    point = rng.integers(0, shape)
    for _ in range(40 if choice < 0.9 else 0):
        if case.truth[tuple(point)] == TRUTH_LUNG:
            break
        point = rng.integers(0, shape)
    inner = np.minimum(size // 2, shape // 2)
    if rng.random() < 0.8:
        point = np.clip(point, inner, np.maximum(shape - inner, inner))
    return np.asarray(point, dtype=np.int64)


def _near(rng: np.random.Generator, case: Case, place: Floats, size: NDArray[np.int64]) -> NDArray[np.int64]:
    center = np.round(place + rng.uniform(-0.35, 0.35, 3) * size)
    return np.asarray(np.clip(center, 0, np.array(case.image.shape) - 1), dtype=np.int64)


def _cut(case: Case, corner: NDArray[np.int64], size: NDArray[np.int64]) -> tuple[Floats, NDArray[np.uint8]]:
    image = np.full(tuple(size), AIR_HU, dtype=np.float32)
    truth = np.full(tuple(size), TRUTH_OUTSIDE, dtype=np.uint8)
    start, stop = np.maximum(corner, 0), np.minimum(corner + size, case.image.shape)
    if np.all(stop > start):
        from_case = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        to_patch = tuple(slice(a - c, b - c) for a, b, c in zip(start, stop, corner, strict=True))
        image[to_patch], truth[to_patch] = case.image[from_case], case.truth[from_case]
    return image, truth


def degrade(rng: np.random.Generator, image: Floats) -> Floats:
    """Another kernel, slice thickness, dose and calibration."""
    if rng.random() < 0.25:
        sigma = rng.uniform(0.35, 0.9)
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0), truncate=2.5)
    elif rng.random() < 0.15:
        soft = ndimage.gaussian_filter(image, (0.8, 0.8, 0), truncate=2.5)
        image = image + np.float32(rng.uniform(0.2, 0.8)) * (image - soft)
    if rng.random() < 0.2:
        image = ndimage.gaussian_filter1d(image, rng.uniform(0.4, 1.6), axis=2, truncate=2.5)
    if rng.random() < 0.45:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        if rng.random() < 0.5:
            noise = ndimage.uniform_filter(noise, 2) * np.float32(2.4)
        image = image + noise * np.float32(np.exp(rng.uniform(np.log(4), np.log(45))))
    if rng.random() < 0.6:
        image = image * np.float32(rng.uniform(0.96, 1.04)) + np.float32(rng.uniform(-25, 25))
    return image
