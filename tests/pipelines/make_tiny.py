"""Writes tests/pipelines/tiny/models/model.safetensors: three 9³ filters (background, lung, lesion) chosen by hand.

In the scaled image (0 = −1000 HU, 1 = 100 HU, air outside the body set to soft tissue) a lung voxel is dark; a lesion voxel is
bright where its surroundings of 27 mm are dark. Both are linear, so one convolution says them.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WEIGHTS = Path(__file__).parent / "tiny" / "models" / "model.safetensors"
SIZE = 9


def main() -> None:
    here = _ball(1.0)
    around = _ball(4.5)
    kernels = np.zeros((3, 1, SIZE, SIZE, SIZE), dtype=np.float32)
    bias = np.zeros(3, dtype=np.float32)
    kernels[1, 0] = -20 * here
    bias[1] = 20 * 0.5  # lung where the mean is below 0.5, −450 HU
    kernels[2, 0] = 20 * (here - around)
    bias[2] = -20 * 0.3  # lesion where the voxel is 330 HU brighter than what surrounds it
    save_file({"weight": kernels, "bias": bias}, WEIGHTS)


def _ball(radius: float) -> np.ndarray:
    z, y, x = np.indices((SIZE,) * 3) - SIZE // 2
    inside = (z**2 + y**2 + x**2 <= radius**2).astype(np.float32)
    return inside / inside.sum()


if __name__ == "__main__":
    main()
