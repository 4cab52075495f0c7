"""What others announce of a study: a modality's performed procedure step (PS3.4 F.7), an archive's instances (PS3.4 R)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

# Series Instance UID → SOP Class UID → SOP Instance UIDs.
type_references = Mapping[str, Mapping[str, tuple[str, ...]]]


class AnnouncementKind(StrEnum):
    """By which service it came."""

    STEP = "mpps"  # Modality Performed Procedure Step
    AVAILABILITY = "ian"  # Instance Availability Notification


class AnnouncementStatus(StrEnum):
    """Performed Procedure Step Status (0040,0252), PS3.3 C.4.14; of an availability that alone which says that it is there."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    AVAILABLE = "AVAILABLE"


# Nothing that is said of a step may change afterwards (PS3.4 F.7.2.2).
FINAL_STATUSES = frozenset({AnnouncementStatus.COMPLETED, AnnouncementStatus.DISCONTINUED, AnnouncementStatus.AVAILABLE})
# These say which instances there are; a step that was broken off may have made some that nobody sends.
COUNTED_STATUSES = frozenset({AnnouncementStatus.COMPLETED, AnnouncementStatus.AVAILABLE})


@dataclass(frozen=True, slots=True)
class Announcement:
    """One of them, as it came first. study_instance_uids: at least one."""

    kind: AnnouncementKind
    sop_instance_uid: str
    study_instance_uids: tuple[str, ...]
    status: AnnouncementStatus
    references: type_references = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepChange:
    """What an N-SET says of a step; None: nothing of that. reason: why it was discontinued, in the modality's words."""

    sop_instance_uid: str
    status: AnnouncementStatus | None = None
    references: type_references | None = None
    reason: str = ""
