"""Identifiers under which a finding is followed: the same in every object, whatever the form (Tracking UID (0062,0021))."""

from dataclasses import dataclass

from dicomnode.domain.findings import Box, Classification, Findings, LabelMap, Segment
from dicomnode.domain.uids import derived_uid


@dataclass(frozen=True, slots=True)
class Tracked:
    """Tracking Identifier (112039) and Tracking Unique Identifier (112040)."""

    identifier: str
    uid: str


def statement_tracked(findings: Findings, series_instance_uid: str, one: Classification) -> Tracked:
    """Of a statement about the whole image."""
    return Tracked(one.name, _uid(findings, series_instance_uid, "statement", one.name))


def segment_tracked(findings: Findings, series_instance_uid: str, one: LabelMap, segment: Segment) -> Tracked:
    """Of a segment that is no lesion's: its own where the engine gave it one."""
    uid = segment.tracking_uid or _uid(findings, series_instance_uid, "segment", one.name, str(segment.number))
    return Tracked(segment.tracking_id or segment.label, uid)


def boxes_tracked(findings: Findings, series_instance_uid: str) -> list[tuple[Box, Tracked]]:
    """The boxes that are reported for themselves: those that no lesion stands for (in a volume engines give one each)."""
    if findings.lesions:
        return []
    name = findings.model.name
    return [
        (box, Tracked(f"{name} {box.label} {number}", _uid(findings, series_instance_uid, "box", str(number))))
        for number, box in enumerate(findings.boxes, start=1)
    ]


def _uid(findings: Findings, series_instance_uid: str, *what: str) -> str:
    return derived_uid(("tracking", series_instance_uid, findings.model.digest, *what))
