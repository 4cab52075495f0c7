"""Jobs that ended without anybody left to say so: their worker died once too often, or was not heard of any more.

The registry ends them, and a worker that is well says "AI not run" for them afterwards. A claim that is not answered, because
its worker was ended too, goes to another one after a while; three times, for what killed the workers may kill these too.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, func, or_, select, update
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
_MOST_CLAIMS = 3
_LEASE = timedelta(minutes=5)  # to build a few small objects takes seconds


def _unsaid(now: datetime) -> list[ColumnElement[bool]]:
    """A worker that ends its job itself writes the outcome; the registry does not."""
    held = exists().where(Study.id == Job.study_id, Study.held != "")
    nobody_speaks = or_(Job.lease_until.is_(None), Job.lease_until <= now)
    tried = func.coalesce(Job.notices, 0)
    return [Job.state == _FAILED, Job.outcome == "", Job.series_id.is_not(None), nobody_speaks, tried < _MOST_CLAIMS, ~held]


def any_unsaid(session: Session, now: datetime) -> bool:
    """Whether a claim has a chance. Reads only."""
    return session.scalar(select(Job.id).where(*_unsaid(now)).limit(1)) is not None


def claim(session: Session, worker: str, now: datetime) -> ClaimedJob | None:
    """The oldest such job, with what is to be said as its `refusal`; for a while nobody else gets it."""
    job = session.scalars(
        select(Job).where(*_unsaid(now)).order_by(Job.id).limit(1).with_for_update(skip_locked=True)
    ).one_or_none()
    if job is None:
        return None
    starts, reason = job.starts + 1, job.reason
    values = {"worker": worker, "starts": starts, "notices": (job.notices or 0) + 1, "lease_until": now + _LEASE}
    taken = session.execute(
        update(Job).where(Job.id == job.id, Job.starts == job.starts, *_unsaid(now)).values(**values).returning(Job.id),
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
    _change(session, job, outcome=JobEvent.FAILED.value, lease_until=None)
    wanted = Wanted(destinations, kinds_by_destination, profile_by_destination)
    keep_results(session, job, results, wanted, now, not_run=True)


def put_off(session: Session, job: ClaimedJob, until: datetime) -> None:
    """It cannot be said just now, by no fault of the job's: this claim does not count. StaleUpdate as in `say`."""
    _change(session, job, notices=Job.notices - 1, lease_until=until)


def _change(session: Session, job: ClaimedJob, **values: object) -> None:
    mine = (Job.id == job.id, Job.state == _FAILED, Job.worker == job.worker, Job.starts == job.starts)
    changed = session.execute(
        update(Job).where(*mine).values(**values).returning(Job.id), execution_options={"synchronize_session": False}
    ).all()
    if len(changed) != 1:
        raise StaleUpdate(f"{job.key} is no longer failed in these hands", "drop what was to be said of it")
