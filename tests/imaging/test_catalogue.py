"""Real series: what imaging makes of each, number by number, and the same numbers from SimpleITK where it can be trusted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, SeriesRef, SpacingOrigin, Volume
from dicomnode.imaging import load, scan


@dataclass(frozen=True)
class Expected:
    folder: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    first_voxel_mm: tuple[float, float, float]
    unit: str
    spots: dict[tuple[int, int, int], float]


VOLUMES = [
    Expected("ct_abdomen_crlm1004", (10, 512, 512), (5, 0.796875, 0.796875), (-198.2, -204, -345), "[hnsf'U]",
             {(5, 256, 256): 99, (2, 135, 261): -93}),
    Expected("ct_chest_cmbcrc_01068", (100, 512, 512), (2.5, 0.898438, 0.898438), (-228.8, -220, -236.5), "[hnsf'U]",
             {(50, 256, 256): -291, (25, 135, 261): -33, (0, 0, 0): -3024}),
    Expected("ct_chest_lidc_0001", (60, 512, 512), (2.5, 0.703125, 0.703125), (-166, -171.7, -185), "[hnsf'U]",
             {(30, 256, 256): 29, (15, 135, 261): 228}),
    Expected("ct_chest_lungpetctdx_a0002", (30, 512, 512), (8, 0.646484, 0.646484), (-173.17676, -294.17676, 80), "[hnsf'U]",
             {(15, 256, 256): 31, (7, 135, 261): 6}),
    Expected("ct_liver_3slice_with_seg", (3, 512, 512), (1, 0.810547, 0.810547), (-235.2, -226.8, -128.69), "[hnsf'U]",
             {(1, 256, 256): -92}),
    Expected("mr_abdomen_haste_cor", (12, 256, 256), (8.75, 1.5625, 1.5625), (-191.72, -100.7352, 186.8467), "1",
             {(6, 128, 128): 180, (3, 71, 133): 230}),
    Expected("mr_prostate_adc_ax", (10, 256, 256), (3, 0.7031, 0.7031), (-90.0581, -110.548, -32.1577), "1",
             {(5, 128, 128): 2409, (2, 71, 133): 940}),
    Expected("pt_sts002_with_rtstruct", (48, 27, 30), (3.27, 5.46875, 5.46875), (2.73438, 57.42188, -629.02), "g/ml",
             {(24, 13, 15): 1.10356, (12, 13, 20): 0.47952}),
]  # fmt: skip


def image_series(folder: Path) -> SeriesRef:
    """The one series of images in a folder that may hold derived objects too."""
    return max(scan([folder]).series, key=lambda series: len(series.instances))


@pytest.mark.parametrize("expected", VOLUMES, ids=lambda expected: expected.folder)
def test_a_real_series_gives_the_right_grid_and_values(test_data: Path, expected: Expected) -> None:
    series = image_series(test_data / expected.folder)
    volume = load(series)
    assert isinstance(volume, Volume), volume
    assert (volume.shape, volume.unit) == (expected.shape, expected.unit)
    assert volume.spacing_mm == pytest.approx(expected.spacing_mm, rel=1e-5)
    assert volume.affine[:3, 3] == pytest.approx(expected.first_voxel_mm, abs=1e-3)
    for index, value in expected.spots.items():
        assert volume.pixels[index] == pytest.approx(value, abs=1e-4)
    assert volume.pixels.dtype == (np.float32 if expected.unit == "g/ml" else np.int16)

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(test_data / expected.folder), series.series_instance_uid))
    other = reader.Execute()
    np.testing.assert_allclose(volume.pixels, SimpleITK.GetArrayFromImage(other), atol=2e-6)
    for index in np.ndindex(2, 2, 2):
        corner = np.array(index) * (np.array(volume.shape) - 1)
        point = other.TransformIndexToPhysicalPoint([int(value) for value in corner[::-1]])
        assert (volume.affine @ [*corner, 1])[:3] == pytest.approx(point, abs=5e-3)


@pytest.mark.parametrize("folder", ["ct_chest_lungpetctdx_a0002", "mr_abdomen_haste_cor", "mr_prostate_adc_ax"])
def test_the_affine_of_a_real_series_agrees_with_highdicom(test_data: Path, folder: str) -> None:
    import highdicom

    volume = load(series := image_series(test_data / folder))
    assert isinstance(volume, Volume)
    data_sets = [dcmread(instance.path) for instance in series.instances]
    other = highdicom.get_volume_from_series(data_sets, orientation_tol=1e-4, perpendicular_tol=1e-3)
    other = other.flip_spatial(0) if (other.affine[:3, 0] @ volume.affine[:3, 0]) < 0 else other
    np.testing.assert_allclose(volume.affine, other.affine, atol=1e-3)
    np.testing.assert_array_equal(volume.pixels, other.array.reshape(volume.shape))


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


REFUSED = [
    ("ct_chest_gap_covid3", RefusalCode.GAP, "1 slice missing at -820.20 mm"),
    ("ct_chest_rider_0109", RefusalCode.MIXED_GEOMETRY, "three scan ranges in one series"),
    ("ct_duplicate_positions_lymphoma", RefusalCode.MIXED_GEOMETRY, "12.5, 32.5, 230 mm"),
    ("ct_head_ge_tilt", RefusalCode.TILT, "18.5 degrees"),
    ("mr_brain_dualecho", RefusalCode.TEMPORAL, "4 complete stacks of 7 positions in one series, told apart by EchoTime and I"),
    ("mr_breast_dce_sag_4d", RefusalCode.TEMPORAL, "3 complete stacks of 7 positions"),
    ("objects/ct_chest_coronal_reformat_single.dcm", RefusalCode.TOO_FEW, "1 image"),
    ("objects/ct_chest_localizer_jpegll.dcm", RefusalCode.LOCALIZER, "localizers"),
    ("objects/dx_chest_modality_says_ct.dcm", RefusalCode.MIXED_GEOMETRY, "Modality says CT"),
    ("objects/mr_enhanced_10frames.dcm", RefusalCode.MIXED_GEOMETRY, "all 10 frames"),
    ("objects/nm_heart_13frames.dcm", RefusalCode.UNSUPPORTED_CLASS, "Nuclear Medicine"),
    ("objects/parametric_map_float.dcm", RefusalCode.UNSUPPORTED_CLASS, "Parametric Map"),
    ("objects/pt_slice_jpegll.dcm", RefusalCode.TOO_FEW, "1 image"),
    ("objects/rtdose_15frames.dcm", RefusalCode.UNSUPPORTED_CLASS, "RT Dose"),
    ("objects/sc_palette.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality OT"),
    ("objects/sc_rgb_3x3.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality OT"),
    ("objects/sc_rgb_jpeg.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality OT"),
    ("objects/seg_fractional.dcm", RefusalCode.UNSUPPORTED_CLASS, "Segmentation"),
    ("objects/seg_labelmap.dcm", RefusalCode.UNSUPPORTED_CLASS, "Label Map Segmentation"),
    ("objects/sm_wsi_tiled.dcm", RefusalCode.UNSUPPORTED_CLASS, "Microscopy"),
    ("objects/us_multiframe_palette_jpegls.dcm", RefusalCode.UNSUPPORTED_CLASS, "Ultrasound"),
    ("objects/us_multiframe_ybr422_jpeg.dcm", RefusalCode.UNSUPPORTED_CLASS, "Ultrasound"),
    ("objects/xa_jpegext12.dcm", RefusalCode.UNSUPPORTED_CLASS, "Modality XA"),
]  # fmt: skip


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


RADIOGRAPHS = [
    ("cr_chest_mono1_440", (440, 440), None, SpacingOrigin.NONE),
    ("cr_chest_pa_rsna", (1024, 1024), (0.168, 0.168), SpacingOrigin.CALIBRATED),
    ("cr_extremity_mono1_j2k", (1760, 1760), None, SpacingOrigin.NONE),
    ("dx_chest_pa_nih_effusion", (1024, 1024), None, SpacingOrigin.NONE),
    ("dx_thorax_mono1_dog", (169, 211), (1.2, 1.2012), SpacingOrigin.DETECTOR),
    ("mg_testpattern", (512, 512), (0.25, 0.25), SpacingOrigin.CALIBRATED),
]


@pytest.mark.parametrize(("name", "shape", "spacing", "origin"), RADIOGRAPHS, ids=[row[0] for row in RADIOGRAPHS])
def test_a_radiograph_is_an_image_with_the_origin_of_its_spacing(
    test_data: Path, name: str, shape: tuple[int, int], spacing: tuple[float, float] | None, origin: SpacingOrigin
) -> None:
    image = load(image_series(test_data / "objects" / f"{name}.dcm"))
    assert isinstance(image, Image2D), image
    assert (image.pixels.shape, image.pixels.dtype) == (shape, np.uint16)
    assert image.spacing_origin == origin
    assert image.pixel_spacing_mm == (pytest.approx(spacing) if spacing else None)


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
