"""Series made wrong on purpose: right or refused by name; where other readers are silently wrong, a test shows both."""

import copy
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset

from dicomnode.domain.imaging import Image2D, Refusal, RefusalCode, SeriesRef, Volume
from dicomnode.imaging import load, stacking
from tests.imaging.writing import CORONAL, ROOT, SAGITTAL, Slices, image, renew, save


def volume_of(series: SeriesRef, **options: bool) -> Volume:
    loaded = load(series, **options)
    assert isinstance(loaded, Volume), loaded
    return loaded


def refusal_of(series: SeriesRef, code: RefusalCode, **options: bool) -> Refusal:
    loaded = load(series, **options)
    assert isinstance(loaded, Refusal), loaded
    assert loaded.code == code, loaded
    assert loaded.remedy
    assert set(loaded.instances) <= {instance.sop_instance_uid for instance in series.instances}
    return loaded


def read_by_simpleitk(series: SeriesRef) -> SimpleITK.Image:
    """As scripts do: files in the order of their position, no questions asked."""
    SimpleITK.ProcessObject_SetGlobalWarningDisplay(False)
    folder = str(series.instances[0].path.parent)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
    return reader.Execute()


def uids_of(data_sets: list[Dataset]) -> list[str]:
    return [data_set.SOPInstanceUID for data_set in data_sets]


def test_a_regular_series_in_any_file_order_is_stacked_along_its_normal(tmp_path: Path) -> None:
    slices = Slices(number=12)
    volume = volume_of(save(tmp_path, slices.data_sets(), lambda paths: paths.sort(key=lambda path: path.name[::-1])))
    assert volume.shape == (12, 24, 32)
    assert volume.spacing_mm == pytest.approx((2.5, 1.25, 0.75))
    assert volume.unit == "[hnsf'U]"
    assert volume.pixels.dtype == np.int16
    assert not volume.pixels.flags.writeable
    assert volume.warnings == ()
    np.testing.assert_array_equal(volume.pixels, [slices.stored(index) - 1024 for index in range(12)])
    assert [frame.sop_instance_uid for frame in volume.frames] == uids_of(slices.data_sets())
    np.testing.assert_allclose(volume.affine @ [3, 2, 1, 1], [-40 + 0.75, -30 + 2 * 1.25, -100 + 3 * 2.5, 1])


def test_slices_numbered_from_head_to_foot_come_out_from_foot_to_head(tmp_path: Path) -> None:
    slices = Slices(step_mm=-2.5, elements={"SliceThickness": 2.5})
    volume = volume_of(save(tmp_path, slices.data_sets()))
    assert volume.affine[2, 0] == pytest.approx(2.5)
    assert volume.affine[2, 3] == pytest.approx(-100 - 9 * 2.5)
    np.testing.assert_array_equal(volume.pixels[0], slices.stored(9) - 1024)


OBLIQUE = (0.98480775, 0.0, -0.17364818, 0.05939117, 0.93969262, 0.33682409)


@pytest.mark.parametrize("orientation", [SAGITTAL, CORONAL, OBLIQUE], ids=["sagittal", "coronal", "oblique"])
def test_the_affine_agrees_with_simpleitk_and_highdicom_in_every_orientation(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    import highdicom

    slices = Slices(orientation=orientation, step_mm=3.1)
    volume = volume_of(save(tmp_path, slices.data_sets()))
    other = read_by_simpleitk(load_folder := save(tmp_path, slices.data_sets()))
    for index in ([0, 0, 0], [9, 0, 0], [4, 23, 31]):
        expected = np.array(other.TransformIndexToPhysicalPoint(index[::-1]))
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], expected, atol=1e-4)
    np.testing.assert_array_equal(volume.pixels, SimpleITK.GetArrayFromImage(other))
    third = highdicom.get_volume_from_series([*slices.data_sets()], orientation_tol=1e-4, perpendicular_tol=1e-3)
    assert third.spatial_shape == volume.shape
    first, last = ((third.affine @ [index, 0, 0, 1])[:3] for index in (0, volume.shape[0] - 1))
    ends = [(volume.affine @ [index, 0, 0, 1])[:3] for index in (0, volume.shape[0] - 1)]
    flipped = np.linalg.norm(first - ends[0]) > np.linalg.norm(first - ends[1])
    np.testing.assert_allclose([last, first] if flipped else [first, last], ends, atol=1e-4)
    array = third.array[::-1] if flipped else third.array
    np.testing.assert_array_equal(volume.pixels, array.reshape(volume.shape))
    assert load_folder.instances


