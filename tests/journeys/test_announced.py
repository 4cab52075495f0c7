"""A modality that speaks MPPS, to a whole node: listener and sweep as they run in a hospital, quiet period of an hour."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from dicomnode.phantom import small_thorax, write_study
from dicomnode.registry import Registry
from tests.journeys.hospital import PIPELINES
from tests.peers.dcmtk import dcmsend
from tests.peers.node import Node, modality_peer
from tests.peers.waiting import wait_until


@pytest.mark.soak
def test_when_the_modality_says_that_it_is_done_the_study_is_worked_at_once(node: Callable[..., Node], tmp_path: Path) -> None:
    paths = write_study(small_thorax(5), tmp_path / "study")
    (tmp_path / "out").mkdir()
    out = {"name": "out", "kind": "folder", "path": str(tmp_path / "out"), "proof": "status", "accept_demonstration": True}
    route = {
        "name": "ct",
        "match": {"Modality": "CT"},
        "pipeline": "tiny",
        "send_to": ["out"],
        "quiet_s": 3600,
        "max_wait_s": 7200,
    }
    may = ("store", "announce")
    one = node(peers=[modality_peer("CT_SCANNER", may=may)], destinations=[out], routes=[route], pipelines=[PIPELINES])
    one.start("receive", "sweep", timeout_s=300)
    assert dcmsend(one.port, *paths, calling="CT_SCANNER").ok

    first, step = dcmread(paths[0], stop_before_pixels=True), generate_uid()
    scheduled, said = Dataset(), Dataset()
    scheduled.StudyInstanceUID = first.StudyInstanceUID
    said.ScheduledStepAttributesSequence, said.PerformedProcedureStepStatus = [scheduled], "IN PROGRESS"
    series, done = Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedImageSequence = first.SeriesInstanceUID, []
    for path in paths:
        item, image = Dataset(), dcmread(path, stop_before_pixels=True)
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        series.ReferencedImageSequence.append(item)
    done.PerformedProcedureStepStatus, done.PerformedSeriesSequence = "COMPLETED", [series]

    entity = AE("CT_SCANNER")
    entity.add_requested_context(ModalityPerformedProcedureStep)
    association = entity.associate("127.0.0.1", one.port, ae_title="DICOMNODE")
    assert association.send_n_create(said, ModalityPerformedProcedureStep, step)[0].Status == 0
    assert association.send_n_set(done, ModalityPerformedProcedureStep, step)[0].Status == 0
    association.release()

    def queued() -> bool:
        counted = one.look(Registry.status_counts)
        return counted is not None and counted["counts"]["jobs"]["queued"] == 1  # type: ignore[index]

    wait_until(queued, timeout_s=180, what="the job")
    explained = one.explain(str(first.StudyInstanceUID))
    assert "all images that the modality's procedure step (MPPS) named are here" in explained["paragraph"]
    assert [(said["kind"], said["status"], said["missing"]) for said in explained["announcements"]] == [
        ("mpps", "COMPLETED", 0)
    ]
    one.stop()
