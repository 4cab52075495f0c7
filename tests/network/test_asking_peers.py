"""As SCU: with DCMTK and Orthanc as peers, and with peers that do not work."""

import hashlib
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from dicomnode.domain.errors import CorruptInstance, PeerUnreachable
from dicomnode.domain.routes import Peer
from dicomnode.network import Timeouts, associate, echo, find_instance, send_file, store_contexts_for
from dicomnode.storage import data_set_offset
from tests.peers.dcmtk import StoreScp
from tests.peers.orthanc import Orthanc
from tests.peers.waiting import free_port
from tests.receiving.samples import CT, ct, saved

ELE, ILE, JPEG_LS = str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian), "1.2.840.10008.1.2.4.80"
VERIFICATION = ("1.2.840.10008.1.1", (ELE, ILE))
QUICK = Timeouts(connect_s=2, acse_s=1, dimse_s=3, network_s=3)


def peer_at(port: int, ae_title: str = "STORESCP", host: str = "127.0.0.1") -> Peer:
    return Peer("pacs", ae_title, host, port, frozenset())


def test_echo_measures(store_scp: Callable[..., StoreScp]) -> None:
    assert 0 < echo(peer_at(store_scp().port), "DICOMNODE") < 5


def test_a_file_arrives_byte_for_byte(tmp_path: Path, test_data: Path, store_scp: Callable[..., StoreScp]) -> None:
    scp = store_scp(extra=["+B"])
    paths = [
        saved(ct(), tmp_path),
        saved(ct(), tmp_path, ILE),
        test_data / "syntaxes" / "1.2.4.80_mr_small.dcm",
        test_data / "syntaxes" / "1.2.5_ct_neck.dcm",
    ]
    with associate(peer_at(scp.port), "DICOMNODE", store_contexts_for(paths)) as association:
        assert [send_file(association, path) for path in paths] == [0] * 4
    assert {_digest(path) for path in scp.files()} == {_digest(path) for path in paths}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()[data_set_offset(path) :]).hexdigest()


def test_uncompressed_data_are_converted_to_what_the_peer_takes(tmp_path: Path, store_scp: Callable[..., StoreScp]) -> None:
    scp = store_scp()
    path = saved(image := ct(), tmp_path)
    with associate(peer_at(scp.port), "DICOMNODE", [(CT, (ILE,))]) as association:
        assert send_file(association, path) == 0
    received = dcmread(scp.files()[0])
    assert received.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert np.array_equal(received.pixel_array, image.pixel_array)


def test_a_compressed_file_without_a_context_is_refused_here_and_says_so(
    test_data: Path, store_scp: Callable[..., StoreScp]
) -> None:
    path = test_data / "syntaxes" / "1.2.4.80_mr_small.dcm"
    with (
        associate(peer_at(store_scp().port), "DICOMNODE", [(str(dcmread(path).SOPClassUID), (ELE,))]) as association,
        pytest.raises(PeerUnreachable, match="MR Image Storage in JPEG-LS"),
    ):
        send_file(association, path)


def test_a_lost_link_gives_no_status(tmp_path: Path, store_scp: Callable[..., StoreScp]) -> None:
    scp = store_scp(extra=["--abort-after"])
    paths = [saved(ct(), tmp_path) for _ in range(2)]
    with associate(peer_at(scp.port), "DICOMNODE", store_contexts_for(paths), timeouts=QUICK) as association:
        assert [send_file(association, path) for path in paths] == [None, None]


def test_a_damaged_file_is_named_and_not_sent(tmp_path: Path, store_scp: Callable[..., StoreScp]) -> None:
    good, bad = saved(ct(), tmp_path), tmp_path / "bad.dcm"
    bad.write_bytes(b"not DICOM")
    with (
        associate(peer_at(store_scp().port), "DICOMNODE", store_contexts_for([good])) as association,
        pytest.raises(CorruptInstance, match=r"bad\.dcm"),
    ):
        send_file(association, bad)


def test_nobody_listening_is_said_with_what_to_do() -> None:
    with pytest.raises(PeerUnreachable, match="refused the connection") as caught:
        echo(peer_at(free_port()), "DICOMNODE")
    assert "start the peer" in caught.value.remedy


def test_an_unknown_host_name_is_said() -> None:
    with pytest.raises(PeerUnreachable, match="unknown host name"):
        echo(peer_at(104, host="no-such-host.invalid"), "DICOMNODE")


def test_a_listener_that_never_answers_runs_into_the_time_limit() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        started = time.monotonic()
        with pytest.raises(PeerUnreachable, match="did not answer the association request within 1 s"):
            echo(peer_at(silent.getsockname()[1]), "DICOMNODE", timeouts=QUICK)
        assert time.monotonic() - started < 8


def test_a_rejection_is_said_in_words(store_scp: Callable[..., StoreScp]) -> None:
    scp = store_scp(extra=["--refuse"])
    with pytest.raises(PeerUnreachable, match="rejected the association"):
        echo(peer_at(scp.port), "DICOMNODE")


def test_no_accepted_context_is_said(store_scp: Callable[..., StoreScp]) -> None:
    scp = store_scp(accepted_sop_classes=["1.2.840.10008.5.1.4.1.1.4"])
    with (
        pytest.raises(PeerUnreachable, match="accepted no presentation context"),
        associate(peer_at(scp.port), "DICOMNODE", [(CT, (ELE,))]),
    ):
        pass


def test_orthanc_is_asked_whether_it_holds_an_instance(tmp_path: Path, orthanc: Callable[..., Orthanc]) -> None:
    pacs = orthanc("pacs")
    peer = peer_at(pacs.dicom_port, pacs.ae_title)
    path = saved(image := ct(), tmp_path)
    uids = (str(image.StudyInstanceUID), str(image.SeriesInstanceUID), str(image.SOPInstanceUID))
    assert find_instance(peer, "DICOMNODE", *uids) is False
    with associate(peer, "DICOMNODE", store_contexts_for([path])) as association:
        assert send_file(association, path) == 0
    assert find_instance(peer, "DICOMNODE", *uids) is True
    assert find_instance(peer, "DICOMNODE", *uids[:2], generate_uid()) is False
