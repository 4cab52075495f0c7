"""`Registry`: every question and every change as one short transaction."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from dicomnode.domain.clock import type_clock, utc_now
from dicomnode.domain.errors import DatabaseUnreachable
from dicomnode.domain.received import Received
from dicomnode.domain.results import ResultObject
from dicomnode.domain.states import JobEvent
from dicomnode.registry import (
    clock_jumps,
    conflicts,
    damage,
    finishing,
    judging,
    migrations,
    notices,
    operator,
    other_titles,
    outbox,
    proofs,
    queue,
    receiving,
)
from dicomnode.registry.answers import Answers
from dicomnode.registry.arrivals import Arrivals
from dicomnode.registry.associations import Associations
from dicomnode.registry.engine import Database
from dicomnode.registry.holdings import Holdings
from dicomnode.registry.keeping import Keeping
from dicomnode.registry.lookahead import Lookahead
from dicomnode.registry.outgoing import Outgoing
from dicomnode.registry.presence import Presence, end_associations_of_the_gone
from dicomnode.registry.promises import Promises
from dicomnode.registry.proofs import Proofs
from dicomnode.registry.records import (
    ClaimedJob,
    InstanceKeys,
    KnownInstance,
    StoredFile,
    StudyEvidence,
    StudyJudgement,
)
from dicomnode.registry.trouble import begun_anew

_MOST_VALUES = 500  # in one IN (…): old SQLite takes 999 parameters


@begun_anew
class Registry(Answers, Outgoing):
    """The rows of the node. Safe to share between threads; one per process (never across a fork)."""

    def __init__(self, url: str, *, clock: type_clock = utc_now, node: str = "") -> None:
        """`url`: sqlite:////absolute/path or postgresql+psycopg://…; nothing is opened yet.

        node: which of those that share these rows; the names of its workers begin with "node:". "": there is no other.
        """
        self._database = Database(url)
        self._node = node
        self._away_since: datetime | None = None  # the database, as the look for lost leases found it
        self._arrivals = Arrivals(self._database)
        self._associations = Associations(self._database, node)
        self._clock = clock
        self.proofs = Proofs(self._database, clock)
        self.promises = Promises(self._database, clock)
        self.holdings = Holdings(self._database, clock)
        self.keeping = Keeping(self._database, clock)
        self.lookahead = Lookahead(self._database, clock)
        self.presence = Presence(self._database, clock)

    def close(self) -> None:
        """Give all connections back."""
        self._database.close()

    def prepare(self) -> str:
        """Bring an empty database to the newest revision; returns it. SettingsError for an older or unknown revision."""
        return migrations.migrate(self._database, only_if_empty=True)

    def upgrade(self) -> str:
        """Migrate to the newest revision (`dicomnode db upgrade`); returns it."""
        return migrations.migrate(self._database, only_if_empty=False)

    def revision(self) -> str | None:
        """The database's revision; None for an empty database."""
        with self._database.read() as session:
            return migrations.revision_of(session.connection())

    # receiving

    def instance(self, sop_instance_uid: str) -> KnownInstance | None:
        """What is stored under this UID."""
        with self._database.read() as session:
            return receiving.find_instance(session, sop_instance_uid)

    def add_instance(self, received: Received, *, ours: bool, replaces: bool = False) -> InstanceKeys:
        """Keep the row of a durable instance; committed on return. A late image reopens its series and supersedes its job.

        replaces: the stored bytes were missing or damaged; path, digests and size are renewed, no new work arises.
        """
        return self._arrivals.add(received, ours=ours, replaces=replaces)

    def settle_doubts(self) -> int:
        """After a database server was away: remove what it may have kept of images that were not acknowledged; how many."""
        return self._arrivals.settle_doubts()

    def came_again(self, received: Received) -> None:
        """A stored instance came once more, unchanged: that counts where it came to another of our AE titles. Durable."""
        with self._database.read() as session:
            if not other_titles.says_something(session, received):
                return
        with self._database.write() as session:
            other_titles.note(session, received)

    def record_conflict(self, received: Received, kind: str) -> None:
        """Same UID, other content (`ConflictKind`): hold the jobs of the series or study until an operator decides."""
        with self._database.write() as session:
            conflicts.record(session, received, kind, self._clock())

    def forget_instances(self, sop_instance_uids: Sequence[str]) -> int:
        """Remove rows whose bytes were never acknowledged (found after a crash); returns how many."""
        with self._database.write() as session:
            return receiving.forget_instances(session, sop_instance_uids, self._clock())

    def association_opened(self, calling: str, called: str, address: str) -> str:
        """Note an association; returns its key ("A90"). Durable with its first instance."""
        return self._associations.opened(calling, called, address, self._clock())

    def association_ended(self, key: str, how: str) -> None:
        """Note how an association ended: released, aborted, lost … Durable with whatever is written next."""
        self._associations.ended(key, how, self._clock())

    def associations_ended(self, ends: Sequence[tuple[str, str, datetime]]) -> None:
        """The same of many associations (key, how, when), in one transaction."""
        self._associations.all_ended(ends)

    def is_our_result(self, sop_instance_uid: str) -> bool:
        """Whether this node made, or already recognised, this instance as a result of this software."""
        with self._database.read() as session:
            return receiving.is_our_result(session, sop_instance_uid)

    def known_files(self) -> Iterator[tuple[Path, int, str]]:
        """(relative path, size in bytes, SHA-256) of every file that a row names: instances, quarantine and spooled results.

        The SHA-256 of an instance is that of its data set without preamble and file meta; of a result that of the whole file.
        """
        after = [0, 0, 0]
        while True:
            # In pages: one long read would keep SQLite's write-ahead log from being folded back.
            with self._database.read() as session:
                page = list(receiving.known_files(session, (after[0], after[1], after[2])))
            if not page:
                return
            for table, row_id, path, size_bytes, sha256 in page:
                after[table] = row_id
                yield path, size_bytes, sha256

    def last_clean_stop(self) -> datetime | None:
        """When the node last stopped in order; None if never."""
        with self._database.read() as session:
            return receiving.last_clean_stop(session)

    def mark_clean_stop(self) -> None:
        """The node stops in order now."""
        with self._database.write() as session:
            receiving.mark_clean_stop(session, self._clock())

    def instances_since(self, since: datetime | None) -> list[KnownInstance]:
        """Instances whose rows are newer than `since` (all for None): after a crash their bytes are looked at again."""
        with self._database.read() as session:
            return receiving.instances_since(session, since)

    def files_since(self, since: datetime | None) -> Iterator[tuple[Path, int, str]]:
        """(relative path, size in bytes, SHA-256 of the data set) of the instances received at `since` or later."""
        after = 0
        while True:
            with self._database.read() as session:  # in pages, as in `known_files`
                page = receiving.files_since(session, since, after)
            if not page:
                return
            after = page[-1][0]
            yield from ((path, size_bytes, sha256) for _, path, size_bytes, sha256 in page)

    def files_in(self, folder: Path, since: datetime) -> list[StoredFile]:
        """What the rows received at `since` or later name in this folder (relative to the store's root)."""
        with self._database.read() as session:
            return receiving.files_in(session, folder, since)

    def files_of(self, sop_instance_uids: Sequence[str]) -> list[StoredFile]:
        """The files of those of these instances that have a row."""
        found: list[StoredFile] = []
        for start in range(0, len(sop_instance_uids), _MOST_VALUES):
            with self._database.read() as session:
                found += receiving.files_of(session, sop_instance_uids[start : start + _MOST_VALUES])
        return found

    def verified_until(self) -> datetime | None:
        """What arrived before needs no look after a crash; None: nothing was ever looked at."""
        with self._database.read() as session:
            return receiving.verified_until(session)

    def mark_verified(self, until: datetime) -> None:
        """All that arrived before `until` was looked at and is on disk as it was acknowledged."""
        with self._database.write() as session:
            receiving.mark_verified(session, until)

    def studies_of_files(self, paths: Sequence[Path]) -> list[str]:
        """The keys of the studies whose instances lie at these paths."""
        with self._database.read() as session:
            return damage.studies_of(session, paths)

    def jobs_at_work(self) -> frozenset[str]:
        """The keys of the jobs that a worker holds just now."""
        with self._database.read() as session:
            return damage.jobs_at_work(session)

    def hold_damaged(self, paths: Sequence[Path]) -> list[str]:
        """Let no job start on the series of these files until an operator decides (`retry E5`); keys of the newly held."""
        with self._database.write() as session:
            return damage.hold(session, paths, self._clock())

    # routing

    def studies_to_judge(self) -> list[StudyEvidence]:
        """The studies in which something arrived since routing settled them, with all evidence."""
        with self._database.read() as session:
            return judging.studies_to_judge(session)

    def record_judgement(self, judgement: StudyJudgement) -> list[str]:
        """Write what routing decided; returns the keys of new jobs. StaleUpdate if something arrived in between."""
        with self._database.write() as session:
            return judging.record(session, judgement, self._clock())

    # queue

    def claim_job(self, worker: str, lease_s: float) -> ClaimedJob | None:
        """The next job for this worker, or None. Jobs of held studies and series are left alone."""
        now = self._clock()
        # Most claims find nothing; looking first, beside the writers, keeps idle workers off the write lock.
        with self._database.read() as session:
            if not queue.anything_claimable(session, now):
                return None
        with self._database.write() as session:
            return queue.claim(session, worker, lease_s, now)

    def renew_lease(self, job: ClaimedJob) -> None:
        """Own the job for another lease. StaleUpdate if it is no longer this worker's."""
        with self._database.write() as session:
            queue.renew(session, job, self._clock())

    def finish_job(
        self,
        job: ClaimedJob,
        event: JobEvent,
        *,
        reason_code: str = "",
        reason: str = "",
        remedy: str = "",
        findings_summary: Mapping[str, object] | None = None,
        results: Sequence[ResultObject] = (),
        destinations: Sequence[str] = (),
        notes: Sequence[str] = (),
        timings_s: Mapping[str, float] | None = None,
        retry_after_s: float | None = None,
        kinds_by_destination: Mapping[str, Sequence[str]] | None = None,
        profile_by_destination: Mapping[str, str] | None = None,
    ) -> None:
        """End an attempt: state, results, deliveries and audit in one transaction. StaleUpdate changes nothing.

        event: FINISHED, REFUSED, FAILED or TRY_AGAIN. reason and remedy are shown by explain as sentences.
        kinds_by_destination: the kinds a destination's profile takes (all for a destination that is not named);
        profile_by_destination: the profile's name: fallbacks are kept and wait until an object is refused. "Not run"
        objects are not sent again where an earlier version's already went.
        """
        with self._database.write() as session:
            finishing.finish(
                session,
                job,
                event,
                self._clock(),
                reason_code=reason_code,
                reason=reason,
                remedy=remedy,
                findings_summary=findings_summary,
                results=results,
                destinations=destinations,
                notes=notes,
                timings_s=timings_s or {},
                retry_after_s=retry_after_s,
                kinds_by_destination=kinds_by_destination or {},
                profile_by_destination=profile_by_destination or {},
            )

    def claim_notice(self, worker: str) -> ClaimedJob | None:
        """A job that failed with its workers, of which nobody has said "not run" yet; `refusal` is what to say.

        Nobody else gets it for some minutes; a claim that is not answered by then is given to another one, three times.
        """
        now = self._clock()
        with self._database.read() as session:
            if not notices.any_unsaid(session, now):
                return None
        with self._database.write() as session:
            return notices.claim(session, worker, now)

    def put_off_notice(self, job: ClaimedJob, pause_s: float) -> None:
        """What `claim_notice` asked for cannot be said just now: again after a pause, without counting as a try."""
        with self._database.write() as session:
            notices.put_off(session, job, self._clock() + timedelta(seconds=pause_s))

    def say_not_run(
        self,
        job: ClaimedJob,
        results: Sequence[ResultObject],
        destinations: Sequence[str],
        kinds_by_destination: Mapping[str, Sequence[str]],
        profile_by_destination: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what `claim_notice` asked for, and its deliveries. StaleUpdate if the job went on meanwhile."""
        with self._database.write() as session:
            notices.say(session, job, self._clock(), results, destinations, kinds_by_destination, profile_by_destination or {})

    def requeue_lost(self, now: datetime | None = None) -> int:
        """Jobs and deliveries whose lease ended go back to their queue, associations of vanished nodes end; how many rows.

        While the database is away nobody can renew: leases that ended meanwhile have until the next look.
        """
        now = self._clock() if now is None else now
        since = self._away_since
        try:
            with self._database.write() as session:
                lost = "its sender was not heard of"
                ended_before = since or now
                changed = queue.requeue_lost(session, ended_before, now)
                changed += outbox.requeue_lost(session, ended_before, now, reason=lost)
                if self._node:
                    changed += end_associations_of_the_gone(session, ended_before, now)
                clock_jumps.bring_back(session, now)
        except DatabaseUnreachable:
            self._away_since = since or now
            raise
        self._away_since = None
        return changed

    def worker_died(self, worker: str) -> int:
        """The process died while its supervisor lived: its jobs are queued again, or failed as poison at the third crash.

        What it was sending is sent again at once. Returns how many rows changed.
        """
        now = self._clock()
        with self._database.write() as session:
            lost = outbox.sender_ended(session, now, worker=worker, reason="its sender died")
            return lost + queue.worker_died(session, worker, now)

    def worker_ended(self, worker: str) -> int:
        """The process ended without a crash, told to or by itself: what it held goes back, attempts of jobs with it."""
        now = self._clock()
        with self._database.write() as session:
            lost = outbox.sender_ended(session, now, worker=worker, reason="its sender ended")
            return lost + queue.worker_ended(session, worker, now)

    def node_restarted(self, roles: Collection[str] = ("receive", "work", "deliver")) -> int:
        """These roles of this node begin anew: what they held is given back, attempts of jobs with it; how many jobs.

        What other nodes hold stays theirs: they live, or their leases end.
        """
        now, why = self._clock(), "the node was restarted"
        with self._database.write() as session:
            if "receive" in roles:
                receiving.all_associations_ended(session, why, now, node=self._node)
                proofs.ask_again(session, now)
            if "deliver" in roles:
                outbox.senders_ended(session, now, node=self._node, reason=why)
            return queue.node_ended(session, now, node=self._node) if "work" in roles else 0

    def retry(self, key: str) -> list[str]:
        """Operator: the same job (J) or delivery (D) again, or let a held series (E) or study (S) go on; changed keys."""
        with self._database.write() as session:
            return operator.retry(session, key, self._clock())

    def cancel(self, key: str) -> list[str]:
        """Operator: cancel a job (J) or delivery (D), or let a held study (S) go on as it was stored; returns changed keys."""
        with self._database.write() as session:
            return operator.cancel(session, key, self._clock())

    def reprocess(self, study_or_key: str) -> list[str]:
        """Operator: a new version with new UIDs, of one job (J) or, judged anew by the next sweep, of a study; changed keys."""
        with self._database.write() as session:
            return operator.reprocess(session, study_or_key, self._clock())
