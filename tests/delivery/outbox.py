"""An outbox with real rows and real bytes: what a worker leaves behind when it finished a job."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicomnode.delivery import Deliverer, DeliveryPolicy
from dicomnode.domain.profiles import SHIPPED
from dicomnode.domain.received import Received
from dicomnode.domain.results import ResultKind, ResultObject
from dicomnode.domain.routes import Destination, Peer
from dicomnode.domain.states import JobEvent
from dicomnode.domain.uids import derived_uid
from dicomnode.registry import PlannedJob, Registry, SeriesCompletion, StudyJudgement
from dicomnode.storage import Store
from tests.peers.waiting import wait_until

SOP_CLASSES = {
    ResultKind.SEG: str(SegmentationStorage),
    ResultKind.SR: str(ComprehensiveSRStorage),
    ResultKind.SC: str(MultiFrameTrueColorSecondaryCaptureImageStorage),
}
MODALITIES = {ResultKind.SEG: "SEG", ResultKind.SR: "SR", ResultKind.SC: "OT"}
PATIENT = {"PatientName": "Test^Patient", "PatientID": "P-1", "PatientBirthDate": "19600101"}

# Seconds in place of minutes; the proportions stay.
QUICK = DeliveryPolicy(
    first_pause_s=0.05, longest_pause_s=0.4, missing_after_s=0.5, first_proof_pause_s=0.05, longest_proof_pause_s=0.2,
    lease_s=30.0, poll_s=0.05,
)  # fmt: skip
PROFILE = SHIPPED["ohif"]


class Clock:
    """The node's one clock, in the test's hand."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def advance(self, **by: float) -> None:
        self._ahead += timedelta(**by)


class Outbox:
    """A registry and a store in a folder, and jobs that end with results to deliver."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.store = Store(folder, reserve_bytes=0)
        self.store.prepare()
        self.registry = Registry(f"sqlite:///{folder / 'outbox.db'}", clock=self.clock)
        self.registry.prepare()
        self._studies = 0

    def finish_a_job(
        self,
        *destinations: str,
        kinds: Sequence[ResultKind] = (ResultKind.SEG, ResultKind.SR, ResultKind.SC),
        pixel_bytes: int = 4096,
        patient: dict[str, str] | None = None,
        spoil: Callable[[pydicom.Dataset], None] = lambda _: None,
    ) -> tuple[ResultObject, ...]:
        """One study arrives, one job runs, its results wait for `destinations`; `spoil` changes data sets before the spool.

        patient: what the results say; the source says PATIENT.
        """
        self._studies += 1
        study, series, source = (derived_uid([kind, str(self._studies)]) for kind in ("study", "series", "source"))
        self._arrive(study, series, source)
        for evidence in self.registry.studies_to_judge():
            one = evidence.series[0]
            whole = SeriesCompletion(one.series_id, complete=True, forced=False, evidence={})
            planned = PlannedJob("chest-ct", "chest_ct", one.series_id, one.generation, 0)
            self.registry.record_judgement(
                StudyJudgement(evidence.study_id, evidence.arrivals, completions=(whole,), jobs=(planned,), settled=True)
            )
        job = self.registry.claim_job("test worker", 60)
        assert job is not None
        folder = self.store.spool_dir(job.key)
        results = []
        for order, kind in enumerate(kinds):
            dataset = _dataset(kind, study, source, self._studies, pixel_bytes, patient or PATIENT)
            pydicom.dataset.validate_file_meta(dataset.file_meta, enforce_standard=True)
            spoil(dataset)
            path = folder / f"{kind.value}.dcm"
            dataset.save_as(path)
            results.append(_result(kind, dataset, path.relative_to(self.store.root), path.read_bytes(), source, order))
        self.registry.finish_job(job, JobEvent.FINISHED, results=results, destinations=destinations)
        return tuple(results)

    def _arrive(self, study: str, series: str, source: str) -> None:
        self.registry.add_instance(
            Received(
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                sop_instance_uid=source,
                series_instance_uid=series,
                study_instance_uid=study,
                transfer_syntax_uid=str(ExplicitVRLittleEndian),
                path=Path("instances") / f"{self._studies}.dcm",
                sha256="0" * 64,
                pixel_digest="0" * 64,
                size_bytes=1,
                attributes={**PATIENT, "Modality": "CT"},
                calling_ae="CT",
                called_ae="DICOMNODE",
                address="127.0.0.1",
                association_key="",
                received_at=self.clock(),
            ),
            ours=False,
        )

    def deliverer(self, *destinations: Destination, name: str = "deliver", policy: DeliveryPolicy = QUICK) -> Deliverer:
        """A deliverer as after a start of the node."""
        return Deliverer(self.registry, self.store, destinations, "DICOMNODE", name, policy=policy, clock=self.clock)

    def work_until(self, deliverer: Deliverer, *states: str) -> None:
        """Send and prove again and again until the deliveries stand so."""

        def stand_so() -> bool:
            deliverer.run_once()
            deliverer.prove_once()
            return self.states() == list(states)

        wait_until(stand_so, what=f"deliveries {', '.join(states)}")

    def deliveries(self) -> list[dict[str, Any]]:
        """The deliveries of all studies as `explain` tells them, in the order of studies and sending."""
        studies: list[Any] = [
            self.registry.explain(str(one["study_instance_uid"])) for one in reversed(self.registry.studies())
        ]
        return [delivery for study in studies for series in study["series"] for delivery in series["deliveries"]]

    def states(self, destination: str | None = None) -> list[str]:
        """States of deliveries, in the order of `deliveries`."""
        return [str(one["state"]) for one in self.deliveries() if destination in (None, one["destination"])]


def dicom_destination(name: str, ae_title: str, port: int, proof: str = "status") -> Destination:
    """A PACS on the loopback."""
    peer = Peer(name=name, ae_title=ae_title, host="127.0.0.1", port=port, may=frozenset())
    return Destination(
        name=name, kind="dicom", profile=PROFILE, proof=proof, accept_demonstration=True, peer=peer
    )  # type: ignore[arg-type]  # fmt: skip


def folder_destination(name: str, path: Path) -> Destination:
    """A folder of this machine."""
    return Destination(name=name, kind="folder", profile=PROFILE, proof="status", accept_demonstration=True, path=path)


def _dataset(
    kind: ResultKind, study: str, source: str, number: int, pixel_bytes: int, patient: dict[str, str]
) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.preamble = b"\0" * 128
    dataset.SOPClassUID = SOP_CLASSES[kind]
    dataset.SOPInstanceUID = derived_uid([kind.value, source])
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = derived_uid([kind.value, "series", source])
    dataset.Modality = MODALITIES[kind]
    dataset.AccessionNumber = f"ACC{number}"
    for keyword, value in patient.items():
        setattr(dataset, keyword, value)
    if kind is not ResultKind.SR:
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.NumberOfFrames = pixel_bytes // 4096
        dataset.Rows = dataset.Columns = 64
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        dataset.add_new("PixelData", "OB", b"\x01" * (4096 * dataset.NumberOfFrames))
    return dataset


def _result(kind: ResultKind, dataset: pydicom.Dataset, path: Path, content: bytes, source: str, order: int) -> ResultObject:
    return ResultObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        source_sop_instance_uids=(source,),
        order=order,
    )
