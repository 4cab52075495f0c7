"""What goes wrong in hospitals: a PACS that is down, a node that is killed, files that are no studies."""

from collections import Counter
from pathlib import Path

import pytest

from dicomnode.phantom import small_thorax, write_study
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
        lambda: any(
            delivery["attempts"] >= 1 and delivery["last_error"]
            for one in node.explain(study_uid_of(paths[0]))["series"]
            for delivery in one["deliveries"]
        ),
        timeout_s=60,
        every_s=0.5,
        what="a first attempt at the dead PACS",
    )
    node.stop()
    node.start()
    pacs.start()
    for delivery in [one for series in node.explain(study_uid_of(paths[0]))["series"] for one in series["deliveries"]]:
        node.command(
            "retry", delivery["id"]
        )  # an operator need not wait for the backoff; refused where it is already under way
    explanation = wait_for_end(tiny_hospital, study_uid_of(paths[0]), timeout_s=120)

    wanted = {result["sop_instance_uid"] for one in explanation["series"] for result in one["results"]}
    arrived = Counter(pacs.arrivals())
    assert set(arrived) == wanted
    assert set(arrived.values()) == {1}
    requests = pacs.output().count(f"Incoming Store request from AET {node.ae_title} ")
    assert requests == len(wanted), "each object crossed the wire once"


@pytest.mark.parametrize("moment", ["while receiving", "while working"])
def test_a_killed_node_goes_on_where_it_was(tiny_hospital: Hospital, tmp_path: Path, moment: str) -> None:
    paths = write_study(small_thorax(41), tmp_path / "study")
    node = tiny_hospital.node
    tiny_hospital.pacs.start()
    # The sender takes a moment to go on.
    node.config.write_text(node.config.read_text().replace("quiet_s = 1", "quiet_s = 6"))
    node.start()
    if moment == "while receiving":
        send(tiny_hospital, *paths[: len(paths) // 2])
        node.kill()
        node.start_only()
        wait_until(lambda: listens(node.port), timeout_s=60, what="the node to listen again")
        send(tiny_hospital, *paths[len(paths) // 2 :])
    else:
        send(tiny_hospital, tmp_path / "study")
        wait_until(
            lambda: node.status()["counts"]["jobs"],
            timeout_s=60,
            every_s=0.05,
            what="a job",
        )
        node.kill()
        node.start()
    explanation = wait_for_end(tiny_hospital, study_uid_of(paths[0]), timeout_s=180)
    jobs = [job for one in explanation["series"] for job in one["jobs"]]
    assert [job["state"] for job in jobs if job["state"] != "superseded"] == ["done"]
    classes = Counter(one.modality for one in tiny_hospital.pacs.instances())
    assert classes["SEG"] == classes["SR"] == 1


def is_ours(pid: int) -> bool:
    """Whether that process still runs and is a dicomnode."""
    try:
        return b"dicomnode" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_killing_the_supervisor_leaves_no_role_behind(tiny_hospital: Hospital) -> None:
    node = tiny_hospital.node
    node.start()
    assert echoscu(node.port, calling="CT_SCANNER", called=node.ae_title).ok
    pids = [role["pid"] for role in node.status()["roles"]]
    assert pids
    node.kill_supervisor()
    wait_until(
        lambda: not any(is_ours(pid) for pid in pids),
        timeout_s=15,
        what="the roles to die with their supervisor",
    )
    wait_until(lambda: not listens(node.port), timeout_s=15, what="the port to be free again")


def test_files_of_every_kind_do_not_stop_the_node(tiny_hospital: Hospital, test_data: Path, tmp_path: Path) -> None:
    node = tiny_hospital.node
    tiny_hospital.pacs.start()
    node.start()
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
    send(tiny_hospital, tmp_path / "study")
    explanation = wait_for_end(tiny_hospital, study_uid_of(paths[0]), timeout_s=180)
    assert [job["state"] for one in explanation["series"] for job in one["jobs"]] == ["done"]
    fsck = node.json("fsck")
    assert fsck["ok"], fsck
    assert fsck["orphans"] == fsck["missing"] == []


def test_a_late_image_makes_a_new_version_that_supersedes_the_old(tiny_hospital: Hospital, tmp_path: Path) -> None:
    paths = write_study(small_thorax(43), tmp_path / "study")
    node = tiny_hospital.node
    tiny_hospital.pacs.start()
    node.start()
    send(tiny_hospital, *paths[:-4])
    first = wait_for_end(tiny_hospital, study_uid_of(paths[0]), timeout_s=120)
    assert [job["state"] for one in first["series"] for job in one["jobs"]] == ["done"]
    send(tiny_hospital, *paths[-4:])
    wait_until(
        lambda: sum(len(one["jobs"]) for one in node.explain(study_uid_of(paths[0]))["series"]) == 2,
        timeout_s=60,
        every_s=0.5,
        what="a second version",
    )
    second = wait_for_end(tiny_hospital, study_uid_of(paths[0]), timeout_s=120)
    jobs = sorted((job for one in second["series"] for job in one["jobs"]), key=lambda job: job["version"])
    assert [(job["version"], job["state"]) for job in jobs] == [(1, "superseded"), (2, "done")]
    reports = [tiny_hospital.pacs.dataset(one) for one in tiny_hospital.pacs.instances() if one.modality == "SR"]
    assert len(reports) == 2
    successor = next(one for one in reports if "PredecessorDocumentsSequence" in one)
    named = successor.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert {str(named.ReferencedSOPInstanceUID)} == {str(one.SOPInstanceUID) for one in reports} - {
        str(successor.SOPInstanceUID)
    }


def test_a_demonstration_model_sends_nothing_where_demonstrations_are_not_accepted(tmp_path: Path) -> None:
    with Orthanc(tmp_path / "pacs") as pacs:
        node = Node(
            tmp_path / "node",
            peers=[peer_of(pacs), modality_peer("CT_SCANNER")],
            destinations=[destination("pacs", accept_demonstration=False)],
            routes=[chest_route(pipeline="tiny", quiet_s=1)],
            pipelines=[PIPELINES],
        )
        with node:
            paths = write_study(small_thorax(44), tmp_path / "study")
            send(Hospital(node, pacs), tmp_path / "study")
            explanation = wait_for_end(Hospital(node, pacs), study_uid_of(paths[0]))
            assert [job["state"] for one in explanation["series"] for job in one["jobs"]] == ["done"]
            assert "demonstration" in explanation["paragraph"].lower()
            assert pacs.instance_count() == 0
