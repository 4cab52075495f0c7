"""What the registry hands out and takes in: frozen values, no rows, no sessions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from dicomnode.domain.announcements import AnnouncementKind
from dicomnode.domain.imaging import Refusal, SeriesRef
from dicomnode.domain.results import Predecessor, ResultObject
from dicomnode.domain.states import DeliveryState, JobState, SeriesState

# After this many failed attempts a worker ends a job as failed instead of asking for another try.
MAX_JOB_ATTEMPTS = 3
# A job whose worker died this often while the supervisor lived is poison.
MAX_JOB_CRASHES = 3
# The reason code of an attempt that a full disk ended: it is given back.
OUT_OF_SPACE = "out_of_space"
# A job found running after this many starts waits for an operator, whatever killed the node each time.
MAX_JOB_STARTS = 20


class ConflictKind(StrEnum):
    """How a received instance contradicts what is stored (DESIGN section 5)."""

    HEADER = "header"  # patient or study attributes differ: a merge or a correction
    IDENTITY = "identity"  # one Study Instance UID, two patients
    PIXELS = "pixels"
    GEOMETRY = "geometry"


# These hold the whole study; the others hold the series only.
STUDY_CONFLICTS = frozenset({ConflictKind.HEADER, ConflictKind.IDENTITY})


@dataclass(frozen=True, slots=True)
class KnownInstance:
    """One stored instance. `path` is relative to the store's root; digests are hexadecimal SHA-256.

    purged: retention removed its bytes; the row stays so that the same again makes no new work.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    sha256: str
    pixel_digest: str
    size_bytes: int
    attributes: Mapping[str, str]
    ours: bool
    received_at: datetime
    study_key: str
    series_key: str
    purged: bool = False


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The file of one instance as its row names it. answered: its sender certainly got Success for it.

    So it is where the same association sent another instance afterwards, or was released: one is answered before the next is
    read.
    """

    sop_instance_uid: str
    path: Path
    size_bytes: int
    sha256: str
    answered: bool


@dataclass(frozen=True, slots=True)
class InstanceKeys:
    """Where an instance's row hangs, in keys that logs may hold. `new` is false for a duplicate."""

    study_key: str
    series_key: str
    new: bool


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that one worker owns until its lease ends.

    series: the chosen series, paths relative to the store's root; with a preset `refusal` the series that stands for the
    study (its headers are the sources of the "not run" objects). None only when nothing of the study is left.
    others: by their roles, the series that the pipeline reads together with it.
    source_digests: SOP Instance UID → SHA-256 of the instances of `series` and `others`.
    content_time: the job's own time, the same in every attempt. attempt: 1 for the first, given back by a node restart.
    starts: counts every claim and never goes back; it is the fence.
    """

    id: int
    key: str
    study_key: str
    series_key: str
    study_instance_uid: str
    route: str
    pipeline: str
    version: int
    attempt: int
    starts: int
    worker: str
    lease_s: float
    content_time: datetime
    series: SeriesRef | None
    source_digests: Mapping[str, str]
    refusal: Refusal | None = None
    predecessor: Predecessor | None = None
    others: Mapping[str, SeriesRef] = field(default_factory=dict)

    @property
    def last_attempt(self) -> bool:
        """Whether a failure of this attempt is final."""
        return self.attempt >= MAX_JOB_ATTEMPTS


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """One result instance on its way to one destination: claimed for sending (SENDING), or to be proved (SENT).

    result.path is what the worker gave (relative to the store's root). tried_since: when it was tried first; 14 days later it
    is held. None on the first attempt: a study that was held for weeks has its 14 days still before it.
    """

    id: int
    key: str
    destination: str
    state: DeliveryState
    attempt: int
    starts: int
    worker: str
    result: ResultObject
    job_key: str
    study_key: str
    pipeline: str
    created_at: datetime
    sent_at: datetime | None = None
    tried_since: datetime | None = None
    last_status: int | None = None


@dataclass(frozen=True, slots=True)
class AssociationEvidence:
    """An association that is still open: when it last brought anything, and whether that belonged to the study in question."""

    key: str
    calling_ae: str
    address: str
    last_active_at: datetime
    sends_this_study: bool
    sent_nothing_yet: bool


@dataclass(frozen=True, slots=True)
class AnnouncedSeries:
    """What others said is a series: how many instances, how many of them never came, and by which service it was said."""

    instances: int
    missing: int
    kinds: frozenset[AnnouncementKind]


@dataclass(frozen=True, slots=True)
class Announced:
    """What others announced of a study (MPPS, IAN).

    series: by Series Instance UID, of final statements alone. in_progress: procedure steps of which no end was said. absent:
    series that a final statement names and of which nothing is here, with the SOP classes of their instances. said: all that
    was announced, for `explain`.
    """

    series: Mapping[str, AnnouncedSeries] = field(default_factory=dict)
    in_progress: int = 0
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    said: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class SeriesEvidence:
    """All that routing may know of one series.

    attributes: of the representative (first) instance, plus CalledAETitle and CallingAETitle. image_types: each distinct Image
    Type (0008,0008) with its number of instances. slices: frames of all instances together. opened_at: first arrival since
    the series was opened or reopened. generation: how often it was reopened. announced: final number of instances that the
    source itself told, None where it told none. CalledAETitle holds all titles of ours to which it was sent, the first one
    first; also_called: first and last arrival at each further one.
    """

    series_id: int
    key: str
    series_instance_uid: str
    state: SeriesState
    generation: int
    sop_class_uid: str
    attributes: Mapping[str, str]
    image_types: Mapping[str, int]
    instance_numbers: tuple[int, ...]
    instances: int
    slices: int
    opened_at: datetime
    last_arrival_at: datetime
    announced: int | None = None
    held: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict)  # what the last judgement stored
    also_called: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    purged: int = 0  # instances whose bytes retention removed: a job would see a part and take it for the whole


@dataclass(frozen=True, slots=True)
class JobInput:
    """A further series that a job reads, by the pipeline's name for it."""

    role: str
    series_id: int
    generation: int


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job as routing sees it: is there one already, for which series, and does it still stand?"""

    id: int
    key: str
    pipeline: str
    version: int
    state: JobState
    route: str
    series_id: int | None
    series_generation: int
    scope_series_id: int  # 0: one job for the study (select = "best"); else the series (select = "each")
    preset_refusal: bool
    others: tuple[JobInput, ...] = ()


@dataclass(frozen=True, slots=True)
class StudyEvidence:
    """One study that routing has still to judge. `arrivals` fences the judgement: it changes with each new instance."""

    study_id: int
    key: str
    arrivals: int
    series: tuple[SeriesEvidence, ...]
    associations: tuple[AssociationEvidence, ...]
    jobs: tuple[JobSummary, ...]
    study_instance_uid: str = ""
    announced: Announced = field(default_factory=Announced)


@dataclass(frozen=True, slots=True)
class SeriesVerdict:
    """What one route says of one series; `why` is a sentence for people."""

    series_id: int
    route: str
    matched: bool
    chosen: bool
    why: str


@dataclass(frozen=True, slots=True)
class SeriesCompletion:
    """A series that is complete, or what it still waits for; `evidence` is stored as it is and shown by explain."""

    series_id: int
    complete: bool
    forced: bool
    evidence: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job that routing wants. `replaces`: ids of jobs that it supersedes. `refusal`: nothing was eligible, and why.

    priority: jobs of a higher one go first, until others have waited for so much longer (`queue.PRIORITY_STEP_S` a step).
    """

    route: str
    pipeline: str
    series_id: int
    series_generation: int
    scope_series_id: int
    refusal: Refusal | None = None
    replaces: tuple[int, ...] = ()
    others: tuple[JobInput, ...] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True)
class StudyJudgement:
    """All that one sweep decided on one study; written in one transaction, or not at all."""

    study_id: int
    arrivals: int
    completions: tuple[SeriesCompletion, ...] = ()
    verdicts: tuple[SeriesVerdict, ...] = ()
    jobs: tuple[PlannedJob, ...] = ()
    settled: bool = False  # nothing is left to wait for: not swept again until something arrives


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the audit trail."""

    kind: str
    key: str
    from_state: str
    to_state: str
    event: str
    reason: str
    at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class AskedCommitment:
    """A storage commitment that a peer asked of us. references: (SOP class, SOP instance).

    failed: what was decided, SOP Instance UID → Failure Reason; None: nothing yet.
    """

    id: int
    peer: str
    transaction_uid: str
    references: tuple[tuple[str, str], ...]
    failed: Mapping[str, int] | None
    attempts: int
    received_at: datetime
