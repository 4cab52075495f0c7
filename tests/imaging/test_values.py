"""Stored values → values: rescale a slice at a time, sign, unused bits, padding, photometric meaning."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, SpacingOrigin, Volume
from dicomnode.imaging import load
from tests.imaging.writing import COMPUTED_RADIOGRAPHY, ROOT, Slices, image, put_pixels, save


def volume_of(folder: Path, data_sets: list[Dataset]) -> Volume:
    loaded = load(save(folder, data_sets))
    assert isinstance(loaded, Volume), loaded
    return loaded


def radiograph(folder: Path, stored: np.ndarray, **elements: Any) -> Image2D:
    data_set = image(COMPUTED_RADIOGRAPHY, stored, f"{ROOT}.8")
    data_set.Modality = "CR"
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    loaded = load(save(folder, [data_set]))
    assert isinstance(loaded, Image2D), loaded
    return loaded


def test_each_slice_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    slices = Slices(elements={"Modality": "PT", "Units": "BQML", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128"})
    data_sets = slices.data_sets()
    for index, data_set in enumerate(data_sets):
        data_set.RescaleSlope, data_set.RescaleIntercept = f"{0.25 + index / 8}", 0
    volume = volume_of(tmp_path, data_sets)
    assert (volume.pixels.dtype, volume.unit) == (np.float32, "Bq/ml")
    for index in range(10):
        np.testing.assert_allclose(volume.pixels[index], slices.stored(index) * (0.25 + index / 8), rtol=1e-6)


def test_whole_values_that_do_not_fit_sixteen_bits_become_floats(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    put_pixels(data_sets[3], np.full((24, 32), 40000, np.uint16))
    volume = volume_of(tmp_path, data_sets)
    assert volume.pixels.dtype == np.float32
    assert volume.pixels[3].max() == 40000 - 1024
    np.testing.assert_array_equal(volume.pixels[4], Slices().stored(4) - 1024)


def test_unsigned_values_are_shifted_without_wrapping(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    put_pixels(data_sets[0], np.array([[0, 33791]] * 12 * 16, np.uint16).reshape(24, 16)[:, :].repeat(2, axis=1))
    volume = volume_of(tmp_path, data_sets)
    assert volume.pixels.dtype == np.int16
    assert (volume.pixels[0].min(), volume.pixels[0].max()) == (-1024, 32767)


def test_the_sign_is_the_highest_stored_bit_and_the_bits_above_are_ignored(tmp_path: Path) -> None:
    data_sets = Slices(elements={"RescaleIntercept": 0}).data_sets()
    for data_set in data_sets:
        put_pixels(data_set, np.full((24, 32), 0xF000 | 0x0801, np.uint16))
        data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = 12, 11, 1
        data_set.RescaleIntercept = 0
    assert volume_of(tmp_path, data_sets).pixels.min() == 0x801 - 0x1000
    for data_set in data_sets:
        data_set.PixelRepresentation = 0
    assert volume_of(tmp_path, data_sets).pixels.max() == 0x801


def test_eight_bit_slices_are_read(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    for index, data_set in enumerate(data_sets):
        put_pixels(data_set, np.full((24, 32), index, np.uint8))
    np.testing.assert_array_equal(volume_of(tmp_path, data_sets).pixels[:, 0, 0], np.arange(10) - 1024)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_uncompressed_encoding_gives_the_same_volume(tmp_path: Path, syntax: str) -> None:
    slices = Slices()
    data_sets = slices.data_sets()
    for index, data_set in enumerate(data_sets):
        data_set.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            data_set.PixelData = slices.stored(index).astype(">i2").tobytes()
    np.testing.assert_array_equal(volume_of(tmp_path, data_sets).pixels, [slices.stored(index) - 1024 for index in range(10)])


def test_dark_padding_keeps_its_value_and_bright_padding_becomes_air(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    for data_set in data_sets:
        stored = np.full((24, 32), 1064, np.uint16)
        stored[:4] = 65535
        put_pixels(data_set, stored)
        data_set.PixelPaddingValue = 65535
    volume = volume_of(tmp_path, data_sets)
    assert volume.pixels.dtype == np.int16
    assert set(np.unique(volume.pixels[:, :4])) == {-1024}
    assert set(np.unique(volume.pixels[:, 4:])) == {40}

    for data_set in data_sets:
        stored = np.full((24, 32), 1064, np.int16)
        stored[:4] = -2000
        put_pixels(data_set, stored)
        data_set.PixelPaddingValue = 63536  # written as unsigned, as many files do
    assert set(np.unique(volume_of(tmp_path, data_sets).pixels)) == {-3024, 40}


def test_ct_values_of_an_unspecified_rescale_type_are_hounsfield_units_with_a_warning(tmp_path: Path) -> None:
    volume = volume_of(tmp_path, Slices(elements={"RescaleType": "US"}).data_sets())
    assert volume.unit == "[hnsf'U]"
    assert "Rescale Type says US" in volume.warnings[0]


def test_slices_of_different_units_are_refused(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    data_sets[7].RescaleType = "Z_EFF"
    refusal = load(save(tmp_path, data_sets))
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.MIXED_GEOMETRY


def test_a_slope_of_zero_is_refused(tmp_path: Path) -> None:
    refusal = load(save(tmp_path, Slices(elements={"RescaleSlope": 0}).data_sets()))
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.CORRUPT


def test_high_is_bright_in_both_photometric_interpretations(tmp_path: Path) -> None:
    stored = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
    elements = {"BitsStored": 12, "HighBit": 11}
    np.testing.assert_array_equal(radiograph(tmp_path, stored, **elements).pixels, stored)
    inverse = radiograph(tmp_path, stored, PhotometricInterpretation="MONOCHROME1", **elements)
    assert inverse.pixels.dtype == np.uint16
    np.testing.assert_array_equal(inverse.pixels, 4095 - stored)


def test_the_window_of_an_inverse_radiograph_shows_it_as_its_source_would_be_shown(tmp_path: Path) -> None:
    stored = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
    elements = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 1000, "WindowWidth": 801}
    inverse = radiograph(tmp_path, stored, PhotometricInterpretation="MONOCHROME1", **elements)

    def shade(values: np.ndarray, center: float) -> np.ndarray:  # PS3.3 C.11.2.1.2.1, width 801
        return ((values - (center - 0.5)) / 800 + 0.5).clip(0, 1)

    assert inverse.headers.window_width == 801
    assert inverse.headers.window_center is not None
    np.testing.assert_allclose(
        shade(inverse.pixels.astype(float), inverse.headers.window_center), 1 - shade(stored * 1.0, 1000)
    )
    assert radiograph(tmp_path, stored, **elements).headers.window_center == 1000


def test_padding_of_a_radiograph_is_as_dark_as_its_darkest_pixel(tmp_path: Path) -> None:
    stored = np.arange(100, 164, dtype=np.uint16).reshape(8, 8)
    stored[0] = 4095
    shown = radiograph(tmp_path, stored, BitsStored=12, HighBit=11, PixelPaddingValue=4095)
    assert set(shown.pixels[0]) == {108}
    assert shown.pixels.max() == 163


def test_a_modality_lut_is_applied(tmp_path: Path) -> None:
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [4, 10, 16])
    lut.add_new("LUTData", "US", [100, 200, 400, 800])
    lut.ModalityLUTType = "US"
    stored = np.array([[9, 10, 11], [12, 13, 14]], np.uint16)
    shown = radiograph(tmp_path, stored, ModalityLUTSequence=[lut])
    np.testing.assert_array_equal(shown.pixels, [[100, 100, 200], [400, 800, 800]])


@pytest.mark.parametrize(
    ("elements", "spacing", "origin"),
    [
        ({}, None, SpacingOrigin.NONE),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), SpacingOrigin.DETECTOR),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), SpacingOrigin.DETECTOR),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.18, 0.09]}, (0.18, 0.09), SpacingOrigin.CALIBRATED),
    ],
)
def test_the_origin_of_a_projected_spacing_is_told(
    tmp_path: Path, elements: dict[str, Any], spacing: tuple[float, float] | None, origin: SpacingOrigin
) -> None:
    shown = radiograph(tmp_path, np.zeros((4, 4), np.uint16), **elements)
    assert (shown.pixel_spacing_mm, shown.spacing_origin) == (spacing, origin)
