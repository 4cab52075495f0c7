"""Real series: what imaging makes of each, number by number, and the same from SimpleITK and highdicom where they can."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from dicomnode.domain.imaging import Image2D, InstanceRef, Refusal, RefusalCode, SeriesRef, Volume
from dicomnode.imaging import load, scan
from dicomnode.imaging.decoding import decode_one
from dicomnode.imaging.headers import read_frames
from tests.imaging.catalogue import IMAGES, NOT_IMAGES, REFUSED, SLICES, VOLUMES, ExpectedImage, ExpectedVolume

SERIES_VOLUMES = [one for one in VOLUMES if "/" not in one.path]
ENHANCED_VOLUMES = [one for one in VOLUMES if "/" in one.path]


def test_every_series_object_and_syntax_of_the_manifest_is_in_the_catalogue(manifest: dict[str, dict[str, Any]]) -> None:
    listed = {path.rstrip("/") for path in manifest if not path.startswith(("broken/", "charsets/"))}
    known = {
        *(one.path for one in VOLUMES),
        *(one.path for one in IMAGES),
        *(path for path, _, _ in REFUSED),
        *SLICES,
        *NOT_IMAGES,
    }
    assert listed == known


def image_series(folder: Path) -> SeriesRef:
    """The one series of images in a folder that may hold derived objects too."""
    return max(scan([folder]).series, key=lambda series: len(series.instances))


@pytest.mark.parametrize("expected", SERIES_VOLUMES, ids=lambda expected: expected.path)
def test_a_real_series_gives_the_right_grid_and_values(test_data: Path, expected: ExpectedVolume) -> None:
    series = image_series(test_data / expected.path)
    volume = load(series)
    assert isinstance(volume, Volume), volume
    compare(volume, expected)
    assert volume.pixels.dtype == (np.float32 if expected.unit == "g/ml" else np.int16)

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(test_data / expected.path), series.series_instance_uid))
    agrees_with_simpleitk(volume, reader.Execute())


def compare(volume: Volume, expected: ExpectedVolume) -> None:
    assert (volume.shape, volume.unit) == (expected.shape, expected.unit)
    assert volume.spacing_mm == pytest.approx(expected.spacing_mm, rel=1e-5)
    affine = np.eye(4)
    affine[:3, :3] = np.transpose(expected.directions) * expected.spacing_mm
    affine[:3, 3] = expected.first_voxel_mm
    corners = np.array([[*index, 1] for index in np.ndindex(2, 2, 2)]) * [*np.array(expected.shape) - 1, 1]
    np.testing.assert_allclose(corners @ volume.affine.T, corners @ affine.T, atol=2e-3)
    for index, value in expected.spots.items():
        assert volume.pixels[index] == pytest.approx(value, abs=1e-4)


def agrees_with_simpleitk(volume: Volume, other: SimpleITK.Image) -> None:
    """Every voxel's value, and the place of the corners; SimpleITK may number the slices from the other end."""
    values = SimpleITK.GetArrayFromImage(other)
    turned = np.linalg.norm(point_in(other, (0, 0, 0)) - volume.affine[:3, 3]) > 0.1
    np.testing.assert_allclose(volume.pixels, values[::-1] if turned else values, atol=2e-6)
    for index in np.ndindex(2, 2, 2):
        corner = np.array(index) * (np.array(volume.shape) - 1)
        there = (volume.shape[0] - 1 - corner[0], *corner[1:]) if turned else tuple(corner)
        assert (volume.affine @ [*corner, 1])[:3] == pytest.approx(point_in(other, there), abs=5e-3)


def point_in(image: SimpleITK.Image, index: Sequence[int]) -> np.ndarray:
    """The LPS point of a (z, y, x) index."""
    return np.array(image.TransformIndexToPhysicalPoint([int(value) for value in index[::-1]]))


def agrees_with_highdicom(volume: Volume, other: highdicom.Volume) -> None:
    other = other.flip_spatial(0) if (other.affine[:3, 0] @ volume.affine[:3, 0]) < 0 else other
    np.testing.assert_allclose(volume.affine, other.affine, atol=1e-3)
    np.testing.assert_allclose(volume.pixels, other.array.reshape(volume.shape), atol=2e-6)


