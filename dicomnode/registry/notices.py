"""Jobs that ended without anybody left to say so: their worker died once too often, or was not heard of any more.

The registry ends them, and a worker that is well says "AI not run" for them afterwards. That is tried once: what killed the
workers may kill this one too.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.orm import Session

from dicomnode.domain.errors import StaleUpdate
from dicomnode.domain.imaging import Refusal, RefusalCode
from dicomnode.domain.results import ResultObject
from dicomnode.domain.states import JobEvent, JobState
from dicomnode.registry.finishing import Wanted, keep_results
from dicomnode.registry.queue import claimed_as
from dicomnode.registry.records import ClaimedJob
from dicomnode.registry.tables import Job, Study

_FAILED = JobState.FAILED.value


def _unsaid() -> list[ColumnElement[bool]]:
    """A worker that ends its job itself writes the outcome; the registry does not."""
    held = exists().where(Study.id == Job.study_id, Study.held != "")
    return [Job.state == _FAILED, Job.outcome == "", Job.series_id.is_not(None), ~held]


def any_unsaid(session: Session) -> bool:
    """Whether a claim has a chance. Reads only."""
    return session.scalar(select(Job.id).where(*_unsaid()).limit(1)) is not None


def claim(session: Session, worker: str) -> ClaimedJob | None:
    """The oldest such job, with what is to be said as its `refusal`; it counts as said from now on."""
    job = session.scalars(
        select(Job).where(*_unsaid()).order_by(Job.id).limit(1).with_for_update(skip_locked=True)
    ).one_or_none()
    if job is None:
        return None
    starts, reason = job.starts + 1, job.reason
    taken = session.execute(
        update(Job)
        .where(Job.id == job.id, Job.starts == job.starts, *_unsaid())
        .values(outcome=JobEvent.FAILED.value, worker=worker, starts=starts)
        .returning(Job.id),
        execution_options={"synchronize_session": False},
    ).all()
    if len(taken) != 1:
        return None
    refusal = Refusal(RefusalCode.PROCESSING_FAILED, reason, f"`dicomnode retry J{job.id}` runs it again")
    return claimed_as(session, job, worker, job.attempt, starts, lease_s=0.0, refusal=refusal)


def say(
    session: Session,
    job: ClaimedJob,
    now: datetime,
    results: Sequence[ResultObject],
    destinations: Sequence[str],
    kinds_by_destination: Mapping[str, Sequence[str]],
    profile_by_destination: Mapping[str, str],
) -> None:
    """Keep the "not run" objects and their deliveries. StaleUpdate if an operator or a late image was quicker."""
    mine = (Job.id == job.id, Job.state == _FAILED, Job.worker == job.worker, Job.starts == job.starts)
    if session.scalar(select(Job.id).where(*mine).with_for_update()) is None:
        raise StaleUpdate(f"{job.key} is no longer failed in these hands", "drop what was to be said of it")
    wanted = Wanted(destinations, kinds_by_destination, profile_by_destination)
    keep_results(session, job, results, wanted, now, not_run=True)
