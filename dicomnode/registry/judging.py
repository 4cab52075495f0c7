"""What routing sees of studies that are not settled, and how its judgement is written."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.errors import StaleUpdate
from dicomnode.domain.states import JobState, SeriesEvent, SeriesState
from dicomnode.registry.announcements import announced_of
from dicomnode.registry.members import among_numbers
from dicomnode.registry.operator import new_job
from dicomnode.registry.other_titles import times_of
from dicomnode.registry.queue import inputs_as_json, inputs_from, refusal_as_json, supersede
from dicomnode.registry.records import (
    Announced,
    AssociationEvidence,
    JobSummary,
    SeriesCompletion,
    SeriesEvidence,
    SeriesVerdict,
    StudyEvidence,
    StudyJudgement,
)
from dicomnode.registry.tables import Association, Instance, Job, Series, Study, Verdict
from dicomnode.registry.text import header_text, whole_number
from dicomnode.registry.transitions import SERIES, change

_NOTHING_ANNOUNCED = Announced()


def studies_to_judge(session: Session) -> list[StudyEvidence]:
    """The studies in which something arrived since routing settled them."""
    columns = (Study.id, Study.arrivals, Study.study_instance_uid)
    studies = session.execute(select(*columns).where(Study.unsettled).order_by(Study.id)).all()
    if not studies:
        return []
    associations = session.scalars(select(Association).where(Association.ended_at.is_(None))).all()
    announced = announced_of(session, {row.study_instance_uid: row.id for row in studies})
    return [
        _evidence(
            session, row.id, row.arrivals, row.study_instance_uid, associations, announced.get(row.id, _NOTHING_ANNOUNCED)
        )
        for row in studies
    ]


def _evidence(
    session: Session,
    study_id: int,
    arrivals: int,
    study_instance_uid: str,
    associations: Sequence[Association],
    announced: Announced,
) -> StudyEvidence:
    rows = session.scalars(select(Series).where(Series.study_id == study_id, ~Series.ours).order_by(Series.id)).all()
    jobs = session.scalars(select(Job).where(Job.study_id == study_id).order_by(Job.id)).all()
    return StudyEvidence(
        study_id=study_id,
        key=f"S{study_id}",
        arrivals=arrivals,
        series=_all_series(session, rows),
        associations=open_associations(rows, study_id, associations),
        jobs=tuple(_summary(job) for job in jobs),
        study_instance_uid=study_instance_uid,
        announced=announced,
    )


def open_associations(
    series: Sequence[Series], study_id: int, associations: Sequence[Association]
) -> tuple[AssociationEvidence, ...]:
    """Open associations from where this study came: same AE title and address."""
    sources = {(row.calling_ae, row.address) for row in series}
    return tuple(
        AssociationEvidence(
            key=f"A{row.id}",
            calling_ae=row.calling_ae,
            address=row.address,
            last_active_at=row.last_instance_at or row.opened_at,
            sends_this_study=row.last_study_id == study_id,
            sent_nothing_yet=row.last_instance_at is None,
        )
        for row in associations
        if (row.calling_ae, row.address) in sources
    )


def _all_series(session: Session, rows: Sequence[Series]) -> tuple[SeriesEvidence, ...]:
    # Four light columns: the attributes of a thousand instances would cost a hundred times as much, every second.
    columns = (Instance.series_id, Instance.instance_number, Instance.image_type, Instance.number_of_frames, Instance.purged_at)
    of_these = among_numbers(Instance.series_id, [row.id for row in rows])
    numbers: dict[int, list[int]] = defaultdict(list)
    image_types: dict[int, Counter[str]] = defaultdict(Counter)
    frames: Counter[int] = Counter()
    instances: Counter[int] = Counter()
    standing = (of_these, ~Instance.ours, Instance.rejected.is_(None))
    purged: Counter[int] = Counter()
    for series_id, number, image_type, number_of_frames, purged_at in session.execute(select(*columns).where(*standing)):
        purged[series_id] += purged_at is not None
        if number is not None:
            numbers[series_id].append(number)
        image_types[series_id][image_type] += 1
        frames[series_id] += number_of_frames
        instances[series_id] += 1
    return tuple(
        SeriesEvidence(
            series_id=row.id,
            key=f"E{row.id}",
            series_instance_uid=row.series_instance_uid,
            state=SeriesState(row.state),
            generation=row.generation,
            sop_class_uid=row.sop_class_uid,
            attributes={
                **row.attributes,
                "CalledAETitle": "\\".join((row.called_ae, *(row.also_called or {}))),
                "CallingAETitle": row.calling_ae,
            },
            image_types=dict(image_types[row.id]),
            instance_numbers=tuple(sorted(numbers[row.id])),
            instances=instances[row.id],
            slices=frames[row.id],
            opened_at=row.opened_at,
            last_arrival_at=row.last_arrival_at,
            announced=announced(row.attributes),
            held=row.held,
            evidence=row.evidence,
            also_called=times_of(row.also_called),
            purged=purged[row.id],
        )
        for row in rows
    )


def announced(attributes: Mapping[str, str]) -> int | None:
    """The number of instances that the source itself says the series has; None where it is silent.

    A multi-frame instance is whole by itself. Number of Series Related Instances (0020,1209) is a PACS's own count; Number of
    Slices (0054,0081) and Images in Acquisition (0020,1002) are the modality's.
    """
    if (whole_number(header_text(attributes, "NumberOfFrames")) or 1) > 1:
        return 1
    for keyword in ("NumberOfSeriesRelatedInstances", "NumberOfSlices", "ImagesInAcquisition"):
        number = whole_number(header_text(attributes, keyword))
        if number is not None and number > 0:
            return number
    return None


def _summary(job: Job) -> JobSummary:
    return JobSummary(
        id=job.id,
        key=f"J{job.id}",
        pipeline=job.pipeline,
        version=job.version,
        # What a rejection note ended stands in the way of no other series, as what an operator cancelled does.
        state=JobState.SUPERSEDED if job.reason_code == "rejected" else JobState(job.state),
        route=job.route,
        series_id=job.series_id,
        series_generation=job.series_generation,
        scope_series_id=job.scope_series_id,
        preset_refusal=job.preset_refusal is not None,
        others=inputs_from(job.others),
    )


def record(session: Session, judgement: StudyJudgement, now: datetime) -> list[str]:
    """Write a judgement if nothing arrived since its evidence was read; the keys of new jobs."""
    unchanged = session.execute(
        update(Study)
        .where(Study.id == judgement.study_id, Study.arrivals == judgement.arrivals)
        .values(unsettled=not judgement.settled)
        .returning(Study.id)
    ).all()
    if len(unchanged) != 1:
        raise StaleUpdate(f"S{judgement.study_id} received something meanwhile", "judge it again with the new evidence")
    for completion in judgement.completions:
        _complete(session, completion, now)
    if judgement.verdicts:
        _replace_verdicts(session, judgement.verdicts, now)
    created = []
    for planned in judgement.jobs:
        standing = Job.state != JobState.SUPERSEDED.value
        replaced = session.scalars(select(Job).where(Job.id.in_(planned.replaces), standing)).all()
        supersede(session, replaced, "a newer version takes over", now)
        job_id = new_job(
            session,
            study_id=judgement.study_id,
            series_id=planned.series_id,
            series_generation=planned.series_generation,
            scope_series_id=planned.scope_series_id,
            route=planned.route,
            pipeline=planned.pipeline,
            preset_refusal=refusal_as_json(planned.refusal),
            others=inputs_as_json(planned.others),
            priority=planned.priority,
            now=now,
        )
        created.append(f"J{job_id}")
    return created


def _complete(session: Session, completion: SeriesCompletion, now: datetime) -> None:
    series_id, evidence = completion.series_id, dict(completion.evidence)
    if not completion.complete:
        session.execute(update(Series).where(Series.id == series_id).values(evidence=evidence))
        return
    reason = str(evidence.get("why", ""))
    values = {"evidence": evidence, "forced": completion.forced, "completed_at": now}
    arriving = SeriesState.ARRIVING.value
    change(session, SERIES, series_id, arriving, SeriesEvent.COMPLETED, now=now, reason=reason, values=values)


def _replace_verdicts(session: Session, verdicts: Sequence[SeriesVerdict], now: datetime) -> None:
    session.execute(delete(Verdict).where(among_numbers(Verdict.series_id, {verdict.series_id for verdict in verdicts})))
    rows = [
        {
            "series_id": verdict.series_id,
            "route": verdict.route,
            "matched": verdict.matched,
            "chosen": verdict.chosen,
            "why": verdict.why,
            "judged_at": now,
        }
        for verdict in verdicts
    ]
    session.execute(insert(Verdict), rows)
