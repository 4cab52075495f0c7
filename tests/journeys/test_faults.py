"""What goes wrong in hospitals: a PACS that is down, a node that is killed, files that are no studies."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomnode.phantom import small_thorax, write_study
from dicomnode.registry import Registry
from dicomnode.roles import ROLES
from tests.journeys.hospital import PIPELINES, Hospital, send, study_uid_of, wait_for_end
from tests.peers.dcmtk import dcmsend, echoscu
from tests.peers.node import Node, chest_route, destination, modality_peer, peer_of
from tests.peers.orthanc import Orthanc
from tests.peers.waiting import listens, wait_until


def test_results_wait_for_a_dead_pacs_over_a_restart_and_arrive_once(tiny_hospital: Hospital, tmp_path: Path) -> None:
    paths = write_study(small_thorax(40), tmp_path / "study")
    node, pacs = tiny_hospital.node, tiny_hospital.pacs
    node.start()
    send(tiny_hospital, tmp_path / "study")
    node.wait_for_jobs(1, state="done")
    wait_until(
        lambda: any(one["attempts"] >= 1 and one["last_error"] for one in deliveries_of(node, study_uid_of(paths[0]))),
        timeout_s=60,
        every_s=0.2,
        what="a first attempt at the dead PACS",
    )
    node.stop()
    pacs.start()
    node.start_only()
    for delivery in deliveries_of(node, study_uid_of(paths[0])):
        node.look(lambda registry, key=delivery["id"]: registry.retry(key))  # type: ignore[misc]  # nobody waits for the backoff
    explanation = wait_for_end(tiny_hospital, study_uid_of(paths[0]), timeout_s=120)

    wanted = {result["sop_instance_uid"] for one in explanation["series"] for result in one["results"]}
    arrived = Counter(pacs.arrivals())
    assert set(arrived) == wanted
    assert set(arrived.values()) == {1}
    requests = pacs.output().count(f"Incoming Store request from AET {node.ae_title} ")
    assert requests == len(wanted), "each object crossed the wire once"


def test_a_node_that_is_killed_while_it_receives_and_while_it_works_goes_on_where_it_was(
    tiny_hospital: Hospital, tmp_path: Path
) -> None:
    paths = write_study(small_thorax(41), tmp_path / "study")
    node = tiny_hospital.node
    tiny_hospital.pacs.start()
    # The sender takes a moment to go on.
    node.config.write_text(node.config.read_text().replace("quiet_s = 1", "quiet_s = 6"))
    start_to_listen(node)
    send(tiny_hospital, *paths[: len(paths) // 2])
    node.kill()
    start_to_listen(node)
    send(tiny_hospital, *paths[len(paths) // 2 :])
    wait_until(lambda: jobs_in(node, "running"), timeout_s=180, every_s=0.02, what="a job that runs")
    node.kill()
    node.start_only()
    explanation = wait_for_end(tiny_hospital, study_uid_of(paths[0]), timeout_s=180)
    jobs = [job for one in explanation["series"] for job in one["jobs"]]
    assert [job["state"] for job in jobs if job["state"] != "superseded"] == ["done"]
    classes = Counter(one.modality for one in tiny_hospital.pacs.instances())
    assert classes["SEG"] == classes["SR"] == 1


def start_to_listen(node: Node) -> None:
    """Its worker still loads torch then, which receiving need not wait for."""
    node.start_only()
    wait_until(lambda: listens(node.port), timeout_s=120, what="the node to listen")


def jobs_in(node: Node, state: str) -> int:
    counted: Any = node.look(Registry.status_counts)
    return 0 if counted is None else int(counted["counts"]["jobs"][state])


def jobs_of_study(node: Node, study_uid: str) -> list[dict[str, Any]]:
    explained: Any = node.look(lambda registry: registry.explain(study_uid))
    return [] if explained is None else [one for series in explained["series"] for one in series["jobs"]]


def deliveries_of(node: Node, study_uid: str) -> list[dict[str, Any]]:
    explained: Any = node.look(lambda registry: registry.explain(study_uid))
    return [] if explained is None else [one for series in explained["series"] for one in series["deliveries"]]


def is_ours(pid: int) -> bool:
    """Whether that process still runs and is a dicomnode."""
    try:
        return b"dicomnode" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_killing_the_supervisor_leaves_no_role_behind(tiny_hospital: Hospital) -> None:
    node = tiny_hospital.node
    start_to_listen(node)
    assert echoscu(node.port, calling="CT_SCANNER", called=node.ae_title).ok
    pids = [role["pid"] for role in node.status()["roles"] if role["pid"]]
    assert len(pids) == len(ROLES)
    node.kill_supervisor()
    wait_until(
        lambda: not any(is_ours(pid) for pid in pids),
        timeout_s=15,
        what="the roles to die with their supervisor",
    )
    wait_until(lambda: not listens(node.port), timeout_s=15, what="the port to be free again")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """One hospital for what needs no node of its own; one more destination of it accepts no demonstrations."""
    folder = tmp_path_factory.mktemp("running")
    (folder / "strict").mkdir()
    strict = destination(
        "strict", kind="folder", peer=None, path=str(folder / "strict"), proof="status", accept_demonstration=False
    )
    pacs = Orthanc(folder / "pacs")
    node = Node(
        folder / "node",
        peers=[peer_of(pacs), modality_peer("CT_SCANNER")],
        destinations=[destination("pacs"), strict],
        routes=[chest_route(pipeline="tiny", quiet_s=1, send_to=["pacs", "strict"])],
        pipelines=[PIPELINES],
    )
    pacs.start()
    node.start()
    yield Hospital(node, pacs)
    node.kill()
    pacs.kill()


def test_files_of_every_kind_do_not_stop_the_node(running: Hospital, test_data: Path, tmp_path: Path) -> None:
    node = running.node
    sendable = [
        path
        for folder in ("objects", "broken", "charsets", "syntaxes")
        for path in sorted((test_data / folder).glob("*"))
        if path.is_file()
    ]
    for path in sendable:
        dcmsend(node.port, path, calling="CT_SCANNER", called=node.ae_title)
    assert echoscu(node.port, calling="CT_SCANNER", called=node.ae_title).ok
    paths = write_study(small_thorax(42), tmp_path / "study")
    send(running, tmp_path / "study")
    explanation = wait_for_end(running, study_uid_of(paths[0]), timeout_s=180)
    assert [job["state"] for one in explanation["series"] for job in one["jobs"]] == ["done"]
    fsck = node.json("fsck")
    assert fsck["ok"], fsck
    assert fsck["orphans"] == fsck["missing"] == []


def test_a_late_image_makes_a_new_version_that_supersedes_the_old(running: Hospital, tmp_path: Path) -> None:
    paths = write_study(small_thorax(43), tmp_path / "study")
    node = running.node
    send(running, *paths[:-4])
    first = wait_for_end(running, study_uid_of(paths[0]), timeout_s=120)
    assert [job["state"] for one in first["series"] for job in one["jobs"]] == ["done"]
    send(running, *paths[-4:])
    wait_until(
        lambda: len(jobs_of_study(node, study_uid_of(paths[0]))) == 2,
        timeout_s=60,
        every_s=0.2,
        what="a second version",
    )
    second = wait_for_end(running, study_uid_of(paths[0]), timeout_s=120)
    jobs = sorted((job for one in second["series"] for job in one["jobs"]), key=lambda job: job["version"])
    assert [(job["version"], job["state"]) for job in jobs] == [(1, "superseded"), (2, "done")]
    there = [one for one in running.pacs.instances() if one.study_instance_uid == study_uid_of(paths[0])]
    reports = [running.pacs.dataset(one) for one in there if one.modality == "SR"]
    assert len(reports) == 2
    successor = next(one for one in reports if "PredecessorDocumentsSequence" in one)
    named = successor.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert {str(named.ReferencedSOPInstanceUID)} == {str(one.SOPInstanceUID) for one in reports} - {
        str(successor.SOPInstanceUID)
    }


def test_a_demonstration_model_sends_nothing_where_demonstrations_are_not_accepted(running: Hospital, tmp_path: Path) -> None:
    paths = write_study(small_thorax(44), tmp_path / "study")
    send(running, tmp_path / "study")
    explanation = wait_for_end(running, study_uid_of(paths[0]))
    assert [job["state"] for one in explanation["series"] for job in one["jobs"]] == ["done"]
    assert "withheld: destination strict does not accept demonstration" in explanation["paragraph"]
    assert {one["destination"] for one in deliveries_of(running.node, study_uid_of(paths[0]))} == {"pacs"}
    assert not list((running.node.folder.parent / "strict").rglob("*"))
