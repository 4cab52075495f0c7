"""C-MOVE and C-GET (PS3.4 C.4.2, C.4.3): what was received goes out byte for byte."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomnode.archive import ArchiveLimits
from dicomnode.domain.routes import Peer
from tests.archive.holding import MOVE, Holding, by_uid, getscu, identifier, movescu
from tests.archive.speaking import Asker, cancel, key, request
from tests.peers.dcmtk import StoreScp
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.waiting import free_port
from tests.receiving.raw import element
from tests.receiving.reception import context, data_set_of, local_peer
from tests.receiving.samples import CT, ELE, ILE, changed, ct, saved, store_bytes

VIEWER = Peer("viewer", "VIEWER", "127.0.0.1", 104, frozenset({"query", "retrieve"}))
MODALITY = local_peer(ae_title="MODALITY", name="modality")


def peer_of(scp: StoreScp | Orthanc, name: str = "archive") -> Peer:
    port = scp.dicom_port if isinstance(scp, Orthanc) else scp.port
    return Peer(name, scp.ae_title, "127.0.0.1", port, frozenset({"query", "retrieve"}))


def a_study(study: str = "1.2.1", images: int = 2, **attributes: Any) -> list[Dataset]:
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", **attributes}
    return [changed(ct(), SOPInstanceUID=f"{study}.1.{number}", **uids) for number in range(1, images + 1)]


def test_getscu_gets_a_study_back_byte_for_byte(holding: Holding, tmp_path: Path) -> None:
    holding.take(*a_study("1.2.1"), *a_study("1.2.2"))
    got = getscu(holding, tmp_path / "out", "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.1")
    assert got == {uid: holding.reception.kept_data_set(uid) for uid in ("1.2.1.1.1", "1.2.1.1.2")}


def test_orthanc_finds_a_study_here_and_has_it_sent_to_itself(
    make_holding: Callable[..., Holding], orthanc: Callable[..., Orthanc]
) -> None:
    viewer = orthanc("viewer", ae_title="ORTHANC")
    holding = make_holding(peers=[MODALITY, peer_of(viewer)])
    images = a_study(images=3, PatientName="Doe^John")
    holding.take(*images, *a_study("1.2.2"))
    viewer.add_modality("node", Modality("DICOMNODE", holding.port))
    asked = viewer.rest(
        "/modalities/node/query", {"Level": "Study", "Query": {"PatientName": "doe*", "ModalitiesInStudy": "CT"}}
    )
    (answer,) = viewer.rest(f"/queries/{asked['ID']}/answers")
    told = viewer.rest(f"/queries/{asked['ID']}/answers/{answer}/content?simplify")
    assert (told["StudyInstanceUID"], told["PatientName"]) == ("1.2.1", "Doe^John")
    viewer.rest(f"/queries/{asked['ID']}/answers/{answer}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
    assert [one.sop_instance_uid for one in viewer.instances()] == [str(image.SOPInstanceUID) for image in images]
    for one, image in zip(viewer.instances(), images, strict=True):
        there = viewer.dataset(one)
        assert {element.tag: element.value for element in there} == {element.tag: element.value for element in image}


def test_every_real_transfer_syntax_leaves_as_it_came_or_is_named(
    make_holding: Callable[..., Holding], store_scp: Callable[..., StoreScp], test_data: Path
) -> None:
    archive = store_scp(extra=["+B"])
    holding = make_holding(peers=[MODALITY, VIEWER, peer_of(archive)])
    kept: dict[str, bytes] = {}
    studies: set[str] = set()
    for path in sorted((test_data / "syntaxes").glob("*.dcm")):
        header = dcmread(path, stop_before_pixels=True)
        uid = str(header.SOPInstanceUID)
        if uid in kept or not header.get("StudyInstanceUID") or not header.get("SeriesInstanceUID"):
            continue  # the same slice in another syntax, or nothing that can be kept
        with holding.reception.associated(context(header.SOPClassUID, header.file_meta.TransferSyntaxUID)) as association:
            assert store_bytes(association, header.SOPClassUID, uid, data_set_of(path)).Status == 0, path.name
        kept[uid] = data_set_of(path)
        studies.add(str(header.StudyInstanceUID))
    assert len(kept) > 10
    final = holding.moved(archive.ae_title, identifier("STUDY", StudyInstanceUID=sorted(studies)))
    got = by_uid(archive.received)
    assert {uid: data_set for uid, data_set in kept.items() if uid in got} == got
    assert sorted(kept.keys() - got.keys()) == final.failed_uids
    syntaxes = {holding.reception.known(uid).transfer_syntax_uid for uid in final.failed_uids}
    # DCMTK 3.6.7 knows neither some retired JPEG nor deflated frames, and ends the association over a deflated data set,
    # which is of odd length here.
    not_known = {"1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.8.1"}
    assert syntaxes == {"1.2.840.10008.1.2.1.99"} | not_known
    assert (final.status, final.completed, final.failed) == (0xB000, len(got), len(final.failed_uids))


def test_who_takes_only_uncompressed_ones_gets_those_and_hears_of_the_others(
    make_holding: Callable[..., Holding], store_scp: Callable[..., StoreScp], test_data: Path
) -> None:
    archive = store_scp(accepted_sop_classes=[CT])
    holding = make_holding(peers=[MODALITY, VIEWER, peer_of(archive)])
    compressed = test_data / "syntaxes" / "1.2.4.80_ct_neck.dcm"
    one = dcmread(compressed, stop_before_pixels=True)
    implicit = saved(ct(StudyInstanceUID=one.StudyInstanceUID, PatientID=one.PatientID, PatientName=one.PatientName,
                        PatientBirthDate=one.get("PatientBirthDate", "")), holding.folder, ILE)  # fmt: skip
    assert holding.reception.send(compressed, implicit) == [0, 0]
    final = holding.moved(archive.ae_title, identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID))
    assert (final.status, final.completed, final.failed) == (0xB000, 1, 1)
    assert final.failed_uids == [str(one.SOPInstanceUID)]
    (there,) = archive.files()
    sent, stored = dcmread(there), dcmread(implicit)
    assert [(element.tag, element.value) for element in sent] == [(element.tag, element.value) for element in stored]


def test_a_c_get_gives_compressed_images_as_they_are_and_converts_only_what_is_not(
    holding: Holding, test_data: Path, tmp_path: Path
) -> None:
    compressed = test_data / "syntaxes" / "1.2.4.80_ct_neck.dcm"
    one = dcmread(compressed, stop_before_pixels=True)
    implicit = ct(PatientID="implicit")
    assert holding.reception.send(compressed, saved(implicit, tmp_path, ILE)) == [0, 0]
    got, final = holding.got(
        identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID), [(CT, one.file_meta.TransferSyntaxUID)]
    )
    assert final.status == 0x0000
    assert got == {str(one.SOPInstanceUID): data_set_of(compressed)}
    wanted = identifier("IMAGE", StudyInstanceUID=implicit.StudyInstanceUID, SeriesInstanceUID=implicit.SeriesInstanceUID,
                        SOPInstanceUID=[implicit.SOPInstanceUID])  # fmt: skip
    got, final = holding.got(wanted, [(CT, ELE)])
    (data_set,) = got.values()
    assert (final.status, data_set) == (0x0000, data_set_of(saved(implicit, tmp_path, ELE)))
    several = (ELE, "1.2.840.10008.1.2.4.70", str(one.file_meta.TransferSyntaxUID))
    got, final = holding.got(identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID), [(CT, several)])
    assert (final.status, got) == (0x0000, {str(one.SOPInstanceUID): data_set_of(compressed)}), "of several what is here"
    _, final = holding.got(identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID), [(CT, ELE)])
    assert (final.status, final.failed, final.failed_uids) == (0xA702, 1, [str(one.SOPInstanceUID)])


@pytest.mark.parametrize(
    ("level", "keys", "status", "found"),
    [
        ("STUDY", {"StudyInstanceUID": ["1.2.1", "1.2.2"]}, 0x0000, 3),
        ("STUDY", {"StudyInstanceUID": "9.9"}, 0x0000, 0),
        ("SERIES", {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1"}, 0x0000, 2),
        ("SERIES", {"StudyInstanceUID": "1.2.2", "SeriesInstanceUID": "1.2.1.1"}, 0x0000, 0),
        ("IMAGE", {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1", "SOPInstanceUID": "1.2.1.1.2"}, 0x0000, 1),
        ("STUDY", {}, 0xA900, 0),
        ("STUDY", {"StudyInstanceUID": "*"}, 0xA900, 0),
        ("SERIES", {"SeriesInstanceUID": "1.2.1.1"}, 0xA900, 0),
        ("SERIES", {"StudyInstanceUID": "1.2.1"}, 0xA900, 0),
        ("PATIENT", {"PatientID": "P-1"}, 0xA900, 0),
    ],
)
def test_unique_keys_say_what_is_retrieved(two: Holding, level: str, keys: dict[str, Any], status: int, found: int) -> None:
    got, final = two.got(identifier(level, **keys), [(CT, ELE)])
    assert (final.status, len(got), final.completed) == (status, found, found if status == 0 else None)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    one = Holding(tmp_path_factory.mktemp("two"))
    one.take(*a_study("1.2.1", 2), *a_study("1.2.2", 1))
    yield one
    one.stop()


def test_a_patient_is_retrieved_whole(two: Holding) -> None:
    got, final = two.got(identifier("PATIENT", PatientID="P-1"), [(CT, ELE)], model="patient")
    assert (final.status, len(got)) == (0x0000, 3)
    got, final = two.got(identifier("STUDY", PatientID="P-2", StudyInstanceUID="1.2.1"), [(CT, ELE)], model="patient")
    assert (final.status, len(got)) == (0x0000, 0)


def test_only_peers_of_the_settings_are_sent_to(
    make_holding: Callable[..., Holding], store_scp: Callable[..., StoreScp]
) -> None:
    stranger, twin = store_scp("stranger"), store_scp("twin", ae_title="TWIN")
    peers = [MODALITY, VIEWER, peer_of(twin, "one"), peer_of(twin, "other")]
    holding = make_holding(peers=peers)
    holding.take(*a_study())
    wanted = identifier("STUDY", StudyInstanceUID="1.2.1")
    assert [holding.moved(title, wanted).status for title in (stranger.ae_title, "TWIN")] == [0xA801] * 2
    assert not stranger.files()
    assert not twin.files()


def test_a_destination_that_is_dead_or_hangs_costs_a_bounded_time(
    make_holding: Callable[..., Holding], store_scp: Callable[..., StoreScp]
) -> None:
    frozen = store_scp("frozen", ae_title="FROZEN")
    closed = Peer("closed", "CLOSED", "127.0.0.1", free_port(), frozenset())
    holding = make_holding(peers=[MODALITY, VIEWER, peer_of(frozen, "frozen"), closed])
    holding.take(*a_study())
    wanted = identifier("STUDY", StudyInstanceUID="1.2.1")
    for title, most_s in (("CLOSED", 15), ("FROZEN", 25)):
        frozen.freeze()
        began = time.monotonic()
        final = holding.moved(title, wanted)
        assert (final.status, final.completed, final.failed) == (0xA702, 0, 2)
        assert sorted(final.failed_uids) == ["1.2.1.1.1", "1.2.1.1.2"]
        assert time.monotonic() - began < most_s


def test_a_c_move_is_cancelled_while_its_destination_hangs(
    make_holding: Callable[..., Holding], store_scp: Callable[..., StoreScp]
) -> None:
    frozen = store_scp("frozen", ae_title="FROZEN")
    raw = Peer("raw", "RAW", "127.0.0.1", 104, frozenset({"retrieve"}))
    holding = make_holding(peers=[MODALITY, raw, peer_of(frozen, "frozen")])
    holding.take(*a_study())
    frozen.freeze()
    with Asker(holding.port, [(MOVE, (ELE,))]) as asker:
        head = request(0x0021, element(0x0600, b"FROZEN  "), model=MOVE)
        wanted = key(0x00080052, "CS", "STUDY") + key(0x0020000D, "UI", "1.2.1\0")
        asker.ask(wanted, head=head)
        began = time.monotonic()
        asker.sender.send(cancel())
        assert asker.last() == 0xFE00
        assert time.monotonic() - began < 10


def test_an_instance_that_is_damaged_on_disk_does_not_leave(holding: Holding) -> None:
    holding.take(*a_study(images=3))
    path = holding.store.absolute(holding.reception.known("1.2.1.1.2").path)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    got, final = holding.got(identifier("STUDY", StudyInstanceUID="1.2.1"), [(CT, ELE)])
    assert (final.status, final.completed, final.failed, final.failed_uids) == (0xB000, 2, 1, ["1.2.1.1.2"])
    assert sorted(got) == ["1.2.1.1.1", "1.2.1.1.3"]


def test_more_retrievals_than_are_allowed_are_refused(make_holding: Callable[..., Holding]) -> None:
    holding = make_holding(limits=ArchiveLimits(max_retrievals=1))
    holding.take(*a_study())
    assert holding.archive._retrievals.acquire()
    _, final = holding.got(identifier("STUDY", StudyInstanceUID="1.2.1"), [(CT, ELE)])
    assert final.status == 0xA702
    holding.archive._retrievals.release()
    _, final = holding.got(identifier("STUDY", StudyInstanceUID="1.2.1"), [(CT, ELE)])
    assert final.status == 0x0000


def test_movescu_says_that_all_went_well(make_holding: Callable[..., Holding], store_scp: Callable[..., StoreScp]) -> None:
    archive = store_scp(extra=["+B"])
    holding = make_holding(peers=[MODALITY, VIEWER, peer_of(archive)])
    holding.take(*a_study(images=3))
    said = movescu(holding, archive.ae_title, "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.1")
    assert "Received Final Move Response (Success)" in said
    got = by_uid(archive.received)
    assert (len(got), got) == (3, {uid: holding.reception.kept_data_set(uid) for uid in got})
