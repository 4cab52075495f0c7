"""`Registry`: every question and every change as one short transaction."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from dicomnode.domain.clock import type_clock, utc_now
from dicomnode.domain.received import Received
from dicomnode.domain.results import ResultObject
from dicomnode.domain.states import DeliveryEvent, JobEvent
from dicomnode.registry.records import (
    ClaimedDelivery,
    ClaimedJob,
    InstanceKeys,
    KnownInstance,
    StudyEvidence,
    StudyJudgement,
    Transition,
)


class Registry:
    """The rows of the node. Safe to share between threads; one per process (never across a fork)."""

    def __init__(self, url: str, *, clock: type_clock = utc_now) -> None:
        """`url`: sqlite:////absolute/path or postgresql+psycopg://…; nothing is opened yet."""
        raise NotImplementedError

    def close(self) -> None:
        """Give all connections back."""
        raise NotImplementedError

    def prepare(self) -> str:
        """Bring an empty database to the newest revision; returns it. SettingsError for an older or unknown revision."""
        raise NotImplementedError

    def upgrade(self) -> str:
        """Migrate to the newest revision (`dicomnode db upgrade`); returns it."""
        raise NotImplementedError

    def revision(self) -> str | None:
        """The database's revision; None for an empty database."""
        raise NotImplementedError

    # receiving

    def instance(self, sop_instance_uid: str) -> KnownInstance | None:
        """What is stored under this UID."""
        raise NotImplementedError

    def add_instance(self, received: Received, *, ours: bool, replaces: bool = False) -> InstanceKeys:
        """Keep the row of a durable instance; committed on return. A late image reopens its series and supersedes its job.

        replaces: the stored bytes were missing or damaged; path, digests and size are renewed, no new work arises.
        """
        raise NotImplementedError

    def record_conflict(self, received: Received, kind: str) -> None:
        """Same UID, other content (`ConflictKind`): hold the jobs of the series or study until an operator decides."""
        raise NotImplementedError

    def forget_instances(self, sop_instance_uids: Sequence[str]) -> int:
        """Remove rows whose bytes were never acknowledged (found after a crash); returns how many."""
        raise NotImplementedError

    def association_opened(self, calling: str, called: str, address: str) -> str:
        """Note an association; returns its key ("A90")."""
        raise NotImplementedError

    def association_ended(self, key: str, how: str) -> None:
        """Note how an association ended: released, aborted, lost …"""
        raise NotImplementedError

    def is_our_result(self, sop_instance_uid: str) -> bool:
        """Whether this node made, or already recognised, this instance as a result of this software."""
        raise NotImplementedError

    def known_files(self) -> Iterator[tuple[Path, int, str]]:
        """(relative path, size in bytes, SHA-256) of every file that a row names: instances, quarantine and spooled results.

        The SHA-256 of an instance is that of its data set without preamble and file meta; of a result that of the whole file.
        """
        raise NotImplementedError

    def last_clean_stop(self) -> datetime | None:
        """When the node last stopped in order; None if never."""
        raise NotImplementedError

    def mark_clean_stop(self) -> None:
        """The node stops in order now."""
        raise NotImplementedError

    def instances_since(self, since: datetime | None) -> list[KnownInstance]:
        """Instances whose rows are newer than `since` (all for None): after a crash their bytes are looked at again."""
        raise NotImplementedError

    # routing

    def studies_to_judge(self) -> list[StudyEvidence]:
        """The studies in which something arrived since routing settled them, with all evidence."""
        raise NotImplementedError

    def record_judgement(self, judgement: StudyJudgement) -> list[str]:
        """Write what routing decided; returns the keys of new jobs. StaleUpdate if something arrived in between."""
        raise NotImplementedError

    # queue

    def claim_job(self, worker: str, lease_s: float) -> ClaimedJob | None:
        """The next job for this worker, or None. Jobs of held studies and series are left alone."""
        raise NotImplementedError

    def renew_lease(self, job: ClaimedJob) -> None:
        """Own the job for another lease. StaleUpdate if it is no longer this worker's."""
        raise NotImplementedError

    def finish_job(
        self,
        job: ClaimedJob,
        event: JobEvent,
        *,
        reason_code: str = "",
        reason: str = "",
        findings_summary: Mapping[str, object] | None = None,
        results: Sequence[ResultObject] = (),
        destinations: Sequence[str] = (),
        notes: Sequence[str] = (),
        timings_s: Mapping[str, float] | None = None,
        retry_after_s: float | None = None,
        kinds_by_destination: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """End an attempt: state, results, deliveries and audit in one transaction. StaleUpdate changes nothing.

        event: FINISHED, REFUSED, FAILED or TRY_AGAIN. kinds_by_destination: the kinds a destination's profile takes
        (all for a destination that is not named). "Not run" objects are not sent again where an earlier version's already went.
        """
        raise NotImplementedError

    def requeue_lost(self, now: datetime | None = None) -> int:
        """Jobs and deliveries whose lease ended go back to their queue; returns how many rows changed."""
        raise NotImplementedError

    def worker_died(self, worker: str) -> int:
        """The worker died while its supervisor lived: its jobs are queued again, or failed as poison at the third crash."""
        raise NotImplementedError

    def node_restarted(self) -> int:
        """After a restart of the whole node: nobody runs anything; jobs are queued again with their attempt given back."""
        raise NotImplementedError

    def retry(self, key: str) -> list[str]:
        """Operator: the same job (J) or delivery (D) again, or let a held series (E) or study (S) go on; changed keys."""
        raise NotImplementedError

    def cancel(self, key: str) -> list[str]:
        """Operator: cancel a job (J) or delivery (D); returns changed keys."""
        raise NotImplementedError

    def reprocess(self, study_or_key: str) -> list[str]:
        """Operator: a new version with new UIDs, of one job (J) or, judged anew by the next sweep, of a study; changed keys."""
        raise NotImplementedError

    # outbox

    def claim_delivery(self, worker: str, destination: str, lease_s: float) -> ClaimedDelivery | None:
        """The next object for this destination. Inside a job SEG goes first; SR and SC wait until it was accepted there."""
        raise NotImplementedError

    def finish_delivery(
        self,
        delivery: ClaimedDelivery,
        event: DeliveryEvent,
        *,
        status: int | None = None,
        error: str = "",
        retry_after_s: float | None = None,
        proof: str = "",
    ) -> None:
        """End an attempt to send (ACCEPTED, TRY_AGAIN, REJECTED, HELD) or to prove (PROVED, PROOF_SAYS_MISSING)."""
        raise NotImplementedError

    def deliveries_to_prove(self, destination: str, limit: int = 100) -> list[ClaimedDelivery]:
        """Sent deliveries of this destination whose proof is due."""
        raise NotImplementedError

    def postpone_proof(self, delivery: ClaimedDelivery, retry_after_s: float, error: str = "") -> None:
        """No answer on this delivery's proof yet: ask again later."""
        raise NotImplementedError

    # queries

    def status_counts(self) -> dict[str, object]:
        """{"counts": {studies, series, instances, jobs:{state:n}, deliveries:{state:n}}, "oldest_queued_s": float | None}."""
        raise NotImplementedError

    def studies(self, query: str = "", limit: int = 100) -> list[dict[str, object]]:
        """The `studies` of the contract, newest first; `query`: UID, key, patient, accession number, * as wildcard."""
        raise NotImplementedError

    def explain(self, study: str) -> dict[str, object]:
        """The contract's `explain`: paragraph, series with routes, jobs, results, deliveries. UsageError if unknown."""
        raise NotImplementedError

    def find_study(self, text: str) -> int | None:
        """The id of the study with this UID, key ("S12") or accession number."""
        raise NotImplementedError

    def audit(self, key: str) -> list[Transition]:
        """Every transition of one row ("E34", "J56", "D78"), oldest first."""
        raise NotImplementedError
