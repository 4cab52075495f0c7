"""The header while it comes: the same whatever the cut, in bounded memory and time, and nothing half read passes."""

import itertools
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.domain.equipment import CONTRIBUTION_DESCRIPTION, MANUFACTURER
from dicomnode.receiving.elements import MOST_ELEMENTS, MOST_SEQUENCE_BYTES
from dicomnode.receiving.header import Header, HeaderReader, Refused, scan
from dicomnode.receiving.ours import names_our_equipment
from dicomnode.storage import data_set_offset
from tests.receiving.samples import EBE, ELE, ILE, ct, encoded

DEFLATED = str(DeflatedExplicitVRLittleEndian)
SYNTAXES = (ELE, ILE, EBE, DEFLATED)
AT_MOST_INFLATED = 64 << 20


def nested(depth: int) -> Sequence:
    """A sequence of undefined length in items of undefined length."""
    item = Dataset()
    item.CodeValue, item.PatientID = "1", "not the patient's"
    for _ in range(depth):
        outer = Dataset()
        outer.ContentSequence = Sequence([item])
        outer["ContentSequence"].is_undefined_length = True
        item.is_undefined_length_sequence_item = True
        item = outer
    return Sequence([item])


def equipment(comment: str = "") -> Sequence:
    other, ours = Dataset(), Dataset()
    other.Manufacturer, other.InstitutionAddress = "Somebody", comment
    ours.Manufacturer, ours.ContributionDescription = MANUFACTURER, CONTRIBUTION_DESCRIPTION
    return Sequence([other, ours])


