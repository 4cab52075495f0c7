"""Real senders, real objects: what arrives is kept byte for byte."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from dicomnode.domain.statuses import CANNOT_UNDERSTAND, SUCCESS
from dicomnode.network import echo
from tests.peers.dcmtk import StoreScp, dcmsend, echoscu, storescu
from tests.receiving.reception import Reception, data_set_of, local_peer
from tests.receiving.samples import ct, saved

NOT_TAKEN_BY_STORESCP = {f"1.2.840.10008.1.2.4.{process}" for process in (53, 55, 57)}
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def test_c_echo_is_answered(reception: Reception) -> None:
    assert echoscu(reception.port).ok
    assert echo(local_peer(reception.port), "ANYBODY") < 5


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("of_each_series", "kept_at_least"), [(5, 160), pytest.param(None, 490, marks=pytest.mark.soak)], ids=["some", "all"]
)
def test_test_data_sent_with_dcmtk_are_kept_as_they_came_over_the_wire(
    test_data: Path,
    reception: Reception,
    store_scp: Callable[..., StoreScp],
    of_each_series: int | None,
    kept_at_least: int,
) -> None:
    """DCMTK rewrites some data sets when it sends; its own storescp +B, which keeps every bit, says how they came over."""
    witness = store_scp(ae_title="DICOMNODE", extra=["+uf", "+B"])
    series = sorted({path.parent for path in test_data.glob("*_*/**/*") if path.is_file()})
    paths = [path for folder in series for path in sorted(folder.iterdir())[:of_each_series] if path.is_file()]
    paths += [test_data / name for name in ("objects", "syntaxes", "charsets", "broken")]
    sent = dcmsend(reception.port, *paths, extra=["--decompress-never"])
    dcmsend(witness.port, *paths, extra=["--decompress-never"])

    came_over = {hashlib.sha256(data_set_of(path)).hexdigest() for path in witness.files()}
    kept = [*reception.files("instances"), *reception.files("quarantine")]
    assert len(kept) >= kept_at_least, sent.output[-3000:]
    for path in kept:
        if hashlib.sha256(data_set_of(path)).hexdigest() not in came_over:
            assert read_file_meta_info(path).TransferSyntaxUID in NOT_TAKEN_BY_STORESCP
    for path, _, sha256 in reception.registry.known_files():
        assert hashlib.sha256(data_set_of(reception.store.absolute(path))).hexdigest() == sha256


def test_every_transfer_syntax_is_kept_byte_for_byte(test_data: Path, reception: Reception) -> None:
    kept_syntaxes = set()
    for path in sorted((test_data / "syntaxes").glob("*.dcm")):
        header = dcmread(path, stop_before_pixels=True)
        if "StudyInstanceUID" not in header:
            assert reception.send(path) == [CANNOT_UNDERSTAND]
            continue
        assert reception.send(path) == [SUCCESS]
        # Some of them are one image in several syntaxes: what is not the first is kept aside.
        files = [*reception.files("instances"), *reception.files("quarantine")]
        newest = max(files, key=lambda file: file.stat().st_mtime_ns)
        assert data_set_of(newest) == data_set_of(path), path.name
        assert read_file_meta_info(newest).TransferSyntaxUID == header.file_meta.TransferSyntaxUID
        kept_syntaxes.add(header.file_meta.TransferSyntaxUID)
    assert len(kept_syntaxes) >= 16, sorted(UID(syntax).name for syntax in kept_syntaxes)


@pytest.mark.parametrize(("option", "syntax"), [("-xi", IMPLICIT), ("-xe", EXPLICIT), ("-xd", "1.2.840.10008.1.2.1.99")])
def test_storescu_chooses_the_transfer_syntax(test_data: Path, reception: Reception, option: str, syntax: str) -> None:
    path = test_data / "syntaxes" / "1.2.1_mr_small.dcm"
    original = dcmread(path)
    result = storescu(reception.port, path, extra=[option])
    assert result.ok, result.output
    known = reception.known(original.SOPInstanceUID)
    stored = dcmread(reception.store.absolute(known.path))
    assert known.transfer_syntax_uid == syntax
    assert stored.PatientName == original.PatientName
    assert known.attributes["Rows"] == "64"
    assert known.attributes["PixelSpacing"] == "\\".join(str(value) for value in original.PixelSpacing)


def test_the_stored_file_is_a_part_10_file_with_our_meta_information(tmp_path: Path, reception: Reception) -> None:
    image = ct()
    assert reception.send(saved(image, tmp_path), calling="CT_SCANNER") == [0]
    path = reception.store.absolute(reception.known(image.SOPInstanceUID).path)
    stored = dcmread(path)
    assert stored.preamble == b"\0" * 128
    assert stored.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    assert stored.file_meta.ImplementationVersionName == "DICOMNODE_0_1"
    assert stored.file_meta.SourceApplicationEntityTitle == "CT_SCANNER"
    assert stored == image


def test_paths_hold_nothing_of_the_patient_and_no_uid(tmp_path: Path, reception: Reception) -> None:
    image = ct(PatientName="Findme^Marker", PatientID="MARKER-7")
    reception.send(saved(image, tmp_path))
    path = str(reception.known(image.SOPInstanceUID).path)
    for secret in ("Findme", "MARKER", image.SOPInstanceUID, image.StudyInstanceUID, "20260102"):
        assert secret not in path


def test_several_senders_at_once_lose_nothing(tmp_path: Path, reception: Reception) -> None:
    import threading

    images = [[ct() for _ in range(10)] for _ in range(8)]
    paths = [[saved(image, tmp_path) for image in group] for group in images]
    statuses: list[int | None] = []
    threads = [threading.Thread(target=lambda group=group: statuses.extend(reception.send(*group))) for group in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 80
    for group, files in zip(images, paths, strict=True):
        for image, path in zip(group, files, strict=True):
            assert reception.kept_data_set(image.SOPInstanceUID) == data_set_of(path)
