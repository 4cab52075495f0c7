"""Queries over TLS, where a read may leave bytes that no poll shows."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread

from dicomnode.domain.routes import Peer, PeerTls
from dicomnode.network import associate, send_file
from dicomnode.network.contexts import UNCOMPRESSED
from dicomnode.network.reactor import hold
from dicomnode.network.tls import TlsFiles, server_context
from tests.archive.holding import MOVE, STUDY_ROOT, Holding, find, identifier
from tests.peers.processes import tool
from tests.peers.waiting import free_port, listens, wait_until
from tests.receiving.certificates import Authority
from tests.receiving.samples import ct, saved


def test_a_viewer_stores_finds_and_has_sent_over_tls(make_holding: Callable[..., Holding], tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    own, viewer = authority.sign("node", address="127.0.0.1"), authority.sign("viewer", address="127.0.0.1")
    context = server_context(TlsFiles(own.certificate, own.key, authority.certificate, require_client=True))
    files = PeerTls(viewer.certificate, viewer.key, authority.certificate)
    destination = tmp_path / "received"
    destination.mkdir()
    port = free_port()
    command = [tool("storescp", "dcmtk"), "-aet", "ARCHIVE", "-od", destination, "+tls", viewer.key, viewer.certificate]
    command += ["+cf", authority.certificate, port]
    listener = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        peers = [
            Peer("archive", "ARCHIVE", "127.0.0.1", port, frozenset(), files),
            Peer("viewer", "VIEWER", "127.0.0.1", 104, frozenset({"store", "query", "retrieve"}), files),
        ]
        holding = make_holding(peers=peers, tls=context)
        us = Peer("us", "DICOMNODE", "127.0.0.1", holding.port, frozenset(), files)
        image = ct(StudyInstanceUID="1.2.1")
        contexts = [(STUDY_ROOT, UNCOMPRESSED), (MOVE, UNCOMPRESSED), (str(image.SOPClassUID), UNCOMPRESSED)]
        wait_until(lambda: listens(port), what="storescp to listen")
        with associate(us, "VIEWER", contexts) as association:
            assert send_file(association, saved(image, tmp_path)) == 0
            for _ in range(20):  # one after the other on one association
                matches, statuses = find(association, identifier("STUDY", StudyInstanceUID="", PatientName="*"), STUDY_ROOT)
                assert (len(matches), statuses[-1]) == (1, 0)
            hold(association)
            *_, (final, _) = association.send_c_move(identifier("STUDY", StudyInstanceUID="1.2.1"), "ARCHIVE", MOVE)
            assert final.Status == 0
        (there,) = destination.iterdir()
        assert dcmread(there).SOPInstanceUID == image.SOPInstanceUID
    finally:
        listener.kill()
        listener.wait()
