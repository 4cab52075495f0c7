"""Rejection notes (IHE IOCM; PS3.16 CID 7011): why images are no longer to be used."""

from collections.abc import Mapping
from dataclasses import dataclass

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"

# DCM code of the document title → its meaning.
REJECTIONS: Mapping[str, str] = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}


@dataclass(frozen=True, slots=True)
class NamedInstance:
    """One object that a note names."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True)
class RejectionNote:
    """What a note says: code, and the objects of one study that are no longer to be used."""

    code: str
    study_instance_uid: str
    named: tuple[NamedInstance, ...]
