"""`scan`: every file is in a series or left out with a reason; nothing in a file makes it raise."""

import os
from pathlib import Path

import pytest

from dicomnode.domain.imaging import Image2D, Refusal, Volume
from dicomnode.imaging import load, scan
from tests.imaging.writing import Slices, save


def reasons(path: Path) -> dict[str, str]:
    return {file.name: why for file, why in scan([path]).ignored}


@pytest.mark.parametrize("kind", ["broken", "objects", "syntaxes", "charsets"])
def test_every_file_is_in_a_series_or_left_out_with_a_reason_and_every_series_ends_in_a_value(
    test_data: Path, kind: str, recwarn: pytest.WarningsRecorder
) -> None:
    files = sorted(path for path in (test_data / kind).iterdir() if path.is_file())
    found = scan([test_data / kind])
    listed = [instance.path for series in found.series for instance in series.instances] + [path for path, _ in found.ignored]
    assert sorted(listed) == files
    assert all(why for _, why in found.ignored)
    for path in files:
        for series in scan([path]).series:
            outcome = load(series)
            assert isinstance(outcome, Volume | Image2D | Refusal)
            if kind == "broken":
                assert isinstance(outcome, Refusal), path
                assert outcome.message
                assert outcome.remedy
    assert not recwarn.list  # pydicom's warnings quote header values


def test_the_reasons_are_words(test_data: Path) -> None:
    objects, broken = reasons(test_data / "objects"), reasons(test_data / "broken")
    assert objects["DICOMDIR"] == "a DICOMDIR, the directory of a medium"
    assert objects["sr_tid1500_pet.dcm"] == "not an image: Comprehensive SR Storage"
    assert objects["doc_encapsulated_pdf.dcm"] == "not an image: Encapsulated PDF Storage"
    assert broken["not_dicom.icc"] == broken["zero_length.dcm"] == "not a DICOM file (no DICM prefix)"
    assert broken["meta_missing_tsyntax.dcm"] == "the file meta information has no Transfer Syntax UID (0002,0010)"
    assert "no SOP Class" in broken["rows_missing.dcm"]


def test_folders_are_searched_to_their_depth_and_files_may_be_named(test_data: Path) -> None:
    found = scan([test_data / "ct_liver_3slice_with_seg", test_data / "pt_sts002_with_rtstruct"])
    assert sorted(len(series.instances) for series in found.series) == [1, 3, 48]
    assert [(path.name, why) for path, why in found.ignored] == [("RS.dcm", "not an image: RT Structure Set Storage")]


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    (entry,) = scan([tmp_path / "nowhere"]).ignored
    assert entry == (tmp_path / "nowhere", "cannot be opened (No such file or directory)")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert reasons(tmp_path) == {"pipe": "not a regular file"}


def test_series_of_one_folder_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    save(tmp_path, Slices(number=3).data_sets())
    other = Slices(number=4, seed=8, elements={"SeriesInstanceUID": "1.2.3.4"}).data_sets()
    save(tmp_path / "deep" / "deeper", other)
    assert [len(series.instances) for series in scan([tmp_path]).series] == [3, 4]


def test_blanks_around_a_transfer_syntax_are_no_part_of_it(tmp_path: Path) -> None:
    series = save(tmp_path, Slices(10).data_sets())
    for instance in series.instances:
        content = instance.path.read_bytes()
        plain = b"1.2.840.10008.1.2.1\0"
        at = content.index(plain, 132)
        instance.path.write_bytes(content[:at] + b" 1.2.840.10008.1.2.1" + content[at + len(plain) :])
    (found,) = scan([tmp_path]).series
    assert isinstance(load(found), Volume)
