"""What leaves the node beside DICOM objects."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """Another kind of file than Part 10. `uid` names it as a SOP Instance UID names an object, `series_uid` its set."""

    uid: str
    series_uid: str
    description: str
    content: bytes
