"""A result leaves only while the images that it names stand in the registry: what was stored when it was made may go."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.domain.received import Received
from dicomnode.domain.results import ResultKind, ResultObject
from dicomnode.domain.states import DeliveryEvent
from dicomnode.registry.rejections import ReceivedNote
from tests.delivery.outbox import PATIENT, Outbox, folder_destination

LATER = {"days": 40}


def again(outbox: Outbox, result: ResultObject, content: str) -> Received:
    """The source of this result, sent again with other content."""
    known = outbox.registry.instance(result.source_sop_instance_uids[0])
    assert known is not None
    return Received(
        sop_class_uid=known.sop_class_uid,
        sop_instance_uid=known.sop_instance_uid,
        series_instance_uid=known.series_instance_uid,
        study_instance_uid=known.study_instance_uid,
        transfer_syntax_uid=known.transfer_syntax_uid,
        path=Path("quarantine") / content,
        sha256=content * 64,
        pixel_digest=content * 64,
        size_bytes=1,
        attributes={**PATIENT, "Modality": "CT"},
        calling_ae="CT",
        called_ae="DICOMNODE",
        address="127.0.0.1",
        association_key="",
        received_at=outbox.clock(),
    )


def reason(outbox: Outbox, result: ResultObject) -> str:
    """Why the first delivery is held; it names nobody and nothing."""
    message = str(outbox.deliveries()[0]["last_error"])
    assert result.source_sop_instance_uids[0] not in message
    return message


@pytest.mark.parametrize("kind", ["pixels", "geometry"])
def test_an_instance_quarantined_between_job_and_sending_holds_its_results(outbox: Outbox, tmp_path: Path, kind: str) -> None:
    first, *_ = outbox.finish_a_job("folder")
    outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    outbox.registry.record_conflict(again(outbox, first, "c"), kind)
    deliverer = outbox.deliverer(folder_destination("folder", tmp_path))
    deliverer.run_once()
    assert outbox.states()[0] == "held"
    assert "sent" not in outbox.states()[:3]  # the report and the pictures wait for their segmentation
    assert outbox.states()[3] == "sent"
    assert reason(outbox, first) == "of the 1 instances that it names 1 came again with other content"
    # An operator has looked: what is stored is right, and the results may go.
    outbox.registry.retry("E1")
    for one in outbox.deliveries():
        if one["state"] == "held":
            outbox.registry.retry(str(one["id"]))
    outbox.work_until(deliverer, "sent", "sent", "sent", "sent")


def test_an_instance_removed_between_job_and_sending_holds_its_results(outbox: Outbox, tmp_path: Path) -> None:
    (gone,) = outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    with sqlite3.connect(outbox.store.root / "outbox.db") as database:  # by hand: the node calls such results off itself
        database.execute("DELETE FROM instances WHERE sop_instance_uid = ?", gone.source_sop_instance_uids)
    outbox.deliverer(folder_destination("folder", tmp_path)).run_once()
    assert outbox.states() == ["held", "sent"]
    assert reason(outbox, gone) == "of the 1 instances that it names 1 are not known here"


def test_an_instance_rejected_while_its_result_was_on_the_way_holds_it(outbox: Outbox, tmp_path: Path) -> None:
    """What waits is called off by the note; what was just being sent when it came goes back to waiting, and must not leave."""
    (sc,) = outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    assert outbox.registry.claim_delivery("another sender", "folder", 60) is not None
    note = ReceivedNote(99, "S1", Path("note"), "CT", "127.0.0.1")
    outbox.registry.keeping.carry_out_note(note, sc.source_sop_instance_uids, "113037", "rejected for patient safety")
    outbox.registry.worker_died("another sender")
    assert outbox.states() == ["waiting"]
    outbox.deliverer(folder_destination("folder", tmp_path)).run_once()
    assert outbox.states() == ["held"]
    assert reason(outbox, sc) == "of the 1 instances that it names 1 were rejected"


def test_a_result_whose_sources_were_purged_is_not_sent_again_unseen(outbox: Outbox, tmp_path: Path) -> None:
    (sc,) = outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    destination = replace(folder_destination("folder", tmp_path), proof="find")
    outbox.deliverer(folder_destination("folder", tmp_path)).run_once()
    assert outbox.states() == ["sent"]
    outbox.clock.advance(**LATER)
    assert outbox.registry.keeping.purge_sources(outbox.clock(), ["folder"], 10) == ["S1"]
    (sent,) = outbox.registry.deliveries_to_prove("folder")
    outbox.registry.finish_delivery(sent, DeliveryEvent.PROOF_SAYS_MISSING, retry_after_s=0.0)
    outbox.deliverer(destination).run_once()
    assert outbox.states() == ["held"]
    assert reason(outbox, sc) == "of the 1 instances that it names 1 were purged here"


def test_a_result_of_ours_that_came_back_and_was_purged_may_be_named(outbox: Outbox, tmp_path: Path) -> None:
    (sc,) = outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    back = replace(again(outbox, sc, "d"), sop_instance_uid=sc.sop_instance_uid, series_instance_uid=sc.series_instance_uid)
    outbox.registry.add_instance(back, ours=True)
    outbox.deliverer(folder_destination("folder", tmp_path)).run_once()
    outbox.clock.advance(**LATER)
    assert outbox.registry.keeping.purge_sources(outbox.clock(), ["folder"], 10) == ["S1"]
    assert outbox.registry.keeping.references_problem([sc.sop_instance_uid]) == ""


def test_of_many_instances_each_is_looked_at(outbox: Outbox) -> None:
    (sc,) = outbox.finish_a_job("folder", kinds=[ResultKind.SC])
    (source,) = sc.source_sop_instance_uids
    problem = outbox.registry.keeping.references_problem
    assert problem([source, sc.sop_instance_uid]) == ""
    assert problem([]) == ""
    unknown = [f"1.2.3.{number}" for number in range(1200)]
    assert problem([source, *unknown]) == "of the 1201 instances that it names 1200 are not known here"
