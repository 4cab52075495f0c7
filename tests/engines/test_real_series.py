"""Real CT: chests are taken, other regions are refused, whole path through imaging."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from dicomnode.domain.findings import Findings
from dicomnode.domain.imaging import Refusal, RefusalCode, Volume
from dicomnode.engines import Pipeline
from dicomnode.engines.chest.body import working_body
from dicomnode.engines.chest.region import aerated_mask, refuse_before
from dicomnode.engines.sidecar import RegionRules
from dicomnode.imaging import install_decoders, load, scan
from tests.engines.conftest import as_volume

# Lung volumes in ml and the share by which a threshold network may miss them: truth.json.
CHESTS = {"ct_chest_cmbcrc_01068": 4450, "ct_chest_lidc_0001": 2890, "ct_chest_lungpetctdx_a0002": 2530}


@pytest.fixture(scope="module", autouse=True)
def _decoders() -> None:
    install_decoders()


@cache
def _volume(folder: Path) -> Volume:
    (series,) = (s for s in scan([folder]).series if s.instances[0].sop_class_uid == "1.2.840.10008.5.1.4.1.1.2")
    volume = load(series)
    assert isinstance(volume, Volume), volume
    return volume


@pytest.mark.parametrize("name", CHESTS)
def test_a_real_chest_gives_lungs_on_both_sides(name: str, tiny: Pipeline, test_data: Path) -> None:
    volume = _volume(test_data / name)
    found = tiny.run(volume)
    assert isinstance(found, Findings), found
    lungs = found.label_maps[0]
    assert [segment.label for segment in lungs.segments] == ["Left lung", "Right lung"]
    assert sum(segment.volume_ml for segment in lungs.segments) == pytest.approx(CHESTS[name], rel=0.35)
    columns = [np.argwhere(lungs.labels[lungs.labels.shape[0] // 2] == number)[:, 1].mean() for number in (1, 2)]
    left, right = (volume.affine[0, 2] * column for column in columns)
    assert left > right
    assert any("8.0 mm apart" in warning for warning in found.warnings) == (name == "ct_chest_lungpetctdx_a0002")


@pytest.mark.parametrize("name", ["ct_abdomen_crlm1004", "ct_liver_3slice_with_seg"])
def test_a_real_abdomen_is_refused(name: str, tiny: Pipeline, test_data: Path) -> None:
    refusal = tiny.run(_volume(test_data / name))
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.NOT_THIS_REGION, (
        "its slab is too short as well, but nobody waits for a chest result here"
    )


def test_a_real_head_is_refused_for_its_region_too(test_data: Path) -> None:
    """Imaging refuses this tilted series first; its pixels alone must not pass either."""
    import pydicom

    install_decoders()
    slices = [pydicom.dcmread(path) for path in sorted((test_data / "ct_head_ge_tilt").iterdir())]
    pixels = np.stack([s.pixel_array * int(s.RescaleSlope) + int(s.RescaleIntercept) for s in slices]).astype(np.int16)
    spacing_mm = (5.4, 0.488281, 0.488281)
    volume = as_volume(pixels, np.diag([1.0, 1, 1, 1]))
    aerated = aerated_mask(volume.pixels, working_body(volume.pixels, spacing_mm), spacing_mm)
    refusal = refuse_before(aerated, spacing_mm, RegionRules())
    assert refusal is not None
    assert refusal.code is RefusalCode.NOT_THIS_REGION


def test_the_lower_third_of_a_chest_is_judged_by_how_much_lung_it_holds(tiny: Pipeline, test_data: Path) -> None:
    volume = _volume(test_data / "ct_chest_cmbcrc_01068")
    bases = as_volume(volume.pixels[:22].copy(), volume.affine)  # 55 mm: too short for lung of 64 mm by the shipped limit
    refusal = refuse_before(
        aerated_mask(bases.pixels, working_body(bases.pixels, bases.spacing_mm), bases.spacing_mm),
        bases.spacing_mm,
        RegionRules(),
    )
    assert refusal is None  # enough aerated tissue to ask the network
    assert isinstance(tiny.run(as_volume(volume.pixels[40:].copy(), volume.affine)), Findings)  # the upper 150 mm
