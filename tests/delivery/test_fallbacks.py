"""A new class goes only where the archive accepts it in negotiation; else the profile's other form, and it is recorded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, SegmentationStorage

from dicomnode.domain.profiles import DEFAULT_KINDS, SHIPPED, Fallback, Profile, ResultKind, SegForm, SrClass
from dicomnode.domain.received import Received
from dicomnode.domain.results import ResultObject
from dicomnode.domain.sop_classes import LABEL_MAP_SEGMENTATION
from dicomnode.domain.states import JobEvent
from dicomnode.registry import PlannedJob, SeriesCompletion, StudyJudgement
from dicomnode.results import build, verify
from tests.delivery.outbox import Outbox, dicom_destination
from tests.peers.dcmtk import StoreScp
from tests.results.cases import request_for, small_findings, small_series, volume_of

ATTRIBUTES = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
)
COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"
MODERN = replace(
    SHIPPED["archive"],
    name="modern",
    seg_form=SegForm.LABELMAP,
    fallbacks=(Fallback(ResultKind.SEG, SegForm.BINARY), Fallback(ResultKind.SR, SrClass.COMPREHENSIVE)),
)


def finish_a_real_job(outbox: Outbox, folder: Path, profile: Profile, destination: str) -> tuple[ResultObject, ...]:
    """A CT arrives, a job's real results wait for the destination in the forms of its profile."""
    paths = small_series(folder / "ct", slices=6)
    for path in paths:
        outbox.registry.add_instance(_received(outbox, path), ours=False)
    (evidence,) = outbox.registry.studies_to_judge()
    one = evidence.series[0]
    whole = SeriesCompletion(one.series_id, complete=True, forced=False, evidence={})
    planned = PlannedJob("chest-ct", "chest_ct", one.series_id, one.generation, 0)
    outbox.registry.record_judgement(
        StudyJudgement(evidence.study_id, evidence.arrivals, completions=(whole,), jobs=(planned,), settled=True)
    )
    job = outbox.registry.claim_job("test worker", 60)
    assert job is not None
    volume = volume_of(paths)
    findings = small_findings(volume)
    request = request_for(paths, profiles=(profile,), kinds=DEFAULT_KINDS)
    objects = build(findings, volume, paths, request, outbox.store.spool_dir(job.key))
    verify(objects, findings, volume, paths)
    objects = tuple(replace(one, path=one.path.relative_to(outbox.store.root)) for one in objects)
    outbox.registry.finish_job(
        job, JobEvent.FINISHED, results=objects, destinations=[destination], profile_by_destination={destination: profile.name}
    )
    return objects


def _received(outbox: Outbox, path: Path) -> Received:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return Received(
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        series_instance_uid=str(header.SeriesInstanceUID),
        study_instance_uid=str(header.StudyInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        path=Path("instances") / path.name,
        sha256="0" * 64,
        pixel_digest="0" * 64,
        size_bytes=1,
        attributes={"Modality": "CT", **{keyword: str(header.get(keyword, "")) for keyword in ATTRIBUTES}},
        calling_ae="CT",
        called_ae="DICOMNODE",
        address="127.0.0.1",
        association_key="",
        received_at=outbox.clock(),
    )


def delivered(outbox: Outbox, archive: StoreScp) -> None:
    destination = replace(dicom_destination("archive", "ARCHIVE", archive.port), profile=MODERN)
    deliverer = outbox.deliverer(destination)
    for _ in range(6):
        deliverer.run_once()


def test_an_archive_of_2015_gets_a_binary_segmentation_and_the_report_that_names_it(
    outbox: Outbox, store_scp: Callable[..., StoreScp], tmp_path: Path
) -> None:
    old = [str(one) for one in (SegmentationStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage)]
    archive = store_scp(ae_title="ARCHIVE", accepted_sop_classes=old)
    objects = {one.sop_instance_uid: one for one in finish_a_real_job(outbox, tmp_path, MODERN, "archive")}
    delivered(outbox, archive)

    there = [objects[uid] for uid in archive.sop_instance_uids()]
    assert {(one.kind, one.sop_class_uid) for one in there} == {
        (ResultKind.SEG, str(SegmentationStorage)),
        (ResultKind.SR, str(ComprehensiveSRStorage)),
        (ResultKind.SC, str(SecondaryCaptureImageStorage)),
    }
    (segmentation,) = (one for one in there if one.kind is ResultKind.SEG)
    (report,) = (one for one in there if one.kind is ResultKind.SR)
    written = pydicom.dcmread(outbox.store.absolute(report.path))
    named = {str(one.value) for one in written.iterall() if one.keyword == "ReferencedSOPInstanceUID"}
    assert segmentation.sop_instance_uid in named
    assert not named & {uid for uid, one in objects.items() if one.sop_class_uid == LABEL_MAP_SEGMENTATION}
    by_uid = {one["sop_instance_uid"]: one for one in outbox.deliveries()}
    first = [one for one in objects.values() if one.sop_class_uid == LABEL_MAP_SEGMENTATION]
    assert first
    assert "sent" not in {by_uid[one.sop_instance_uid]["state"] for one in first}
    assert any("takes no SEG" in str(by_uid[one.sop_instance_uid]["last_error"]) for one in first)  # explain says why


def test_an_archive_that_accepts_the_new_classes_gets_them_and_nothing_else(
    outbox: Outbox, store_scp: Callable[..., StoreScp], tmp_path: Path
) -> None:
    new = [LABEL_MAP_SEGMENTATION, COMPREHENSIVE_3D, str(SecondaryCaptureImageStorage), str(SegmentationStorage)]
    archive = store_scp(ae_title="ARCHIVE", accepted_sop_classes=new)
    objects = {one.sop_instance_uid: one for one in finish_a_real_job(outbox, tmp_path, MODERN, "archive")}
    delivered(outbox, archive)
    there = {objects[uid].sop_class_uid for uid in archive.sop_instance_uids()}
    assert there == {LABEL_MAP_SEGMENTATION, COMPREHENSIVE_3D, str(SecondaryCaptureImageStorage)}
    assert set(outbox.states()) == {"sent"}
