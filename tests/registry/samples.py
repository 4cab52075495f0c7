"""Rows for tests: instances as receiving hands them over, jobs as routing wants them, results as a worker leaves them."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode.domain.received import Received
from dicomnode.domain.results import ResultKind, ResultObject
from dicomnode.registry import ClaimedJob, PlannedJob, Registry, SeriesCompletion, StudyJudgement

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# For what only one of the two databases has; without a mark a test runs on both.
ONLY_SQLITE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
ONLY_POSTGRESQL = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


@dataclass
class Clock:
    """A clock that a test sets."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def received(
    sop: str = "1.2.3.1.1",
    *,
    study: str = "1.2.3",
    series: str = "1.2.3.1",
    at: datetime = START,
    sop_class: str = CT,
    association_key: str = "",
    content: str = "",
    **attributes: str,
) -> Received:
    """One received instance; further keyword arguments are DICOM keywords."""
    header = {
        "Modality": "CT",
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19700101",
        "StudyDate": "20261121",
        "AccessionNumber": "ACC1",
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "InstanceNumber": sop.rpartition(".")[2],
    }
    return Received(
        sop_class_uid=sop_class,
        sop_instance_uid=sop,
        series_instance_uid=series,
        study_instance_uid=study,
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
        path=Path("instances") / f"{sop}.dcm",
        sha256=digest(sop + content),
        pixel_digest=digest("pixels" + sop + content),
        size_bytes=1000,
        attributes=header | attributes,
        calling_ae="MODALITY",
        called_ae="DICOMNODE",
        address="127.0.0.1",
        association_key=association_key,
        received_at=at,
    )


def add_series(registry: Registry, slices: int = 10, *, study: str = "1.2.3", series: str = "1.2.3.1", **more: object) -> str:
    """A series of so many instances; its key."""
    key = ""
    for number in range(1, slices + 1):
        one = received(f"{series}.{number}", study=study, series=series, **more)  # type: ignore[arg-type]
        key = registry.add_instance(one, ours=False).series_key
    return key


def queue_job(registry: Registry, *, pipeline: str = "chest_ct", route: str = "chest-ct", priority: int = 0) -> list[str]:
    """Complete every unsettled study and queue one job for its first series, as routing would; the new keys."""
    created = []
    for study in registry.studies_to_judge():
        first = study.series[0]
        standing = tuple(job.id for job in study.jobs if job.state != "superseded")
        created += registry.record_judgement(
            StudyJudgement(
                study_id=study.study_id,
                arrivals=study.arrivals,
                completions=tuple(
                    SeriesCompletion(one.series_id, complete=True, forced=False, evidence={"why": "quiet for 10 s"})
                    for one in study.series
                    if one.state == "arriving"
                ),
                jobs=(PlannedJob(route, pipeline, first.series_id, first.generation, 0, replaces=standing, priority=priority),),
                settled=True,
            )
        )
    return created


@dataclass
class Spool:
    """Result objects with UIDs that depend on job and version, as real ones do."""

    study: str = "1.2.3"
    made: dict[str, ResultObject] = field(default_factory=dict)

    def objects(
        self, job: ClaimedJob, kinds: tuple[str, ...] = ("SEG", "SR", "SC"), note: str = ""
    ) -> tuple[ResultObject, ...]:
        return tuple(self._object(job, kind, order, note) for order, kind in enumerate(kinds))

    def _object(self, job: ClaimedJob, kind: str, order: int, note: str) -> ResultObject:
        uid = f"2.25.{int(digest(f'{job.study_key}{job.pipeline}{job.version}{kind}{note}')[:24], 16)}"
        one = ResultObject(
            kind=ResultKind(kind),
            sop_class_uid=SEG,
            sop_instance_uid=uid,
            series_instance_uid=uid + ".1",
            study_instance_uid=self.study,
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
            path=Path("spool") / job.key / f"{kind}.dcm",
            sha256=digest(uid),
            size_bytes=100,
            source_sop_instance_uids=tuple(job.source_digests),
            order=order,
        )
        self.made[uid] = one
        return one
