"""Every file of the test data is sent once: it comes back from disk byte for byte, or is refused for its reason."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicomnode.domain.errors import CorruptInstance, PeerUnreachable
from dicomnode.domain.statuses import CANNOT_UNDERSTAND, SUCCESS
from dicomnode.storage import data_set_offset
from tests.peers.dcmtk import StoreScp, dcmsend
from tests.receiving.reception import Reception, context, data_set_of
from tests.receiving.samples import ILE, store_bytes

ONE_FILE_EACH = ("objects", "syntaxes", "charsets", "broken")

# What is wrong with them, in the comment of our C000.
REFUSED = {
    "syntaxes/1.2.4.81_16bit.dcm": "StudyInstanceUID is missing",
    "syntaxes/1.2.4.201_htj2k_lossless_rgb.dcm": "StudyInstanceUID is missing",
    "syntaxes/1.2.4.203_htj2k_rgb.dcm": "StudyInstanceUID is missing",
    "charsets/chrSQEncoding.dcm": "SOPClassUID is missing",
    "charsets/chrSQEncoding1.dcm": "SOPClassUID is missing",
    "broken/rtplan_truncated.dcm": "unreadable data set: an element is longer than it",
    "broken/un_sequence.dcm": "SOPClassUID is missing",
}
# Their SOP classes are refused in negotiation: no storage class, of no patient (PS3.4 GG), private and not configured, none.
NOT_NEGOTIATED = {
    "objects/DICOMDIR",
    "objects/color_palette.dcm",
    "objects/hanging_protocol.dcm",
    "broken/deflated_sq.dcm",
    "broken/nested_private_sq.dcm",
}
# No Part 10 files, or such as do not say their class or transfer syntax: nobody can send them as they are.
NOT_PART_10 = {
    "charsets/empty_charset.dcm",
    *(f"broken/{name}.dcm" for name in ("bigendian_no_meta", "explicit_no_meta", "meta_missing_tsyntax", "no_file_meta_ct")),
    *(f"broken/{name}.dcm" for name in ("no_meta_group_length", "rows_missing", "us_no_meta_length", "zero_length")),
    "broken/not_dicom.icc",
}
WITHOUT_META = {"objects/rtstruct_nometa.dcm": ILE}  # the file is the data set

# DCMTK 3.6.7 finds these too damaged to send, or does not know their transfer syntax. Some are damaged
# copies of others, under their UIDs.
NOT_SENT_BY_DCMTK = {
    *(f"syntaxes/1.2.4.{name}_rgb.dcm" for name in ("201_htj2k_lossless", "203_htj2k")),
    "syntaxes/1.2.8.1_seg_deflated_frame.dcm",
    *(f"broken/{name}.dcm" for name in ("bulk_3gb_truncated", "derived_truncated_jpegls_ct", "rtplan_truncated")),
    *(f"broken/{name}.dcm" for name in ("un_sequence", "nested_private_sq", "truncated_pixels", "j2k_multiframe_too_short")),
    *(f"charsets/{name}.dcm" for name in ("chrSQEncoding", "chrSQEncoding1")),
    "objects/nm_heart_13frames.dcm",
}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def as_part_10(path: Path) -> tuple[Dataset, str, bytes] | None:
    """Header, transfer syntax and data set; None for what is no whole Part 10 file."""
    if name_of(path) in WITHOUT_META:
        return dcmread(path, force=True), WITHOUT_META[name_of(path)], path.read_bytes()
    try:
        header, data_set = dcmread(path, stop_before_pixels=True), path.read_bytes()[data_set_offset(path) :]
        if "SOPClassUID" not in header and "MediaStorageSOPClassUID" not in header.file_meta:
            return None
        return header, str(header.file_meta.TransferSyntaxUID), data_set
    except (InvalidDicomError, CorruptInstance, AttributeError):
        return None


def answer_to(reception: Reception, header: Dataset, syntax: str, data_set: bytes) -> str:
    """ "" for Success, else the comment; bytes are sent as they are, under the data set's own UIDs."""
    meta = header.file_meta if hasattr(header, "file_meta") else Dataset()
    sop_class = header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
    instance = header.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID")
    with reception.associated(context(sop_class, syntax)) as association:
        response = store_bytes(association, sop_class, instance, data_set)
    assert response.Status in {SUCCESS, CANNOT_UNDERSTAND}
    return response.ErrorComment if response.Status else ""


