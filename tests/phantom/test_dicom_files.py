"""What the written files promise: valid CT, coherent geometry, marked as a phantom's."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from dicomnode.domain.uids import PHANTOM_MARK, has_mark
from dicomnode.phantom import (
    PatientText,
    Phantom,
    ThoraxSpec,
    phantom_uid,
    small_thorax,
    thorax,
    write_coronal_reformat,
    write_localizer,
    write_study,
)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return small_thorax(3)


def test_dciodvfy_finds_no_error_in_any_kind_of_file(phantom: Phantom, tmp_path: Path) -> None:
    axial = write_study(phantom, tmp_path, series_number=1)
    files = [axial[0], axial[-1], write_localizer(phantom, tmp_path), *write_coronal_reformat(phantom, tmp_path, step=60)]
    files.append(write_study(phantom, tmp_path / "rle", series_number=2, compress=RLELossless)[0])
    for path in files:
        said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stdout + said.stderr


def test_pixels_and_positions_read_back_are_the_phantoms(phantom: Phantom, tmp_path: Path) -> None:
    paths = write_study(phantom, tmp_path)
    assert len(paths) == len(phantom.hu)
    for number, path in enumerate(paths, start=1):
        header = dcmread(path)
        index = len(phantom.hu) - number
        assert header.InstanceNumber == number
        assert np.array_equal(header.pixel_array.astype(int) + int(header.RescaleIntercept), phantom.hu[index])
        assert [float(v) for v in header.ImagePositionPatient] == pytest.approx(list(phantom.affine[:3] @ (index, 0, 0, 1)))


def test_a_prone_series_shows_the_same_points_of_the_patient(phantom: Phantom, tmp_path: Path) -> None:
    header = dcmread(write_study(phantom, tmp_path, orientation="prone")[0])
    rows, columns = phantom.hu.shape[1:]
    position = np.array(header.ImagePositionPatient, float)
    row_direction, column_direction = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    place = (
        position + 10 * row_direction * float(header.PixelSpacing[1]) + 20 * column_direction * float(header.PixelSpacing[0])
    )
    expected = phantom.affine @ (len(phantom.hu) - 1, rows - 1 - 20, columns - 1 - 10, 1)
    assert place == pytest.approx(expected[:3])
    assert int(header.pixel_array[20, 10]) - 1024 == phantom.hu[-1, rows - 1 - 20, columns - 1 - 10]


def test_padding_below_minus_1024_survives_the_file(tmp_path: Path) -> None:
    spec = ThoraxSpec(seed=1, slices=8, size=64, slice_spacing_mm=9, pixel_spacing_mm=6, outside_circle_hu=-3024, nodules=())
    header = dcmread(write_study(thorax(spec), tmp_path)[0])
    assert int(header.pixel_array.min()) - 1024 == -3024


def test_series_of_one_phantom_share_study_and_frame_of_reference_and_nothing_else(phantom: Phantom, tmp_path: Path) -> None:
    one = dcmread(write_study(phantom, tmp_path, series_number=1)[0])
    two = dcmread(write_study(phantom, tmp_path, series_number=2)[0])
    scout = dcmread(write_localizer(phantom, tmp_path))
    assert one.StudyInstanceUID == two.StudyInstanceUID == scout.StudyInstanceUID
    assert one.FrameOfReferenceUID == two.FrameOfReferenceUID == scout.FrameOfReferenceUID
    assert len({one.SeriesInstanceUID, two.SeriesInstanceUID, scout.SeriesInstanceUID}) == 3
    assert len({one.SOPInstanceUID, two.SOPInstanceUID, scout.SOPInstanceUID}) == 3


def test_uids_follow_from_the_phantom_and_carry_its_mark(phantom: Phantom, tmp_path: Path) -> None:
    first = dcmread(write_study(phantom, tmp_path / "a")[0])
    again = dcmread(write_study(phantom, tmp_path / "b")[0])
    assert first.SOPInstanceUID == again.SOPInstanceUID
    for uid in (first.SOPInstanceUID, first.StudyInstanceUID, first.FrameOfReferenceUID):
        assert has_mark(uid, PHANTOM_MARK)
        assert not has_mark(uid)
        assert len(uid) <= 64
    assert phantom_uid("a") != phantom_uid("b")
    assert "phantom" in first.Manufacturer


def test_the_patients_text_is_plainly_synthetic_and_may_be_given(phantom: Phantom, tmp_path: Path) -> None:
    plain = dcmread(write_study(phantom, tmp_path / "a")[0])
    assert (str(plain.PatientName), plain.PatientID) == ("PHANTOM^THORAX", "PHANTOM-3")
    given = PatientText(patient_name="Müller^Änne", patient_id="X1", extra={"InstitutionName": "Test"})
    named = dcmread(write_study(phantom, tmp_path / "b", patient=given)[0])
    assert (str(named.PatientName), named.PatientID, named.InstitutionName) == ("Müller^Änne", "X1", "Test")


def test_localizer_and_reformat_say_what_they_are(phantom: Phantom, tmp_path: Path) -> None:
    scout = dcmread(write_localizer(phantom, tmp_path))
    assert list(scout.ImageType) == ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    assert [float(v) for v in scout.ImageOrientationPatient] == [1, 0, 0, 0, 0, -1]
    reformats = [dcmread(path) for path in write_coronal_reformat(phantom, tmp_path, step=32)]
    assert all(list(image.ImageType) == ["DERIVED", "SECONDARY", "REFORMATTED"] for image in reformats)
    middle = reformats[2]
    assert middle.ImagePositionPatient[1] == pytest.approx((phantom.affine @ (0, 64, 0, 1))[1])
    assert middle.Rows == round(24 * 9 / 3)
