"""Real senders, real objects: what arrives is kept byte for byte."""

from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.network import echo
from tests.peers.dcmtk import echoscu, storescu
from tests.receiving.reception import Reception, data_set_of, local_peer
from tests.receiving.samples import ct, saved

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def test_c_echo_is_answered(reception: Reception) -> None:
    assert echoscu(reception.port).ok
    assert echo(local_peer(reception.port), "ANYBODY") < 5


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
