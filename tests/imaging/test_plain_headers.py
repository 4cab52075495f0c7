"""The quick walk through a header gives what pydicom's reader gives, element for element, or leaves the file to it."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomnode.imaging import part10, plain_headers
from dicomnode.imaging.headers import value_of
from dicomnode.imaging.part10 import Part10Header, read_header
from tests.imaging.writing import Slices

KINDS = ("series", "objects", "syntaxes", "charsets", "broken")


def outcome(path: Path) -> Part10Header | str:
    try:
        return read_header(path)
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def facts(found: Part10Header | str) -> Any:
    """Everything that a header says, values as they stand in the file."""
    if isinstance(found, str):
        return found
    elements = [list(one.values()) for one in (found.meta, found.data_set)]
    return elements, found.transfer_syntax_uid, found.pixel_element_offset, found.bytes_held, found.data_set._character_set


def test_every_real_file_is_read_alike_and_most_the_quick_way(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [path for kind in KINDS for path in sorted((test_data / kind).rglob("*"))[:60] if path.is_file()]
    assert len(files) > 100
    quick = [facts(outcome(path)) for path in files]
    taken: list[bool] = []
    plainly = part10.read_plain

    def listening(*arguments: Any, **more: Any) -> Dataset | None:
        found = plainly(*arguments, **more)
        taken.append(found is not None)
        return None

    monkeypatch.setattr(part10, "read_plain", listening)
    assert [facts(outcome(path)) for path in files] == quick
    assert sum(taken) > 0.8 * len(taken)


@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_and_long_values_are_stepped_over(tmp_path: Path, undefined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data_set = Slices().data_set(0)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.3", "1.2.3.4"
    data_set.ReferencedImageSequence = Sequence([item, item])
    data_set["ReferencedImageSequence"].is_undefined_length = undefined
    data_set.ImageComments = "long " * 6000
    data_set.file_meta.MediaStorageSOPClassUID, data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPClassUID, "1.2.9"
    data_set.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    quick = read_header(tmp_path / "one.dcm")
    monkeypatch.setattr(part10, "read_plain", lambda *_, **__: None)
    slow = read_header(tmp_path / "one.dcm")
    assert quick.data_set == slow.data_set
    assert quick.data_set.ReferencedImageSequence[1].ReferencedSOPInstanceUID == "1.2.3.4"
    assert (quick.pixel_element_offset, quick.bytes_held) == (slow.pixel_element_offset, slow.bytes_held)


def test_the_window_moves_over_a_long_header_and_holds_little_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    moved = plain_headers._Walk._from

    def watched(walk: plain_headers._Walk, at: int, wanted: int) -> bytes:
        found = moved(walk, at, wanted)
        held.append(len(found))
        return found

    monkeypatch.setattr(plain_headers._Walk, "_from", watched)
    data_set = Slices().data_set(0)
    data_set.add_new(0x00090010, "LO", "OWNER")
    for number in range(2000):
        data_set.add_new(0x00091000 + number, "OB", bytes([number % 256]) * (2 * (number % 97)))
    data_set.file_meta.MediaStorageSOPClassUID, data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPClassUID, "1.2.9"
    data_set.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    quick = facts(read_header(tmp_path / "one.dcm"))
    assert len(held) > 5
    assert max(held) < 1 << 16
    monkeypatch.setattr(part10, "read_plain", lambda *_, **__: None)
    assert facts(read_header(tmp_path / "one.dcm")) == quick


CHARACTER_SETS = [
    *("", "ISO_IR 13", "ISO_IR 100", "ISO_IR 166", "ISO_IR 192", "GB18030", "GBK"),
    *("\\ISO 2022 IR 87", "ISO 2022 IR 13\\ISO 2022 IR 87", "\\ISO 2022 IR 149", "\\ISO 2022 IR 58"),
]


@pytest.mark.parametrize("said", ["Thorax  1.0  B31f", " padded ", "50% ~ 3\\4", "\x1b$BCT", "Gr\xf6\xdfe", ""])
@pytest.mark.parametrize("character_set", CHARACTER_SETS)
def test_short_texts_read_as_pydicom_reads_them_in_every_character_set(tmp_path: Path, said: str, character_set: str) -> None:
    encoded = said.encode("latin-1") + b" " * (len(said) % 2)
    element = b"\x08\x00\x3e\x10LO" + len(encoded).to_bytes(2, "little") + encoded
    declared = character_set.encode() + b" " * (len(character_set) % 2)
    charset = b"\x08\x00\x05\x00CS" + len(declared).to_bytes(2, "little") + declared
    syntax = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    path = tmp_path / "one.dcm"
    path.write_bytes(bytes(128) + b"DICM" + syntax + charset + element)
    ours = value_of(read_header(path).data_set, "SeriesDescription")
    assert ours == dcmread(path).get("SeriesDescription")


def test_texts_of_real_files_read_as_pydicom_reads_them(test_data: Path) -> None:
    seen = 0
    for path in sorted((test_data / "charsets").iterdir()):
        found = outcome(path)
        if isinstance(found, str):
            continue
        for keyword in ("SeriesDescription", "StudyDescription", "InstitutionName", "PatientID", "Manufacturer"):
            assert value_of(found.data_set, keyword) == dcmread(path, stop_before_pixels=True).get(keyword)
            seen += keyword in found.data_set
    assert seen > 5