def test_a_series_with_a_missing_slice_is_refused_and_names_the_gap(tmp_path: Path) -> None:
    data_sets = Slices(number=20).data_sets()
    missing = data_sets.pop(7)
    series = save(tmp_path, data_sets)
    refusal = refusal_of(series, RefusalCode.GAP)
    assert f"{missing.ImagePositionPatient[2]:.2f} mm" in refusal.message
    assert "images 7 and 9" in refusal.message
    assert refusal.instances == (data_sets[6].SOPInstanceUID, data_sets[7].SOPInstanceUID)
    assert read_by_simpleitk(series).GetSpacing()[2] == pytest.approx(2.5 * 19 / 18)  # every slice but the first is misplaced


def test_a_run_of_missing_slices_is_named_slice_by_slice(tmp_path: Path) -> None:
    data_sets = Slices(number=20, step_mm=2.0).data_sets()
    del data_sets[5:9]
    refusal = refusal_of(save(tmp_path, data_sets), RefusalCode.GAP)
    assert "4 slices missing at -90.00, -88.00, -86.00, -84.00 mm" in refusal.message


def lesion_slices() -> list[Dataset]:
    """41 slices with a ball of 7.21 ml (2884 voxels of 2.5 mm³) in the middle: slices 16 to 24."""
    data_sets = Slices(number=41, rows=32, columns=32, pixel_spacing=(1.0, 1.0), origin=(0, 0, 0)).data_sets()
    z, y, x = np.mgrid[:41, :32, :32]
    distance = (2.5 * (z - 20)) ** 2 + (y - 15.7) ** 2 + (x - 15.8) ** 2
    inside = distance <= np.sort(distance, axis=None)[2883]
    for index, data_set in enumerate(data_sets):
        data_set.PixelData = np.where(inside[index], 1124, 24).astype(np.int16).tobytes()
    return data_sets


def told_by_simpleitk(series: SeriesRef) -> float:
    image = read_by_simpleitk(series)
    return float((SimpleITK.GetArrayFromImage(image) > 0).sum() * np.prod(image.GetSpacing()) / 1000)


def told_by_monai(series: SeriesRef) -> float:
    """As a MONAI bundle loads it."""
    from monai.data import PydicomReader

    reader = PydicomReader()
    array, meta = reader.get_data(reader.read(series.instances[0].path.parent))
    return float((array > 0).sum() * abs(np.linalg.det(meta["affine"][:3, :3])) / 1000)


