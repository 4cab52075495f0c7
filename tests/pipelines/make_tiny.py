"""Writes tests/pipelines/tiny/models/model.safetensors: three 7³ filters (background, lung, lesion) chosen by hand.

In the scaled image (1 = −1000 HU, 0 = 100 HU, air outside the body and padding 0 like soft tissue) a lung voxel is bright; a
lesion voxel is dark where its surroundings of 28 mm are bright. Both are linear, so one convolution says them.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WEIGHTS = Path(__file__).parent / "tiny" / "models" / "model.safetensors"
SIZE = 7


def main() -> None:
    here = _ball(1.0)
    around = _ball(3.5)
    kernels = np.zeros((3, 1, SIZE, SIZE, SIZE), dtype=np.float32)
    bias = np.zeros(3, dtype=np.float32)
    kernels[1, 0] = 20 * here
    bias[1] = -20 * 0.5  # lung where the mean is above 0.5, below −450 HU
    kernels[2, 0] = 20 * (around - here)
    bias[2] = -20 * 0.3  # lesion where the voxel is 330 HU brighter than what surrounds it
    save_file({"weight": kernels, "bias": bias}, WEIGHTS)


def _ball(radius: float) -> np.ndarray:
    z, y, x = np.indices((SIZE,) * 3) - SIZE // 2
    inside = (z**2 + y**2 + x**2 <= radius**2).astype(np.float32)
    return inside / inside.sum()


if __name__ == "__main__":
    main()