@lru_cache
def image(syntax: str, *, undefined_length: bool = True, pixels: bool = True) -> bytes:
    """A CT with all that makes headers hard to read: nested sequences, private and unknown elements, multi-byte text."""
    data_set = ct(SOPInstanceUID="1.2.3.4.5", StudyInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3", FrameOfReferenceUID="1.2")
    data_set.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    data_set.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    data_set.RequestAttributesSequence = nested(5)
    data_set.ContributingEquipmentSequence = equipment("x" * 700)
    for keyword in ("RequestAttributesSequence", "ContributingEquipmentSequence"):
        data_set[keyword].is_undefined_length = undefined_length
    data_set.private_block(0x0029, "TEST", create=True).add_new(1, "OB", bytes(300))
    if not pixels:
        del data_set.PixelData
    return packed(encoded(data_set, syntax)) if syntax == DEFLATED else encoded(data_set, syntax)


def packed(data_set: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data_set) + packer.flush()


def read(data_set: bytes, syntax: str, pieces: Iterator[int], turns_of: int = 1) -> Header:
    """The header of what comes in pieces of these sizes, `turns_of` of them in one turn."""
    reader = HeaderReader(syntax, at_most_inflated=AT_MOST_INFLATED)
    view, at = memoryview(data_set), 0
    while at < len(view):
        turn = []
        for size in itertools.islice(pieces, turns_of):
            turn.append(view[at : at + size])
            at += size
        if (header := reader.feed(turn)) is not None:
            return header
    return reader.finish()


@pytest.mark.parametrize("undefined_length", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_all_that_is_wanted_is_found_and_nothing_of_nested_items(syntax: str, undefined_length: bool) -> None:
    header = scan(memoryview(image(syntax, undefined_length=undefined_length)), syntax)
    assert header.attributes["PatientName"] == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert header.attributes["PatientID"] == "P-1"
    assert header.attributes["Rows"] == "16"
    assert names_our_equipment(header)
    plain = image(ELE if syntax == DEFLATED else syntax, undefined_length=undefined_length)
    assert header.pixels == (len(plain) - 512, 512)


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=30), turns_of=st.integers(1, 4), syntax=st.sampled_from(SYNTAXES)
)
@settings(max_examples=300, deadline=None)
def test_the_header_is_the_same_whatever_the_cut_into_pieces(sizes: list[int], turns_of: int, syntax: str) -> None:
    data_set = image(syntax)
    assert read(data_set, syntax, itertools.cycle(sizes), turns_of) == scan(memoryview(data_set), syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_pieces_of_one_byte_give_the_header(syntax: str) -> None:
    data_set = image(syntax)
    assert read(data_set, syntax, itertools.repeat(1)) == scan(memoryview(data_set), syntax)


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("syntax", [ELE, ILE])
def test_a_data_set_cut_anywhere_is_refused_or_its_header_lacks_nothing(syntax: str, pixels: bool) -> None:
    data_set = image(syntax, pixels=pixels)
    whole = scan(memoryview(data_set), syntax)
    for end in range(len(data_set)):
        try:
            header = scan(memoryview(data_set[:end]), syntax)
        except Refused:
            continue
        for identity in ("sop_class_uid", "sop_instance_uid", "study_instance_uid", "series_instance_uid"):
            assert getattr(header, identity) == getattr(whole, identity)
        if header.pixels:
            assert header == whole
    assert whole.pixels if pixels else whole.pixels is None


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Explicit VR Little Endian with a length of 32 bits."""
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr + b"\0\0"
    return head + (len(value) if length is None else length).to_bytes(4, "little") + value


ITEM, ITEM_END, SEQUENCE_END = (b"\xfe\xff" + tail + b"\0\0\0\0" for tail in (b"\x00\xe0", b"\x0d\xe0", b"\xdd\xe0"))
ITEM_OPEN = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
SEQUENCE_OPEN = element(0x30060039, b"SQ", b"", 0xFFFFFFFF)
CONTOUR = element(0x30060050, b"UN", b"1.25\\" * 200)
IDENTITY = encoded(ct(PixelData=None))


def peak_memory(head: bytes, again: bytes, times: int) -> int:
    """Most bytes allocated at once by reading `head` and then `again` so many times."""
    at_once = max(1, (1 << 18) // len(again))
    piece = memoryview(again * at_once)
    reader = HeaderReader(ELE, at_most_inflated=AT_MOST_INFLATED)
    tracemalloc.start()
    try:
        reader.feed([memoryview(head)])
        for _ in range(times // at_once):
            reader.feed([piece])
        reader.finish()
    except Refused:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


MB = 1 << 20


@pytest.mark.parametrize(
    ("head", "again", "times"),
    [
        (IDENTITY + SEQUENCE_OPEN, ITEM_OPEN + CONTOUR + ITEM_END, 100_000),  # an RTSTRUCT of 100 MB, undefined lengths
        (IDENTITY + element(0x30060039, b"SQ", b"", 300 * MB), bytes(MB), 299),  # a length that is true
        (IDENTITY + element(0x00420011, b"OB", b"", 0xFFFFFFF0), bytes(MB), 300),  # and one that lies
        (IDENTITY + element(0x00100010, b"PN", b"", 300 * MB), bytes(MB), 299),  # in a wanted value
        (element(0x0018A001, b"SQ", b"", 300 * MB), bytes(MB), 299),  # in the kept sequence
        (element(0x0018A001, b"SQ", b"", 0xFFFFFFFF) + ITEM_OPEN, CONTOUR, 50_000),
        (IDENTITY, element(0x0018A001, b"SQ", ITEM), 100_000),
    ],
    ids=["contours", "long", "lying", "lying name", "lying equipment", "endless equipment", "equipment again and again"],
)
def test_memory_is_bounded_whatever_the_header(head: bytes, again: bytes, times: int) -> None:
    assert peak_memory(head, again, times) < 2 * MB


@pytest.mark.parametrize("syntax", [ELE, ILE])
def test_endless_empty_elements_are_refused_at_a_number(syntax: str) -> None:
    reader = HeaderReader(syntax, at_most_inflated=AT_MOST_INFLATED)
    empty = element(0x00290010, b"LO", b"")[:8] if syntax == ELE else b"\x29\x00\x10\x00\0\0\0\0"
    piece = memoryview(empty * 100_000)
    for _ in range(MOST_ELEMENTS // 100_000 - 1):
        assert reader.feed([piece]) is None
    with pytest.raises(Refused, match=f"more than {MOST_ELEMENTS} elements"):
        reader.feed([piece, piece])


def test_endless_escape_sequences_cost_no_time() -> None:
    image = ct(SpecificCharacterSet="GB18030")
    for keyword in ("PatientID", "StudyDescription", "SeriesDescription", "InstitutionName", "ProtocolName"):
        setattr(image, keyword, "X" * 60)
    hostile = encoded(image).replace(b"LO\x3c\0" + b"X" * 60, b"LO\xfe\x0f" + b"\x1b$B" * 1364 + b"XX")
    assert len(hostile) > 4000
    reader = HeaderReader(ELE, at_most_inflated=AT_MOST_INFLATED)
    started = time.thread_time()
    header = reader.feed([memoryview(hostile)])
    assert header is not None
    assert time.thread_time() - started < 0.03, "it took 20 ms for each value"
    assert header.attributes["Rows"] == "16"


@pytest.mark.filterwarnings("ignore:The value")
def test_equipment_longer_than_what_is_kept_does_not_count_and_the_header_is_read() -> None:
    data_set = ct(ContributingEquipmentSequence=equipment("x" * (MOST_SEQUENCE_BYTES + 1)))
    for undefined in (True, False):
        data_set["ContributingEquipmentSequence"].is_undefined_length = undefined
        header = scan(memoryview(encoded(data_set)), ELE)
        assert header.contributing_equipment == b""
        assert header.attributes["Rows"] == "16"


def test_a_deflated_bomb_ends_at_its_bound_in_bounded_memory() -> None:
    bomb = packed(encoded(ct(PixelData=bytes(80 * MB))))
    tracemalloc.start()
    with pytest.raises(Refused, match="too large"):
        read(bomb, DEFLATED, itertools.repeat(1 << 16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MB


def test_bytes_behind_a_deflated_stream_are_padding_and_damage_in_it_is_refused() -> None:
    stream = packed(encoded(ct()))
    assert read(stream + b"\0", DEFLATED, itertools.repeat(7)) == scan(memoryview(stream), DEFLATED)
    damaged = stream[:40] + bytes([stream[40] ^ 0xFF]) + stream[41:]
    with pytest.raises(Refused):
        read(damaged, DEFLATED, itertools.repeat(1000))


@pytest.mark.parametrize("name", ["derived_truncated_jpegls_ct.dcm", "j2k_multiframe_too_short.dcm"])
@pytest.mark.filterwarnings("ignore:End of file")
def test_where_pydicom_gives_an_empty_data_set_the_header_is_read(test_data: Path, name: str) -> None:
    path = test_data / "broken" / name
    assert "SOPInstanceUID" not in dcmread(path), "pydicom reads it now: the trap is gone"
    header = dcmread(path, stop_before_pixels=True)
    data_set = path.read_bytes()[data_set_offset(path) :]
    got = read(data_set, str(header.file_meta.TransferSyntaxUID), itertools.repeat(333))
    assert got.sop_instance_uid == header.SOPInstanceUID