LOST = {  # which of the 41 slices, and what of 7.21 ml is left or made of it elsewhere
    "one slice in the lesion": ([19], 6.29),
    "four slices in the lesion": ([18, 19, 20, 21], 3.33),
    "all of the lesion but its upper end": ([*range(16, 24)], 0.43),
    "half of the slices, none of the lesion's": ([*range(1, 15), *range(34, 40)], 14.42),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", LOST)
def test_lost_slices_change_a_lesion_for_readers_that_do_not_refuse(tmp_path: Path, what: str) -> None:
    data_sets, (lost, told_ml) = lesion_slices(), LOST[what]
    (whole := tmp_path / "whole").mkdir()
    volume = volume_of(save(whole, data_sets))
    assert float((volume.pixels > 0).sum()) * volume.voxel_ml == pytest.approx(7.21, abs=0.005)
    (second := tmp_path / "second").mkdir()
    series = save(second, [data_set for index, data_set in enumerate(data_sets) if index not in lost])
    refusal = refusal_of(series, RefusalCode.GAP)
    assert f"{len(lost)} slice" in refusal.message
    assert "Send the whole series again" in refusal.remedy
    # Not a word of warning from either, and a volume for the report.
    assert told_by_simpleitk(series) == pytest.approx(told_ml, abs=0.05)
    assert told_by_monai(series) == pytest.approx(told_ml, abs=0.05)


def test_different_images_at_one_position_are_refused(tmp_path: Path) -> None:
    data_sets = Slices(number=20).data_sets()
    twin = renew(copy.deepcopy(data_sets[4]), 99)
    twin.PixelData = data_sets[5].PixelData
    series = save(tmp_path, [*data_sets, twin])
    refusal = refusal_of(series, RefusalCode.DUPLICATE_POSITION)
    assert refusal.instances == (data_sets[4].SOPInstanceUID, twin.SOPInstanceUID)
    assert "images 5 and 99" in refusal.message
    assert read_by_simpleitk(series).GetSpacing()[2] < 2.4


def test_a_copy_of_an_image_under_another_uid_is_left_out_with_a_warning(tmp_path: Path) -> None:
    data_sets = Slices(number=20).data_sets()
    series = save(tmp_path, [*data_sets, renew(copy.deepcopy(data_sets[4]), 99)])
    volume = volume_of(series)
    assert volume.shape[0] == 20
    assert volume.warnings == ("1 copy of images left out (image 99)",)


def test_the_same_object_twice_counts_once(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    volume = volume_of(save(tmp_path, [*data_sets, copy.deepcopy(data_sets[3])]))
    assert volume.shape[0] == 10
    assert "came twice" in volume.warnings[0]


def test_two_objects_under_one_sop_instance_uid_are_refused(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    liar = copy.deepcopy(data_sets[3])
    liar.PixelData = data_sets[0].PixelData
    refusal = refusal_of(save(tmp_path, [*data_sets, liar]), RefusalCode.DUPLICATE_POSITION)
    assert refusal.instances == (liar.SOPInstanceUID,)


@pytest.mark.parametrize("second_starts_mm", [-100 + 9 * 2.5 - 0.005, -100 + 9 * 2.5 + 1.1, -100 + 9 * 2.5 + 50, -85.1])
def test_two_scan_ranges_in_one_series_are_refused_as_such(tmp_path: Path, second_starts_mm: float) -> None:
    first = Slices(elements={"AcquisitionNumber": 1}).data_sets()
    second = Slices(origin=(-40, -30, second_starts_mm), elements={"AcquisitionNumber": 2}, seed=8).data_sets()
    for number, data_set in enumerate(second):
        renew(data_set, 11 + number)
    refusal = refusal_of(save(tmp_path, first + second), RefusalCode.MIXED_GEOMETRY)
    assert refusal.message.startswith("two scan ranges in one series (AcquisitionNumber 1: 10 images from -100 to -77.5 mm;")
    assert "split the series by AcquisitionNumber" in refusal.remedy.replace("Split", "split")


def test_scan_ranges_without_acquisition_numbers_are_told_apart_by_time_without_telling_the_time(tmp_path: Path) -> None:
    first = Slices(elements={"AcquisitionTime": "101500"}).data_sets()
    second = Slices(origin=(-40, -30, -76.4), elements={"AcquisitionTime": "101620"}, seed=8).data_sets()
    for number, data_set in enumerate(second):
        renew(data_set, 11 + number)
    refusal = refusal_of(save(tmp_path, first + second), RefusalCode.MIXED_GEOMETRY)
    assert "two scan ranges in one series (range 1: 10 images from -100 to -77.5 mm; range 2: 10 images" in refusal.message
    assert "1015" not in refusal.message


def test_two_acquisitions_that_make_one_regular_stack_are_accepted_with_a_warning(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    for data_set in data_sets:
        data_set.AcquisitionNumber = 1 if data_set.InstanceNumber <= 5 else 2
    assert volume_of(save(tmp_path, data_sets)).warnings == ("the stack joins 2 acquisitions without a seam in its geometry",)


def test_uneven_steps_are_refused(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    for data_set in data_sets[6:]:
        data_set.ImagePositionPatient[2] += 0.9
    refusal = refusal_of(save(tmp_path, data_sets), RefusalCode.MIXED_GEOMETRY)
    assert "images 6 and 7" in refusal.message


def test_positions_rounded_to_strings_are_no_uneven_steps(tmp_path: Path) -> None:
    data_sets = Slices(step_mm=0.625, number=30).data_sets()
    for data_set in data_sets:
        data_set.ImagePositionPatient[2] = f"{float(data_set.ImagePositionPatient[2]):.2f}"
    assert volume_of(save(tmp_path, data_sets)).spacing_mm[0] == pytest.approx(0.625, abs=1e-3)


def test_step_errors_that_add_up_are_refused(tmp_path: Path) -> None:
    data_sets = Slices(number=120).data_sets()
    for index, data_set in enumerate(data_sets[60:]):
        data_set.ImagePositionPatient[2] += 0.024 * (index + 1)
    refusal_of(save(tmp_path, data_sets), RefusalCode.MIXED_GEOMETRY)


def tilted(degrees: float) -> list[Dataset]:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    data_sets = Slices(orientation=(1, 0, 0, 0, cosine, -sine), step_mm=4).data_sets()
    for index, data_set in enumerate(data_sets):
        data_set.ImagePositionPatient = [-40, -30, f"{-100 + 4 * index}"]  # the table moves along z, whatever the gantry does
    return data_sets


def test_gantry_tilt_is_refused_and_named_in_degrees(tmp_path: Path) -> None:
    refusal = refusal_of(save(tmp_path, tilted(18.5)), RefusalCode.TILT)
    assert "18.5 degrees" in refusal.message
    assert "without gantry tilt" in refusal.remedy


def test_tilt_of_less_than_half_a_pixel_over_the_stack_is_accepted(tmp_path: Path) -> None:
    assert volume_of(save(tmp_path, tilted(0.5))).shape[0] == 10  # 0.31 mm of 0.75


def test_slices_with_different_centres_are_refused(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    for data_set in data_sets[5:]:
        data_set.ImagePositionPatient[0] += 12
    refusal_of(save(tmp_path, data_sets), RefusalCode.MIXED_GEOMETRY)


def test_a_localizer_inside_a_series_is_split_off_with_a_warning(tmp_path: Path) -> None:
    scout = Slices(number=1, orientation=CORONAL, rows=48, columns=48, seed=9).data_set(0)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    series = save(tmp_path, [renew(scout, 77), *Slices().data_sets()])
    volume = volume_of(series)
    assert volume.shape == (10, 24, 32)
    assert volume.warnings == ("1 localizer left out (image 77)",)
    # MONAI and SimpleITK read such a series where sizes allow it; here the size differs, and SimpleITK gives up.
    with pytest.raises(RuntimeError):
        read_by_simpleitk(series)


def test_a_localizer_of_the_same_size_misleads_others_and_not_us(tmp_path: Path) -> None:
    scout = Slices(number=1, orientation=CORONAL, seed=9, origin=(-40, -30, 60)).data_set(0)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    series = save(tmp_path, [*Slices().data_sets(), renew(scout, 77)])
    assert volume_of(series).spacing_mm[0] == pytest.approx(2.5)
    assert read_by_simpleitk(series).GetSpacing()[2] != pytest.approx(2.5, rel=0.5)


def test_a_series_of_nothing_but_localizers_is_refused(tmp_path: Path) -> None:
    elements = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    refusal_of(save(tmp_path, Slices(number=2, elements=elements).data_sets()), RefusalCode.LOCALIZER)


def test_images_of_a_foreign_size_are_split_off_with_a_warning(tmp_path: Path) -> None:
    foreign = [renew(data_set, 50 + index) for index, data_set in enumerate(Slices(number=3, rows=16, seed=9).data_sets())]
    volume = volume_of(save(tmp_path, [*Slices().data_sets(), *foreign]))
    assert volume.shape == (10, 24, 32)
    assert volume.warnings == ("left out: 3 images (axial, 16 x 32 pixels of 1.25 x 0.75 mm), images 50, 51 and 52",)


def test_two_orientations_of_equal_number_are_refused(tmp_path: Path) -> None:
    other = [renew(data_set, 50 + index) for index, data_set in enumerate(Slices(orientation=SAGITTAL, seed=9).data_sets())]
    refusal = refusal_of(save(tmp_path, Slices().data_sets() + other), RefusalCode.MIXED_GEOMETRY)
    assert "axial" in refusal.message
    assert "sagittal" in refusal.message


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "EchoTime", "TriggerTime", "AcquisitionTime", "ImageType"])
def test_complete_stacks_of_several_times_are_refused_and_what_tells_them_apart_is_named(tmp_path: Path, keyword: str) -> None:
    values = {
        "ImageType": (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
        "AcquisitionTime": ("101500", "101530"),
    }
    data_sets = []
    for point, value in enumerate(values.get(keyword, (1, 2))):
        for index, data_set in enumerate(Slices(elements={keyword: value}, seed=point).data_sets()):
            data_sets.append(renew(data_set, 100 * point + index))
    series = save(tmp_path, data_sets)
    refusal = refusal_of(series, RefusalCode.TEMPORAL)
    assert refusal.message == f"2 complete stacks of 10 positions in one series, told apart by {keyword}"
    assert len(refusal.instances) == 20
    assert read_by_simpleitk(series).GetSpacing()[2] != pytest.approx(2.5)


def test_two_kernels_at_the_same_positions_are_refused(tmp_path: Path) -> None:
    data_sets = []
    for point, kernel in enumerate(("B30f", "B70f")):
        for index, data_set in enumerate(Slices(elements={"ConvolutionKernel": kernel}, seed=point).data_sets()):
            data_sets.append(renew(data_set, 100 * point + index))
    refusal = refusal_of(save(tmp_path, data_sets), RefusalCode.DUPLICATE_POSITION)
    assert "differ in ConvolutionKernel" in refusal.message


def test_a_single_slice_is_too_few_and_so_are_two(tmp_path: Path) -> None:
    refusal_of(save(tmp_path, Slices(number=1).data_sets()), RefusalCode.TOO_FEW)
    refusal_of(save(tmp_path, Slices(number=2).data_sets()), RefusalCode.TOO_FEW)


def test_more_slices_than_a_volume_may_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "MAXIMUM_SLICES", 9)
    refusal_of(save(tmp_path, Slices().data_sets()), RefusalCode.TOO_MANY)


def test_sixty_frames_of_reference_are_accepted_only_where_a_deidentifier_explains_them(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    for index, data_set in enumerate(data_sets):
        data_set.FrameOfReferenceUID = f"{ROOT}.5.{index}"
    series = save(tmp_path, data_sets)
    refusal_of(series, RefusalCode.MIXED_GEOMETRY)
    assert "10 Frame of Reference UIDs" in volume_of(series, allow_many_frames_of_reference=True).warnings[0]
    for data_set in data_sets:
        data_set.PatientIdentityRemoved = "YES"
    assert "10 Frame of Reference UIDs" in volume_of(save(tmp_path, data_sets)).warnings[0]


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_an_image_that_does_not_say_where_it_lies_is_refused(tmp_path: Path, keyword: str) -> None:
    data_sets = Slices().data_sets()
    delattr(data_sets[4], keyword)
    refusal = refusal_of(save(tmp_path, data_sets), RefusalCode.MIXED_GEOMETRY)
    assert refusal.instances == (data_sets[4].SOPInstanceUID,)


def test_an_orientation_that_is_not_orthonormal_is_refused(tmp_path: Path) -> None:
    elements = {"ImageOrientationPatient": [1, 0, 0, 0.1, 1, 0]}
    refusal = refusal_of(save(tmp_path, Slices(elements=elements).data_sets()), RefusalCode.MIXED_GEOMETRY)
    assert "right angle" in refusal.message


def test_images_without_pixels_are_refused_by_name(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    del data_sets[2].PixelData
    refusal = refusal_of(save(tmp_path, data_sets), RefusalCode.NO_PIXELS)
    assert refusal.instances == (data_sets[2].SOPInstanceUID,)


def test_a_radiograph_among_slices_is_refused(tmp_path: Path) -> None:
    radiograph = image("1.2.840.10008.5.1.4.1.1.1", np.zeros((8, 8), np.uint16), f"{ROOT}.8")
    radiograph.Modality = "CR"
    refusal_of(save(tmp_path, [*Slices().data_sets(), radiograph]), RefusalCode.MIXED_GEOMETRY)


def test_two_radiographs_in_one_series_are_refused(tmp_path: Path) -> None:
    pair = [image("1.2.840.10008.5.1.4.1.1.1", np.full((8, 8), index, np.uint16), f"{ROOT}.8.{index}") for index in (1, 2)]
    refusal_of(save(tmp_path, pair), RefusalCode.TOO_MANY)
    (alone := tmp_path / "alone").mkdir()
    assert isinstance(load(save(alone, pair[:1])), Image2D)


def test_a_file_that_vanished_is_refused_as_corrupt_and_points_to_fsck(tmp_path: Path) -> None:
    series = save(tmp_path, Slices().data_sets())
    series.instances[3].path.unlink()
    refusal = refusal_of(series, RefusalCode.CORRUPT)
    assert "fsck" in refusal.message
    assert refusal.instances == (series.instances[3].sop_instance_uid,)


def test_slices_thinner_than_their_distance_are_accepted_with_a_warning(tmp_path: Path) -> None:
    volume = volume_of(save(tmp_path, Slices(step_mm=10, elements={"SliceThickness": 1}).data_sets()))
    assert volume.warnings == ("slices of 1 mm lie 10 mm apart: what is between them was not imaged, or not sent",)


def test_slices_in_palette_colours_are_refused_by_name(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    for data_set in data_sets:
        data_set.PhotometricInterpretation = "PALETTE COLOR"
        for colour in ("Red", "Green", "Blue"):
            setattr(data_set, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(data_set, f"{colour}PaletteColorLookupTableData", bytes(512))
    refusal = refusal_of(save(tmp_path, data_sets), RefusalCode.UNSUPPORTED_CLASS)
    assert "PALETTE COLOR" in refusal.message
    assert len(refusal.instances) == 10


def test_kernels_that_alternate_in_one_regular_stack_are_a_warning(tmp_path: Path) -> None:
    data_sets = Slices().data_sets()
    for data_set in data_sets:
        data_set.ConvolutionKernel = "B31f" if data_set.InstanceNumber % 2 else "B70f"
    assert volume_of(save(tmp_path, data_sets)).warnings == ("the stack mixes 2 convolution kernels",)
