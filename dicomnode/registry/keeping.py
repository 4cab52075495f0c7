"""What is kept, for how long and under whose name: identities, retention, what the node remembers of itself."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from dicomnode.domain.clock import type_clock
from dicomnode.domain.errors import UsageError
from dicomnode.domain.results import ResultObject
from dicomnode.domain.states import SeriesState
from dicomnode.registry import announcements, canary, clock_jumps, conflicts, keys, own_notes, references, rejections, retention
from dicomnode.registry.engine import Database
from dicomnode.registry.tables import Job, Series, Study
from dicomnode.registry.trouble import begun_anew


@begun_anew
class Keeping:
    """The registry's part for what is kept. Each call is one short transaction, committed on return."""

    def __init__(self, database: Database, clock: type_clock) -> None:
        self._database, self._clock = database, clock

    def identity(self, study_key: str) -> tuple[str, dict[str, str]]:
        """Study Instance UID, and who the newest header says that the patient is (keyword → text, only what it states)."""
        study_id = keys.row_id(study_key, "S")
        with self._database.read() as session:
            study = session.get(Study, study_id)
            if study is None:
                raise UsageError(f"no study is known as {study_key!r}", "`dicomnode studies` shows keys")
            return study.study_instance_uid, conflicts.newest_identity(session, study_id)

    def references_problem(self, sop_instance_uids: Sequence[str]) -> str:
        """Why an object that names these instances must not leave; "" if all are here and stand."""
        with self._database.read() as session:
            return references.problem(session, sop_instance_uids)

    def believed_time(self) -> datetime:
        """The clock's time, unless it has moved by more than a day since this was last asked: see `clock_jumps.believed`."""
        now = self._clock()
        with self._database.write() as session:
            return clock_jumps.believed(session, now)

    def purge_sources(
        self, before: datetime, status_is_proof: Collection[str], limit: int, now: datetime | None = None
    ) -> list[str]:
        """Count no longer on the sources of up to `limit` studies to which nothing came since; their keys, oldest first.

        Only what is done, promised to nobody, and has arrived: sent to where the answer is all the proof there is
        (status_is_proof), proved elsewhere. Their files go with `files_to_remove`. now: what promises are compared with.
        """
        now = now or self._clock()
        with self._database.read() as session:
            found = retention.purgeable_studies(session, before, status_is_proof, now, limit)
        purged = []
        for study_id in found:
            with self._database.write() as session:  # each by itself: receiving does not wait for many
                if retention.begin_purge(session, study_id, status_is_proof, now):
                    purged.append(f"S{study_id}")
        return purged

    def purge_results(self, before: datetime, status_is_proof: Collection[str], limit: int) -> list[str]:
        """The same for the spooled results of jobs that ended before; the keys of the jobs."""
        with self._database.read() as session:
            if not retention.purgeable_jobs(session, before, status_is_proof, 1):
                return []
        with self._database.write() as session:
            job_ids = retention.purgeable_jobs(session, before, status_is_proof, limit)
            retention.begin_purge_of_results(session, job_ids, self._clock())
        return [f"J{job_id}" for job_id in job_ids]

    def files_to_remove(self, limit: int) -> list[Path]:
        """Files that nobody counts on any more, relative to the store's root. Say `files_removed` when they are gone."""
        with self._database.read() as session:
            return retention.files_to_remove(session, limit)

    def files_removed(self, paths: Sequence[Path]) -> None:
        """These are gone."""
        with self._database.write() as session:
            retention.removed(session, paths)

    def forget(self, *, instances_purged_before: datetime | None, associations_ended_before: datetime, limit: int) -> int:
        """Remove rows that nobody asks for any more; how many."""
        with self._database.write() as session:
            forgotten = retention.forget_associations(session, associations_ended_before, limit)
            forgotten += announcements.forget(session, associations_ended_before, limit)
            if instances_purged_before is not None:
                forgotten += retention.forget_instances_purged(session, instances_purged_before, limit)
        return forgotten

    def audit_before(self, before: datetime, limit: int) -> list[Mapping[str, Any]]:
        """The oldest audit rows from before, column → value."""
        with self._database.read() as session:
            return retention.audit_before(session, before, limit)

    def forget_audit(self, ids: Sequence[int]) -> None:
        """Remove these audit rows: they stand in the archive, durably."""
        with self._database.write() as session:
            retention.forget_audit(session, ids)

    # what a PACS lists

    def note_counts(self, series_id: int, counts: Sequence[Mapping[str, object]]) -> None:
        """Keep what a PACS listed of a series that still arrives, as evidence."""
        with self._database.write() as session:
            series = session.get(Series, series_id, with_for_update=True)
            if series is not None and series.state == SeriesState.ARRIVING.value:
                series.evidence = {**series.evidence, "counts": list(counts)}

    # the canary

    def canary_marks(self) -> tuple[datetime | None, datetime | None]:
        """When the last canary was sent, and when one last came out whole."""
        with self._database.read() as session:
            return canary.marks(session, self._clock())

    def remember_canary(self, name: str, at: datetime) -> None:
        """Keep one of the two times (`canary.SENT`, `canary.ANSWERED`)."""
        with self._database.write() as session:
            canary.remember(session, name, at)

    def canary_answer(self, study_instance_uid: str) -> canary.CanaryAnswer | None:
        """What became of this canary; None if it never arrived."""
        with self._database.read() as session:
            return canary.answer(session, study_instance_uid)

    def purge_canaries(self, status_is_proof: Collection[str]) -> list[str]:
        """Count no longer on the images and results of canaries that are done and have arrived; their keys."""
        now, purged = self._clock(), []
        with self._database.read() as session:
            found = canary.studies(session)
        for key in found:
            study_id = keys.row_id(key, "S")
            with self._database.write() as session:
                if retention.begin_purge(session, study_id, status_is_proof, now):
                    job_ids = session.scalars(select(Job.id).where(Job.study_id == study_id)).all()
                    retention.begin_purge_of_results(session, job_ids, now)
                    purged.append(key)
        return purged

    # rejection notes

    def unexamined_notes(self, limit: int) -> list[rejections.ReceivedNote]:
        """Key object selections that came in and that nobody has looked at."""
        with self._database.read() as session:
            return rejections.unexamined(session, limit)

    def note_examined(self, instance_id: int) -> None:
        """It rejects nothing, or its sender may not."""
        with self._database.write() as session:
            rejections.examined(session, instance_id)

    def carry_out_note(self, note: rejections.ReceivedNote, uids: Sequence[str], code: str, why: str) -> list[str]:
        """Leave these instances of the note's study out, end jobs on them, call results stale; the keys of what changed."""
        with self._database.write() as session:
            changed = rejections.reject(session, keys.row_id(note.study_key, "S"), uids, code, why, self._clock())
            rejections.examined(session, note.instance_id)
        return changed

    def due_notes(self, destination: str, youngest_result_after: datetime) -> list[own_notes.DueNote]:
        """What newer versions replaced at this destination and nobody has withdrawn there yet."""
        with self._database.read() as session:
            return own_notes.due(session, destination, youngest_result_after)

    def keep_note(self, job_id: int, note: ResultObject, destination: str) -> None:
        """A rejection note of ours, and its delivery."""
        with self._database.write() as session:
            own_notes.keep(session, job_id, note, destination, self._clock())
