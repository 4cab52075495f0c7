"""C-MOVE and C-GET (PS3.4 C.4.2, C.4.3): what was received goes out, byte for byte."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread

from dicomnode.domain.routes import Peer
from tests.archive.holding import Holding
from tests.peers.orthanc import Orthanc
from tests.peers.processes import tool
from tests.peers.waiting import free_port
from tests.receiving.reception import data_set_of, local_peer
from tests.receiving.samples import changed, ct


def by_uid(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): data_set_of(path) for path in files}


def test_getscu_gets_a_study_back_byte_for_byte(holding: Holding, tmp_path: Path) -> None:
    first = ct()
    images = [first, changed(ct(), StudyInstanceUID=first.StudyInstanceUID), ct()]
    holding.take(*images)
    out = tmp_path / "out"
    out.mkdir()
    command = [tool("getscu", "dcmtk"), "-v", "-S", "-B", "-od", str(out), "-aec", "DICOMNODE", "-aet", "VIEWER"]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={first.StudyInstanceUID}"]
    done = subprocess.run(
        [*command, *keys, "127.0.0.1", str(holding.port)], capture_output=True, text=True, timeout=60, check=False
    )
    got = by_uid(out)
    assert set(got) == {str(image.SOPInstanceUID) for image in images[:2]}, done.stdout + done.stderr
    for uid, data_set in got.items():
        assert data_set == holding.reception.kept_data_set(uid)


def test_movescu_has_a_study_sent_to_orthanc(
    make_holding: Callable[..., Holding], orthanc: Callable[..., Orthanc], tmp_path: Path
) -> None:
    pacs = orthanc("pacs")
    peers = [
        local_peer(ae_title="MODALITY", name="modality"),
        Peer("viewer", "VIEWER", "127.0.0.1", free_port(), frozenset({"query", "retrieve"})),
        Peer("pacs", pacs.ae_title, "127.0.0.1", pacs.dicom_port, frozenset()),
    ]
    holding = make_holding(peers=peers)
    image = ct()
    holding.take(image, ct())
    command = [tool("movescu", "dcmtk"), "-v", "-S", "-aec", "DICOMNODE", "-aet", "VIEWER", "-aem", pacs.ae_title]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={image.StudyInstanceUID}"]
    done = subprocess.run(
        [*command, *keys, "127.0.0.1", str(holding.port)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (there,) = pacs.instances()
    assert there.sop_instance_uid == image.SOPInstanceUID
    assert pacs.rest
