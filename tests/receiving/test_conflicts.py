"""The same UID, other content: what differs decides, and pixels are compared as pixels, not as they travelled."""

import struct
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, JPEGLSLossless

from dicomnode.receiving.conflicts import judge
from dicomnode.receiving.pixels import pixel_digest, stored_header
from dicomnode.registry import ConflictKind
from dicomnode.storage import FileMeta, data_set_offset
from tests.receiving.samples import EBE, ELE, ILE, changed, ct, encoded
from tests.receiving.test_header_stream import DEFLATED, packed

JPEG_LS = str(JPEGLSLossless)


def kept(folder: Path, image: Dataset, syntax: str = ELE, *, data_set: bytes | None = None) -> Path:
    """The image as the store keeps it."""
    if data_set is None:
        data_set = packed(encoded(image)) if syntax == DEFLATED else encoded(image, syntax)
    meta = FileMeta(image.SOPClassUID, image.SOPInstanceUID, syntax, "1.2.3", "TEST", "SENDER").encoded()
    path = folder / f"{len(list(folder.iterdir()))}.dcm"
    path.write_bytes(meta + data_set)
    return path


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"InstanceCreationDate": "20260101", "RetrieveAETitle": "PACS", "StorageMediaFileSetUID": None}, None),
        ({"DerivationDescription": "lossless", "TimezoneOffsetFromUTC": None}, None),
        ({"DataSetTrailingPadding": bytes(20)}, None),
        ({"PatientID": "P-2"}, ConflictKind.HEADER),
        ({"PatientName": "Married^Ada", "OtherPatientIDs": "P-1"}, ConflictKind.HEADER),
        ({"StudyDescription": "corrected"}, ConflictKind.HEADER),
        ({"WindowCenter": 40}, ConflictKind.HEADER),
        ({"PixelData": bytes(512)}, ConflictKind.PIXELS),
        ({"PixelData": None}, ConflictKind.PIXELS),
        ({"PixelData": bytes(512), "PatientID": "P-2"}, ConflictKind.PIXELS),
        ({"ImagePositionPatient": [0, 0, 1]}, ConflictKind.GEOMETRY),
        ({"PixelSpacing": [1, 1], "PatientName": "Married^Ada"}, ConflictKind.GEOMETRY),
        ({"PhotometricInterpretation": "MONOCHROME1"}, ConflictKind.GEOMETRY),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else str(value),
)
def test_the_gravest_difference_decides(tmp_path: Path, change: dict[str, object], kind: ConflictKind | None) -> None:
    image = ct()
    other = changed(image, **{keyword: value for keyword, value in change.items() if value is not None or keyword in image})
    assert judge(kept(tmp_path, image), kept(tmp_path, other), syntaxes=(ELE, ELE)) is kind


@pytest.mark.parametrize("syntax", [ILE, DEFLATED, EBE])
def test_another_uncompressed_syntax_is_transport_and_other_pixels_in_it_are_not(tmp_path: Path, syntax: str) -> None:
    image = ct()
    image["PixelData"].VR = "OB"  # bytes have no order
    first = kept(tmp_path, image)
    assert judge(first, kept(tmp_path, image, syntax), syntaxes=(ELE, syntax)) is None
    if syntax != EBE:  # whose words have another order: equal headers must do there
        other = changed(image, PixelData=bytes(512))
        assert judge(first, kept(tmp_path, other, syntax), syntaxes=(ELE, syntax)) is ConflictKind.PIXELS


def test_corrected_demographics_in_another_syntax_are_a_header_version(tmp_path: Path) -> None:
    image = ct()
    corrected = changed(image, PatientID="P-2")
    assert (
        judge(kept(tmp_path, image, DEFLATED), kept(tmp_path, corrected, ILE), syntaxes=(DEFLATED, ILE)) is ConflictKind.HEADER
    )


def fragmented(image: Dataset, stream: bytes, at: int, *, table: bool) -> bytes:
    """The data set with its one code stream in two fragments, cut at `at`, with or without a Basic Offset Table."""
    parts = [struct.pack("<L", 0) if table else b"", stream[:at], stream[at:]]
    value = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(part)) + part for part in parts if part or part is parts[0])
    other = changed(image, PixelData=None)
    return encoded(other) + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + value + b"\xfe\xff\xdd\xe0\0\0\0\0"


