"""What is no CT in Hounsfield units is refused."""

import numpy as np
import pytest

from dicomnode.domain.imaging import RefusalCode
from dicomnode.engines.intensities import refuse_intensities
from dicomnode.engines.sidecar import IntensityRules
from dicomnode.phantom import small_thorax

HU = small_thorax(3).hu


@pytest.mark.parametrize(
    ("what", "pixels"),
    [
        ("8-bit grey values", ((HU.astype(np.int32) + 1024) * 255 // 4096).astype(np.int16)),
        ("stored values without the intercept", (HU + 1024).astype(np.int16)),
        ("a slope that was lost", np.clip(HU.astype(np.int32) * 16, -32768, 32767).astype(np.int16)),
        ("nothing but padding", np.full_like(HU, -3024)),
        ("nothing but air", np.full_like(HU, -1000)),
        ("one constant", np.zeros_like(HU)),
        ("no numbers", np.full(HU.shape, np.nan, dtype=np.float32)),
    ],
)
def test_values_that_no_ct_has_are_refused(what: str, pixels: np.ndarray) -> None:
    refusal = refuse_intensities(pixels, IntensityRules())
    assert refusal is not None, what
    assert refusal.code is RefusalCode.OUT_OF_DISTRIBUTION
    assert refusal.remedy


def test_a_thorax_with_and_without_padding_passes() -> None:
    assert refuse_intensities(HU, IntensityRules()) is None
    padded = HU.copy()
    padded[:, :20] = -3024
    assert refuse_intensities(padded, IntensityRules()) is None
