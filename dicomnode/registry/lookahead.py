"""A look at the job that comes next, for who can prepare it while another one runs."""

from sqlalchemy import func, select

from dicomnode.domain.clock import type_clock
from dicomnode.domain.imaging import SeriesRef
from dicomnode.registry import queue
from dicomnode.registry.engine import Database
from dicomnode.registry.tables import Job, Study


class Lookahead:
    """Reads only: nothing is claimed, and nobody is kept from claiming it."""

    def __init__(self, database: Database, clock: type_clock) -> None:
        self._database, self._clock = database, clock

    def next_series(self) -> tuple[str, SeriesRef] | None:
        """Route and series (paths count from the store's root) of the job that the next claim would give, if there is one.

        None too for a job whose worker died before: it is not touched while another one runs, and costs nobody but itself.
        """
        with self._database.read() as session:
            due = queue.claimable(self._clock())
            order = func.coalesce(Job.rank_at, Job.created_at), Job.id
            job = session.scalars(select(Job).where(*due).order_by(*order).limit(1)).one_or_none()
            if job is None or job.crashes or job.preset_refusal is not None:
                return None
            study_uid = session.execute(select(Study.study_instance_uid).where(Study.id == job.study_id)).scalar_one()
            series, _ = queue.series_ref(session, study_uid, job.series_id)
            return None if series is None else (job.route, series)