def kept_data_sets(reception: Reception) -> dict[str, Path]:
    """SHA-256 of the data set → the file that keeps it, aside or not."""
    files = [*reception.files("instances"), *reception.files("quarantine")]
    return {hashlib.sha256(data_set_of(path)).hexdigest(): path for path in files}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", ONE_FILE_EACH)
def test_each_file_comes_back_byte_for_byte_or_is_refused_for_its_reason(
    test_data: Path, reception: Reception, folder: str
) -> None:
    taken, unreadable, not_negotiated, refused = {}, set(), set(), {}
    for path in sorted((test_data / folder).iterdir()):
        if (read := as_part_10(path)) is None:
            unreadable.add(name_of(path))
            continue
        try:
            comment = answer_to(reception, *read)
        except PeerUnreachable:
            not_negotiated.add(name_of(path))
            continue
        if comment:
            refused[name_of(path)] = comment
        else:
            taken[name_of(path)] = read
    assert unreadable == {name for name in NOT_PART_10 if name.startswith(folder)}
    assert not_negotiated == {name for name in NOT_NEGOTIATED if name.startswith(folder)}
    assert refused == {name: why for name, why in REFUSED.items() if name.startswith(folder)}
    kept = kept_data_sets(reception)
    for name, (_, syntax, data_set) in taken.items():
        file = kept.get(hashlib.sha256(data_set).hexdigest())
        assert file is not None, f"{name} was acknowledged and is not kept"
        assert read_file_meta_info(file).TransferSyntaxUID == syntax


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("of_each_series"), [3, pytest.param(None, marks=pytest.mark.soak)], ids=["some", "all"])
def test_each_file_that_dcmtk_sends_is_kept_as_it_came_over_the_wire(
    test_data: Path, reception: Reception, store_scp: Callable[..., StoreScp], of_each_series: int | None
) -> None:
    """DCMTK rewrites some data sets when it sends; its own storescp +B, which keeps every bit, says how they came over."""
    witness = store_scp(ae_title="DICOMNODE", extra=["+uf", "+B"])
    series = sorted({path.parent for path in test_data.glob("*_*/**/*") if path.is_file()})
    paths = [path for folder in series for path in sorted(folder.iterdir())[:of_each_series] if path.is_file()]
    paths += [path for folder in ONE_FILE_EACH for path in sorted((test_data / folder).iterdir())]
    for port in (reception.port, witness.port):
        dcmsend(port, *paths, extra=["--decompress-never"])
    sources = defaultdict(set)
    for path in paths:
        if (read := as_part_10(path)) is not None:
            sources[str(read[0].get("SOPInstanceUID"))].add(name_of(path))
    kept, came_over = kept_data_sets(reception), {}
    for path in witness.files():
        came_over[hashlib.sha256(data_set_of(path)).hexdigest()] = path
    for digest, path in came_over.items():
        names = sources[str(dcmread(path, stop_before_pixels=True).get("SOPInstanceUID"))]
        assert digest in kept or names & (REFUSED.keys() | NOT_NEGOTIATED), names
    # Kept without the witness: transfer syntaxes that storescp does not take.
    of_ours = {read_file_meta_info(path).TransferSyntaxUID[-2:] for digest, path in kept.items() if digest not in came_over}
    assert of_ours <= {"53", "55", "57"}
    sent = set().union(*(sources[str(dcmread(path, stop_before_pixels=True).get("SOPInstanceUID"))] for path in kept.values()))
    expected = {name_of(path) for path in paths} - REFUSED.keys() - NOT_NEGOTIATED - NOT_PART_10 - WITHOUT_META.keys()
    assert expected - sent == NOT_SENT_BY_DCMTK - REFUSED.keys() - NOT_NEGOTIATED - sent
