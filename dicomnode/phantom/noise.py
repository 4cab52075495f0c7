"""Scanner noise: band-limited tiles, one per slice, stronger behind shoulders and in thick patients."""

import numpy as np
from numpy.typing import NDArray

from dicomnode.phantom.spec import Kernel

Floats = NDArray[np.float32]
_TILES = 8


def noise_tiles(rng: np.random.Generator, size: int, pixel_mm: float, kernel: Kernel) -> Floats:
    """(8, size, size) tiles of unit standard deviation whose spectrum is that of a soft or sharp reconstruction."""
    frequency = np.hypot(np.fft.fftfreq(size, pixel_mm)[:, None], np.fft.rfftfreq(size, pixel_mm)[None, :])
    cut = 0.32 if kernel == "soft" else 0.65  # line pairs per mm
    spectrum = frequency**0.6 * np.exp(-((frequency / cut) ** 2)) + 1e-4
    white = rng.standard_normal((_TILES, size, size), dtype=np.float32)
    tiles: Floats = np.fft.irfft2(np.fft.rfft2(white) * spectrum, s=(size, size)).astype(np.float32)
    tiles /= tiles.std()
    return tiles


def add_noise(rng: np.random.Generator, hu: Floats, sigma: float, strength: Floats, tiles: Floats) -> None:
    """Add noise to (z, y, x) in place. `strength` (z,): per-slice factor, e.g. more at the shoulders."""
    if sigma <= 0:
        return
    size = tiles.shape[1]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    profile = 0.75 + 0.6 * np.exp(-(ramp[None, :] ** 2 + ramp[:, None] ** 2) / 0.35)
    for z in range(len(hu)):
        tile = np.roll(tiles[rng.integers(len(tiles))], rng.integers(0, size, 2), axis=(0, 1))
        if rng.random() < 0.5:
            tile = tile[:, ::-1]
        hu[z] += tile * profile * np.float32(sigma * strength[z])
