"""What results makes and delivery sends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dicomnode.domain.findings import ModelIdentity
from dicomnode.domain.profiles import DEFAULT_KINDS, SHIPPED, Profile, ResultKind

__all__ = ["Predecessor", "ResultKind", "ResultObject", "ResultRequest"]


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One object, spooled. `path` holds a whole file (Part 10, or JSON for FHIR) whose bytes never change again.

    profiles: names of the profiles whose destinations get it; None: all. fallback_profiles: of those whose destinations get it
    only when they refuse the class `when_refused`, and then in place of the objects that `replaces` names (SOP Instance UIDs).
    """

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    sha256: str
    size_bytes: int
    source_sop_instance_uids: tuple[str, ...]
    order: int  # position in the order of sending, 0-based, unique within the job
    description: str = ""
    profiles: tuple[str, ...] | None = None
    fallback_profiles: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    when_refused: str = ""
    held: str = ""  # why it must not leave: a check before sending failed


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An earlier version of the same result, which a new one replaces."""

    version: int
    sr_sop_class_uid: str
    sr_sop_instance_uid: str
    sr_series_instance_uid: str


@dataclass(frozen=True, slots=True)
class ResultRequest:
    """What identifies one set of results: same request, same findings → same UIDs and the same bytes.

    `content_time` is the job's time (aware UTC), not the time of writing. `source_digests`: SOP Instance UID → SHA-256 of the
    instances that the job read. `version` is 1 for the first set.
    """

    pipeline: str
    pipeline_version: str
    version: int
    content_time: datetime
    node_timezone: str
    source_digests: Mapping[str, str]
    uid_root: str | None = None
    kinds: tuple[ResultKind, ...] = DEFAULT_KINDS
    predecessor: Predecessor | None = None
    demonstration: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)
    model: ModelIdentity | None = None  # who refused: a Refusal carries no model of its own
    profiles: tuple[Profile, ...] = (SHIPPED["ohif"],)  # of the destinations
    draw_identity: bool = False  # patient and study are drawn on captures, which then say so in Burned In Annotation
