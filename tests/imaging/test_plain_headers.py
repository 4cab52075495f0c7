"""The quick walk through a header gives what pydicom's reader gives, element for element, or leaves the file to it."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomnode.imaging import part10, plain_headers
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
