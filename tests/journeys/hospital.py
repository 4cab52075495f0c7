"""A hospital in a folder: one node, one modality, one PACS; and what a test wants to ask of it."""

import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from tests.peers.dcmtk import dcmsend
from tests.peers.node import Node, chest_route, destination, modality_peer, peer_of
from tests.peers.orthanc import Modality, Orthanc
from tests.peers.processes import tool
from tests.peers.waiting import wait_until

PIPELINES = Path(__file__).parents[1] / "pipelines"


@dataclass
class Hospital:
    """One node between a modality called CT_SCANNER and one PACS."""

    node: Node
    pacs: Orthanc


def build_hospital(folder: Path, *, pipeline: str = "chest_ct", **route: object) -> Hospital:
    """A hospital whose node is not started yet."""
    pacs = Orthanc(folder / "pacs")
    peers = [peer_of(pacs), modality_peer("CT_SCANNER")]
    node = Node(
        folder / "node",
        peers=peers,
        destinations=[destination("pacs")],
        routes=[chest_route(pipeline=pipeline, **route)],
        pipelines=[PIPELINES],
    )
    pacs.modalities["dicomnode"] = Modality(node.ae_title, node.port)
    return Hospital(node, pacs)


OUR_CLASSES = {
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
    "SR": "1.2.840.10008.5.1.4.1.1.88.34",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
}


def send(hospital: Hospital, *paths: Path) -> None:
    done = dcmsend(hospital.node.port, *paths, calling="CT_SCANNER", called=hospital.node.ae_title)
    assert done.ok, done.output[-2000:]


def study_uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


def wait_for_end(hospital: Hospital, study_uid: str, timeout_s: float = 240) -> dict[str, Any]:
    """The explanation of a study once no job is open and all deliveries are proved or, of a replaced version, cancelled."""
    node, latest = hospital.node, {}

    def ended() -> bool:
        seen = node.look(lambda registry: registry.explain(study_uid))
        if seen is None or not _settled(seen):
            return False
        latest.update(node.explain(study_uid))
        return _settled(latest)

    try:
        wait_until(ended, timeout_s=timeout_s, every_s=0.2, what="the study to end")
    except TimeoutError as error:
        said = node.command("explain", study_uid).stdout
        raise TimeoutError(f"{error}: {said}\n{node.output()[-3000:]}") from None
    return latest


def _settled(explained: dict[str, Any]) -> bool:
    series = explained["series"]
    jobs = [job for one in series for job in one["jobs"]]
    deliveries = [delivery for one in series for delivery in one["deliveries"]]
    return (
        bool(series)
        and all(one["state"] == "complete" for one in series)
        and all(job["state"] not in {"queued", "running"} for job in jobs)
        and all(delivery["state"] in {"confirmed", "cancelled"} for delivery in deliveries)
    )


def results_in_pacs(hospital: Hospital, study_uid: str, folder: Path) -> dict[str, list[pydicom.Dataset]]:
    """What the PACS holds of a study, downloaded into `folder`: datasets by kind (SEG, SR, SC; else the SOP class)."""
    found = defaultdict(list)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {uid: kind for kind, uid in OUR_CLASSES.items()}
    for instance in hospital.pacs.instances():
        if instance.study_instance_uid == study_uid:
            path = folder / f"{instance.sop_instance_uid}.dcm"
            path.write_bytes(hospital.pacs.download(instance))
            found[kinds.get(instance.sop_class_uid, instance.sop_class_uid)].append(pydicom.dcmread(path))
    return dict(found)


def dciodvfy_errors(paths: Sequence[Path]) -> dict[str, list[str]]:
    """What dciodvfy calls an error, by file."""
    found = {}
    for path in paths:
        done = subprocess.run(
            [tool("dciodvfy", "dicom3tools"), "-new", str(path)], capture_output=True, text=True, check=False, errors="replace"
        )
        said = done.stdout + done.stderr
        assert said.strip(), f"dciodvfy said nothing about {path}"
        errors = [line for line in said.splitlines() if line.startswith("Error")]
        if errors:
            found[path.name] = errors
    return found
