"""The header scan: agrees with pydicom on real objects, decodes every character set, never crashes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from dicomnode.domain.errors import InvalidInstance
from dicomnode.domain.received import INDEXED_KEYWORDS
from dicomnode.receiving.elements import ElementReader, Encoding, Unscannable, Wanted
from dicomnode.receiving.header import scan
from dicomnode.storage import data_set_offset
from tests.receiving.samples import ELE, ILE, ct, encoded

IMAGE = encoded(ct())


def text_of(value: object) -> str:
    values = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
    return "\\".join("" if one is None else str(one).strip() for one in values).rstrip("\\")


def sendable(folder: Path) -> list[tuple[Path, Dataset]]:
    """Part 10 files with all identifying UIDs, as pydicom reads their headers."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            data_set_offset(path)
            header = dcmread(path, stop_before_pixels=True)
        except Exception:  # noqa: BLE001, S112 - broken on purpose
            continue
        if all(keyword in header for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID")):
            found.append((path, header))
    return found


@pytest.mark.filterwarnings("ignore")
def test_the_scan_agrees_with_pydicom_on_all_real_objects(test_data: Path) -> None:
    compared = 0
    for path, header in sendable(test_data):
        syntax = str(header.file_meta.TransferSyntaxUID)
        data_set = memoryview(path.read_bytes())[data_set_offset(path) :]
        try:
            scanned = scan(data_set, syntax)
        except InvalidInstance:
            assert path.parent.name == "broken", path
            continue
        assert scanned.sop_instance_uid == str(header.SOPInstanceUID).strip()
        assert scanned.series_instance_uid == str(header.SeriesInstanceUID).strip()
        for keyword in INDEXED_KEYWORDS:
            expected = text_of(header[keyword].value) if keyword in header else ""
            got = scanned.attributes.get(keyword, "")
            if "\n" not in expected and keyword != "SpecificCharacterSet":
                same_number = _number(got) == _number(expected) is not None
                assert got == expected or same_number or not got.isprintable(), (path.name, keyword, got, expected)
                compared += bool(expected)
    assert compared > 5000


def _number(text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.split("\\")]
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("chrArab.dcm", "قباني^لنزار"),
        ("chrFren.dcm", "Buc^Jérôme"),
        ("chrGerm.dcm", "Äneas^Rüdiger"),
        ("chrGreek.dcm", "Διονυσιος"),
        ("chrH31.dcm", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("chrH32.dcm", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("chrHbrw.dcm", "שרון^דבורה"),
        ("chrI2.dcm", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("chrRuss.dcm", "Люкceмбypг"),
        ("chrX1.dcm", "Wang^XiaoDong=王^小東"),
        ("chrX2.dcm", "Wang^XiaoDong=王^小东"),
        ("lena-tis-620.dcm", "Test-๛"),
        ("lena-utf8.dcm", "Test-éüäöòДΘĝדصķћ๛ﾈİ"),
        ("sr_latin2.dcm", "Testowy^Teste"),
    ],
)
def test_names_are_decoded_with_their_character_set(test_data: Path, name: str, patient: str) -> None:
    path = test_data / "charsets" / name
    header = dcmread(path, stop_before_pixels=True)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if keyword not in header:
            pytest.fail(f"{name} has no {keyword}")
    data_set = memoryview(path.read_bytes())[data_set_offset(path) :]
    assert scan(data_set, str(header.file_meta.TransferSyntaxUID)).attributes["PatientName"] == patient


@pytest.mark.parametrize("term", [b"ISO_IR 192", b"ISO 2022 IR 87", b"NONSENSE", b"\\ISO 2022 IR 149", b"\xff\xfe"])
@pytest.mark.filterwarnings("ignore")
def test_bad_bytes_and_unknown_character_sets_give_text_and_no_crash(term: bytes) -> None:
    image = ct()
    image.SpecificCharacterSet = "ISO_IR 100"
    image.PatientName = "Somebody^Named"
    term += b" " * (len(term) % 2)
    data_set = encoded(image).replace(b"CS\x0a\x00ISO_IR 100", b"CS" + len(term).to_bytes(2, "little") + term)
    data_set = data_set.replace(b"Somebody^Named", b"\xff\xfe\x1b$)C\x00\x07Name^X")
    scanned = scan(memoryview(data_set), ELE)
    assert "Name^X" in scanned.attributes["PatientName"]
    assert all(character.isprintable() or character in "\r\n\t\ufffd\xa0" for character in scanned.attributes["PatientName"])


def test_a_truncated_encapsulated_image_that_pydicom_reads_as_empty_still_has_its_header(test_data: Path) -> None:
    path = test_data / "broken" / "derived_truncated_jpegls_ct.dcm"
    with pytest.warns(UserWarning, match="End of file"):
        assert len(dcmread(path)) == 0, "pydicom reads it now: the trap is gone"
    data_set = memoryview(path.read_bytes())[data_set_offset(path) :]
    scanned = scan(data_set, "1.2.840.10008.1.2.4.80")
    assert scanned.attributes["Modality"] == "CT"
    assert scanned.pixels is not None
    start, length = scanned.pixels
    assert length is None, "encapsulated"
    assert data_set[start : start + 4] == b"\xfe\xff\x00\xe0"


def test_nested_sequences_of_undefined_length_are_stepped_over() -> None:
    image = ct()
    innermost: Dataset = Dataset()
    innermost.CodeValue = "1"
    for _ in range(8):
        outer = Dataset()
        outer.ContentSequence = Sequence([innermost])
        outer["ContentSequence"].is_undefined_length = True
        innermost.is_undefined_length_sequence_item = True
        innermost = outer
    image.RequestAttributesSequence = Sequence([innermost])
    image["RequestAttributesSequence"].is_undefined_length = True
    for syntax in (ELE, ILE):
        assert scan(memoryview(encoded(image, syntax)), syntax).attributes["Rows"] == "16"


def test_sequences_nested_too_deep_are_refused() -> None:
    bomb = (b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    with pytest.raises(InvalidInstance):
        scan(memoryview(bomb), ELE)


@given(position=st.integers(0, len(IMAGE) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(IMAGE)))
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_damaged_headers_are_scanned_or_refused(position: int, byte: int, cut: int) -> None:
    damaged = bytearray(IMAGE[:cut])
    if position < cut:
        damaged[position] = byte
    for syntax in (ELE, ILE, "1.2.840.10008.1.2.2"):
        try:
            assert scan(memoryview(bytes(damaged)), syntax).sop_instance_uid
        except InvalidInstance:
            continue


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
@pytest.mark.parametrize("encoding", [Encoding(True, True), Encoding(False, True), Encoding(True, False)])
def test_random_bytes_are_read_to_their_end_or_refused(encoding: Encoding, data: bytes) -> None:
    reader = ElementReader(encoding, Wanted(frozenset({0x00100010}), 0x0018A001, frozenset({0x7FE00010})))
    try:
        if reader.feed(memoryview(data)):
            assert reader.end is not None
            assert 8 <= reader.end[0] <= len(data)
        else:
            reader.finish()
    except Unscannable:
        pass


def test_every_indexed_keyword_is_a_real_one() -> None:
    assert UID(ELE).is_transfer_syntax
    assert len(set(INDEXED_KEYWORDS)) == len(INDEXED_KEYWORDS)
