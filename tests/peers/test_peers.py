"""The test tools themselves: what a peer says must be true before anything is proved with it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.peers.dcmtk import StoreScp, dcmsend, echoscu, findscu
from tests.peers.orthanc import Modality, Orthanc


def listening_addresses(pid: int) -> set[str]:
    """Local addresses (hex, as the kernel prints them) on which this process listens."""
    sockets = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if "socket" in str(link.readlink())}
    inodes = {name.removeprefix("socket:[").rstrip("]") for name in sockets}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.add(fields[1].split(":")[0])
    return listening


def test_orthanc_listens_on_the_loopback_only_and_keeps_its_studies_over_a_restart(
    orthanc: Callable[..., Orthanc], test_data: Path, tmp_path: Path
) -> None:
    pacs = orthanc("pacs", ae_title="PACS", modalities={"me": Modality("ME", 104)})
    v4_or_mapped_loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert listening_addresses(pacs.pid)
    assert listening_addresses(pacs.pid) <= v4_or_mapped_loopback

    sent = dcmsend(pacs.dicom_port, test_data / "ct_abdomen_crlm1004", called="PACS")
    assert sent.ok, sent.output
    assert pacs.instance_count() == 10
    study = pacs.study_uids()[0]
    assert len(pacs.arrivals()) == 10

    pacs.restart()

    assert pacs.study_uids() == [study]
    found = findscu(
        pacs.dicom_port, tmp_path / "found", level="STUDY", keys=[f"StudyInstanceUID={study}"], calling="ME", called="PACS"
    )
    assert [str(match.StudyInstanceUID) for match in found] == [study]
    assert echoscu(pacs.dicom_port, called="PACS").ok


def test_orthanc_sends_a_study_to_a_peer_that_it_learns_of_while_running(
    orthanc: Callable[..., Orthanc], store_scp: Callable[..., StoreScp], test_data: Path
) -> None:
    pacs = orthanc()
    archive = store_scp("archive", ae_title="ARCHIVE")
    pacs.upload(sorted((test_data / "ct_abdomen_crlm1004").glob("*.dcm"))[:3])
    pacs.add_modality("archive", Modality("ARCHIVE", archive.port))

    pacs.send("archive")

    assert sorted(archive.sop_instance_uids()) == [instance.sop_instance_uid for instance in pacs.instances()]
    assert archive.requests() == 3


def test_the_check_of_system_packages_names_what_is_missing_and_the_line_to_type() -> None:
    script = Path(__file__).resolve().parent.parent / "system_packages.py"
    answer = subprocess.run(
        [sys.executable, script], env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert answer.returncode == 1
    assert "missing: dcmtk (a modality that sends" in answer.stderr
    assert "apt-get install --no-install-recommends dcmtk" in answer.stderr


def test_the_check_of_system_packages_is_quick_and_silent_when_all_is_there() -> None:
    script = Path(__file__).resolve().parent.parent / "system_packages.py"
    answer = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=10)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