def test_how_a_code_stream_is_cut_into_fragments_is_transport(tmp_path: Path, test_data: Path) -> None:
    path = next((test_data / "ct_chest_cmbcrc_01068").iterdir())
    image = dcmread(path)
    stream = get_frame(image.PixelData, 0, number_of_frames=1)
    one = kept(tmp_path, image, JPEG_LS, data_set=fragmented(image, stream, len(stream), table=False))
    two = kept(tmp_path, image, JPEG_LS, data_set=fragmented(image, stream, 1000, table=True))
    assert judge(one, two, syntaxes=(JPEG_LS, JPEG_LS)) is None
    other = bytearray(stream)
    other[-10] ^= 1
    three = kept(tmp_path, image, JPEG_LS, data_set=fragmented(image, bytes(other), 1000, table=True))
    assert judge(one, three, syntaxes=(JPEG_LS, JPEG_LS)) is ConflictKind.PIXELS
    padded = kept(tmp_path, image, JPEG_LS, data_set=fragmented(image, stream, 1000, table=True) + TRAILING_PADDING)
    assert judge(one, padded, syntaxes=(JPEG_LS, JPEG_LS)) is None


TRAILING_PADDING = b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0\0\0\0\0"  # (FFFC,FFFC)


def test_lossless_and_lossy_encodings_of_one_image(tmp_path: Path, test_data: Path) -> None:
    files = {syntax: test_data / "syntaxes" / f"{syntax}_ct_neck.dcm" for syntax in ("1.2.4.70", "1.2.4.80", "1.2.4.91")}

    def against(one: str, other: str) -> ConflictKind | None:
        syntaxes = f"1.2.840.10008.{one}", f"1.2.840.10008.{other}"
        return judge(files[one], files[other], syntaxes=syntaxes)

    assert against("1.2.4.70", "1.2.4.80") is not ConflictKind.PIXELS, "both lossless: their headers decide"
    assert against("1.2.4.80", "1.2.4.91") is ConflictKind.PIXELS
    assert against("1.2.4.80", "1.2.4.80") is None


def test_a_lying_polarity_is_geometry_although_the_pixels_agree(test_data: Path) -> None:
    first, lying = (test_data / "objects" / name for name in ("cr_chest_pa_rsna.dcm", "cr_chest_pa_rsna_labelled_mono1.dcm"))
    syntax = str(dcmread(first, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    digests = {pixel_digest(path, stored_header(path, syntax), syntax) for path in (first, lying)}
    assert len(digests) == 1
    assert judge(first, lying, syntaxes=(syntax, syntax)) is ConflictKind.GEOMETRY


@pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
def test_what_cannot_be_compared_is_not_called_the_same(tmp_path: Path, damage: str) -> None:
    image = ct()
    first, second = kept(tmp_path, image), kept(tmp_path, image)
    if damage == "gone":
        first.unlink()
    elif damage == "cut":
        first.write_bytes(first.read_bytes()[: data_set_offset(first) + 100])
    else:
        first.write_bytes(b"garbage" * 100)
    assert judge(first, second, syntaxes=(ELE, ELE)) is ConflictKind.PIXELS


def test_headers_too_long_to_compare_are_not_called_the_same(tmp_path: Path) -> None:
    """pydicom would take gigabytes for them: nothing that a peer sends may do that."""
    image = ct(PixelData=None)
    long_value = b"\x42\x00\x11\x00OB\0\0" + struct.pack("<L", 33 << 20) + bytes(33 << 20)
    files = [kept(tmp_path, image, data_set=encoded(image) + long_value) for _ in range(2)]
    assert judge(*files, syntaxes=(ELE, ELE)) is ConflictKind.PIXELS


def test_the_digest_of_an_encapsulated_value_is_that_of_its_fragments(tmp_path: Path) -> None:
    image = ct()
    image.PixelData = encapsulate([bytes(range(250)), b"x" * 7])
    image["PixelData"].is_undefined_length, image["PixelData"].VR = True, "OB"
    path = kept(tmp_path, image, JPEG_LS)
    without_table = changed(image, PixelData=encapsulate([bytes(range(250)), b"x" * 7], has_bot=False))
    without_table["PixelData"].is_undefined_length = True
    other = kept(tmp_path, without_table, JPEG_LS)
    assert UID(JPEG_LS).is_encapsulated
    digests = {pixel_digest(one, stored_header(one, JPEG_LS), JPEG_LS) for one in (path, other)}
    assert len(digests) == 1
