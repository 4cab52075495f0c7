"""What waits for an administrator: kinds of alarms, when each stands and what to do. An alarm goes by itself with its cause."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AlarmKind(StrEnum):
    """One kind each; the names are part of `status --json`."""

    DATABASE_UNREACHABLE = "database_unreachable"
    DISK_FULL = "disk_full"
    DISK_LOW = "disk_low"
    ROLE_DOWN = "role_down"
    CERTIFICATE_UNUSABLE = "certificate_unusable"
    CERTIFICATE_ENDS = "certificate_ends"
    CANARY_LATE = "canary_late"
    QUEUE_DEEP = "queue_deep"
    DESTINATION_FAILING = "destination_failing"
    DELIVERY_HELD = "delivery_held"
    DELIVERY_REJECTED = "delivery_rejected"
    STUDY_HELD = "study_held"
    CONTENT_QUARANTINED = "content_quarantined"
    SERIES_DAMAGED = "series_damaged"
    JOB_HELD = "job_held"
    JOB_FAILED = "job_failed"


# Seen by one machine alone; where several share the rows, their subject ends with "@" and the node's name.
OF_A_MACHINE = frozenset(
    {
        AlarmKind.DATABASE_UNREACHABLE,
        AlarmKind.DISK_FULL,
        AlarmKind.DISK_LOW,
        AlarmKind.ROLE_DOWN,
        AlarmKind.CERTIFICATE_UNUSABLE,
        AlarmKind.CERTIFICATE_ENDS,
    }
)
# Kind → (when it stands, subject, what to do). {subject} is the alarm's.
_TABLE: dict[AlarmKind, tuple[str, str, str]] = {
    AlarmKind.DATABASE_UNREACHABLE: (
        "the database does not answer",
        "`database`",
        "start its server or free its disk, then `dicomnode check`; senders get a failure and send again",
    ),
    AlarmKind.DISK_FULL: (
        "less is free than `[storage] reserve_mb`: images are refused with A700",
        "`data_dir`",
        "free some space, or shorten [retention]; the next image is then taken by itself",
    ),
    AlarmKind.DISK_LOW: (
        "less is free than `[retention] free_percent`, and what may be purged was purged",
        "`data_dir`",
        "add space before images are refused; `dicomnode studies` shows what is unfinished and so is kept",
    ),
    AlarmKind.ROLE_DOWN: (
        "a role of the node ended by itself and has not come up again",
        "the role",
        "read the log of role {subject}, then `dicomnode check`",
    ),
    AlarmKind.CERTIFICATE_UNUSABLE: (
        "the listener's certificate or key cannot be used, or has ended",
        "`dicom.tls`",
        "`dicomnode check` names the file and what is wrong; a corrected one is taken without a restart",
    ),
    AlarmKind.CERTIFICATE_ENDS: (
        "the listener's certificate ends within `[alarms] certificate_days`; count: days left",
        "`dicom.tls`",
        "have it renewed and put it in its place; it is taken without a restart",
    ),
    AlarmKind.CANARY_LATE: (
        "no phantom came out within `[canary] within_min`: results may not come out either",
        "the canary's study, if it arrived",
        "`dicomnode explain {subject}` shows how far it came; without a study look at the log and the listener",
    ),
    AlarmKind.QUEUE_DEEP: (
        "the oldest job that may run waits for longer than `[alarms] queue_min`: AI is delayed; count: jobs",
        "`queue`",
        "is a worker ready (roles above)? Else it is load: add a worker, or give urgent routes a priority",
    ),
    AlarmKind.DESTINATION_FAILING: (
        "results were tried there and did not arrive; sending goes on for 14 days; count: objects that wait",
        "the destination",
        "`dicomnode echo` its peer, look at its own log; what waits goes out by itself once it answers",
    ),
    AlarmKind.DELIVERY_HELD: (
        "results are held back: a check failed, or 14 days of trying",
        "the study",
        "`dicomnode explain {subject}` names the cause; mend it, then `dicomnode retry D…`, or `cancel D…`",
    ),
    AlarmKind.DELIVERY_REJECTED: (
        "a destination refused results for good",
        "the study",
        "`dicomnode explain {subject}` shows its answer; mend the cause, then `dicomnode retry D…`, or `cancel D…`",
    ),
    AlarmKind.STUDY_HELD: (
        "patient or study attributes of a study contradict each other: nothing of it starts or leaves",
        "the study",
        "`dicomnode explain {subject}`, then `retry {subject}` (the newer is right) or `cancel {subject}` (the stored is)",
    ),
    AlarmKind.CONTENT_QUARANTINED: (
        "images came again with other pixels or geometry and lie in quarantine; count: images",
        "the series",
        "find out which are right; `dicomnode retry {subject}` lets the series go on as it was stored first",
    ),
    AlarmKind.SERIES_DAMAGED: (
        "stored images of a series are missing or damaged",
        "the series",
        "let its sender send it again, then `dicomnode retry {subject}`; look after the disk (`dicomnode fsck`)",
    ),
    AlarmKind.JOB_HELD: (
        "a job waits for an operator: it was found running at too many starts of the node",
        "the job",
        "look at the log for what ended the node; `dicomnode retry {subject}`, or `cancel {subject}`",
    ),
    AlarmKind.JOB_FAILED: (
        "a job failed for good within `[alarms] failed_days`",
        "the job",
        "`dicomnode retry {subject}` once the cause is mended; its study's `explain` tells it",
    ),
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """One that stands. subject: a key (S12, E34, J56), or the name of a destination or role. since: None where nobody knows.

    count: how many things it is about. detail: what is known of the cause, without patient data.
    """

    kind: AlarmKind
    subject: str
    count: int = 1
    since: datetime | None = None
    detail: str = ""

    @property
    def meaning(self) -> str:
        """When an alarm of this kind stands."""
        return _TABLE[self.kind][0]

    @property
    def remedy(self) -> str:
        """What to do."""
        return _TABLE[self.kind][2].format(subject=self.subject)


def alarms_table() -> str:
    """All kinds as a table in Markdown."""
    rows = ["| alarm | stands when | subject | what to do |", "| --- | --- | --- | --- |"]
    for kind, (when, subject, remedy) in _TABLE.items():
        rows.append(f"| `{kind.value}` | {when} | {subject} | {remedy.replace('{subject}', 'SUBJECT')} |")
    return "\n".join(rows)