@pytest.mark.parametrize(
    "path", [one.path for one in SERIES_VOLUMES if one.path not in ("ct_chest_cmbcrc_01068", "ct_chest_lidc_0001")]
)
def test_the_affine_of_a_real_series_agrees_with_highdicom(test_data: Path, path: str) -> None:
    volume = load(series := image_series(test_data / path))
    assert isinstance(volume, Volume)
    data_sets = [dcmread(instance.path) for instance in series.instances]
    agrees_with_highdicom(
        volume,
        highdicom.get_volume_from_series(data_sets, orientation_tol=1e-4, perpendicular_tol=1e-3, dtype=np.float32),
    )


@pytest.mark.parametrize("expected", ENHANCED_VOLUMES, ids=lambda expected: expected.path)
def test_a_real_enhanced_object_gives_the_right_grid_and_values(test_data: Path, expected: ExpectedVolume) -> None:
    path = test_data / expected.path
    volume = load(image_series(path))
    assert isinstance(volume, Volume), volume
    compare(volume, expected)
    if expected.path.startswith("objects/"):  # nobody else here reads the fragments without an offset table
        agrees_with_highdicom(volume, highdicom.imread(path).get_volume(dtype=np.float32))
        agrees_with_simpleitk(volume, SimpleITK.ReadImage(str(path)))


@pytest.mark.parametrize("path", SLICES)
def test_a_real_slice_decodes_to_the_right_values_and_is_too_few_for_a_volume(test_data: Path, path: str) -> None:
    _, (frame,) = read_frames(InstanceRef("1.2", "1.2.840.10008.5.1.4.1.1.2", test_data / path))
    stored = decode_one(frame)
    assert {index: stored[index] for index in SLICES[path]} == SLICES[path]
    refusal = load(image_series(test_data / path))
    assert isinstance(refusal, Refusal)
    assert refusal.code == RefusalCode.TOO_FEW


@pytest.mark.parametrize("path", NOT_IMAGES)
def test_what_is_no_image_is_left_out_with_the_reason(test_data: Path, path: str) -> None:
    found = scan([test_data / path])
    assert found.series == ()
    assert NOT_IMAGES[path] in found.ignored[0][1]


def test_slices_are_listed_in_the_order_of_the_z_axis(test_data: Path) -> None:
    folder = test_data / "ct_chest_cmbcrc_01068"
    volume = load(image_series(folder))
    assert isinstance(volume, Volume)
    positions = {
        data_set.SOPInstanceUID: float(data_set.ImagePositionPatient[2])
        for data_set in (dcmread(path, specific_tags=["SOPInstanceUID", "ImagePositionPatient"]) for path in folder.iterdir())
    }
    heights = [positions[frame.sop_instance_uid] for frame in volume.frames]
    assert heights == sorted(heights)
    np.testing.assert_allclose([(volume.affine @ [index, 0, 0, 1])[2] for index in range(100)], heights)


def test_sixty_frames_of_reference_of_a_deidentified_series_are_a_warning(test_data: Path) -> None:
    volume = load(image_series(test_data / "ct_chest_lidc_0001"))
    assert isinstance(volume, Volume)
    assert volume.warnings == ("60 Frame of Reference UIDs in one de-identified series; positions were taken as one system",)
    assert volume.frame_of_reference_uid


@pytest.mark.parametrize(("path", "code", "words"), REFUSED, ids=[path for path, _, _ in REFUSED])
def test_what_must_not_be_stacked_is_refused_by_name(test_data: Path, path: str, code: RefusalCode, words: str) -> None:
    series = image_series(test_data / path)
    refusal = load(series)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.code == code
    assert words in refusal.message
    assert refusal.remedy.endswith(".")
    assert refusal.instances
    assert set(refusal.instances) <= {instance.sop_instance_uid for instance in series.instances}
    assert not any(uid in refusal.message + refusal.remedy for uid in refusal.instances)  # messages reach logs


def test_the_seam_of_two_scan_ranges_is_named(test_data: Path) -> None:
    series = image_series(test_data / "ct_chest_rider_0109")
    refusal = load(series)
    assert isinstance(refusal, Refusal)
    for part in (
        "AcquisitionNumber 1: 47 images from -212.325 to 17.675 mm",
        "10 images from -257.32 to -212.32 mm",
        "7 images",
    ):
        assert part in refusal.message
    heights = [float(dcmread(instance.path, stop_before_pixels=True).ImagePositionPatient[2])
               for instance in series.instances if instance.sop_instance_uid in refusal.instances]  # fmt: skip
    assert sorted(heights) == pytest.approx([-212.325, -212.320])
    reader = SimpleITK.ImageSeriesReader()
    SimpleITK.ProcessObject_SetGlobalWarningDisplay(False)
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(test_data / "ct_chest_rider_0109")))
    assert reader.Execute().GetSpacing()[2] == pytest.approx(309.995 / 63)  # what we refuse is stacked elsewhere, at 4.92 mm


@pytest.mark.parametrize("expected", IMAGES, ids=lambda expected: expected.path)
def test_a_radiograph_is_an_image_with_the_origin_of_its_spacing(test_data: Path, expected: ExpectedImage) -> None:
    image = load(image_series(test_data / expected.path))
    assert isinstance(image, Image2D), image
    assert (image.pixels.shape, image.pixels.dtype) == (expected.shape, np.uint16)
    assert image.spacing_origin == expected.origin
    assert image.pixel_spacing_mm == (pytest.approx(expected.spacing_mm) if expected.spacing_mm else None)
    assert {index: image.pixels[index] for index in expected.spots} == expected.spots


def test_a_monochrome1_radiograph_is_bright_where_the_patient_is(test_data: Path) -> None:
    image = load(image_series(test_data / "objects" / "cr_chest_mono1_440.dcm"))
    stored = dcmread(test_data / "objects" / "cr_chest_mono1_440.dcm").pixel_array
    assert isinstance(image, Image2D)
    np.testing.assert_array_equal(image.pixels, 1023 - stored)


def test_an_enhanced_ct_is_stacked_by_the_positions_of_its_frames(test_data: Path) -> None:
    volume = load(image_series(test_data / "objects" / "ct_enhanced_2frames.dcm"))
    assert isinstance(volume, Volume)
    assert volume.shape == (2, 512, 512)
    assert volume.spacing_mm == pytest.approx((10, 0.388672, 0.388672))
    # Rows run from left to right here, so the normal points to the feet: frame 1, at z = −159, lies at the end of the stack.
    assert [frame.frame_number for frame in volume.frames] == [2, 1]
    assert volume.affine[:3, 3] == pytest.approx([99.5, -301.5, -149])
    assert volume.unit == "1"  # a perfusion map: Rescale Type US
    stored = dcmread(test_data / "objects" / "ct_enhanced_2frames.dcm").pixel_array.astype(int)
    np.testing.assert_array_equal(volume.pixels, stored[::-1] - 1024)


def test_an_enhanced_mr_is_stacked_by_the_positions_of_its_frames(test_data: Path) -> None:
    volume = load(image_series(test_data / "objects" / "mr_enhanced_siemens_6frames.dcm"))
    assert isinstance(volume, Volume)
    assert volume.shape == (6, 64, 64)
    assert volume.spacing_mm == pytest.approx((2.4, 3.375, 3.375))
    data_set = dcmread(test_data / "objects" / "mr_enhanced_siemens_6frames.dcm")
    for index, frame in enumerate(volume.frames):
        group = data_set.PerFrameFunctionalGroupsSequence[frame.frame_number - 1]
        position = [float(value) for value in group.PlanePositionSequence[0].ImagePositionPatient]
        assert (volume.affine @ [index, 0, 0, 1])[:3] == pytest.approx(position, abs=0.01)
        np.testing.assert_array_equal(volume.pixels[index], data_set.pixel_array[frame.frame_number - 1])
