"""DIMSE response statuses of the Storage service (PS3.4 B.2.3, PS3.7 C): which we give, and what delivery makes of others'."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3
DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900  # PS3.4 B.2.3
CANNOT_UNDERSTAND = 0xC000  # PS3.4 B.2.3
PROCESSING_FAILURE = 0x0110  # PS3.7 C.4
DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 C.5
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.7
NOT_AUTHORIZED = 0x0124  # PS3.7 C.5.5

# PS3.4 B.2.3: stored all the same.
WARNINGS = {
    0xB000: "coercion of data elements",
    0xB006: "elements discarded",
    0xB007: "data set does not match SOP class",
}


class Outcome(StrEnum):
    """What one C-STORE response means for a delivery."""

    ACCEPTED = "accepted"
    ACCEPTED_WITH_WARNING = "accepted_with_warning"
    TRY_AGAIN = "try_again"
    DOUBTFUL = "doubtful"  # tried again for hours, then rejected
    REJECTED = "rejected"


def outcome_of_store(status: int | None) -> Outcome:
    """The meaning of a C-STORE response; `None` (the link was lost, outcome unknown) is tried again under the same UID."""
    if status == SUCCESS:
        return Outcome.ACCEPTED
    # Some archives answer 0111 to an instance that they hold, as after a lost response. Our UIDs name bytes, so it is held.
    if status in WARNINGS or status == DUPLICATE_SOP_INSTANCE:
        return Outcome.ACCEPTED_WITH_WARNING
    if status is None or status & 0xFF00 == OUT_OF_RESOURCES:
        return Outcome.TRY_AGAIN
    if status in (SOP_CLASS_NOT_SUPPORTED, NOT_AUTHORIZED) or status & 0xFF00 == DATA_SET_DOES_NOT_MATCH_SOP_CLASS:
        return Outcome.REJECTED
    return Outcome.DOUBTFUL  # 0110, Cxxx and whatever no table lists: products use them for passing trouble too


def store_status_in_words(status: int | None) -> str:
    """A C-STORE status for people: "A700 (out of resources)"."""
    if status is None:
        return "no status (the link was lost; whether the object arrived is unknown)"
    return f"{status:04X} ({_meaning(status)})"


def _meaning(status: int) -> str:
    exact = {
        SUCCESS: "success",
        PROCESSING_FAILURE: "processing failure",
        DUPLICATE_SOP_INSTANCE: "duplicate SOP instance",
        SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
        NOT_AUTHORIZED: "not authorized",
        **WARNINGS,
    }
    families = {
        OUT_OF_RESOURCES: "out of resources",
        DATA_SET_DOES_NOT_MATCH_SOP_CLASS: "data set does not match SOP class",
    }
    if status & 0xF000 == CANNOT_UNDERSTAND:
        return "cannot understand"
    return exact.get(status) or families.get(status & 0xFF00, "not listed in PS3.4 B.2.3")


@dataclass(frozen=True, slots=True)
class StoreCondition:
    """When we give which answer to a C-STORE.

    comment: Error Comment (0000,0902), VR LO, 64 characters at most, nothing of the object; some conditions say more.
    again: the same object, sent again, may be taken.
    """

    status: int
    when: str
    comment: str = ""
    again: bool = False


# By outcome: the word for logs and counts.
STORE_CONDITIONS: Mapping[str, StoreCondition] = {
    "stored": StoreCondition(SUCCESS, "bytes, folder entry and row are on disk"),
    "ours": StoreCondition(SUCCESS, "a result of this node comes back, changed or not: stored, starts nothing"),
    "duplicate": StoreCondition(
        SUCCESS,
        "known, and only transport or private elements differ, if any: new work only for routes of another title of ours",
    ),
    "repaired": StoreCondition(SUCCESS, "known, but its bytes were gone or damaged: stored again"),
    "conflict_header": StoreCondition(SUCCESS, "known UID, other patient or study attributes: kept aside, study held"),
    "conflict_pixels": StoreCondition(SUCCESS, "known UID, other pixels: quarantined, series held"),
    "conflict_geometry": StoreCondition(SUCCESS, "known UID, another position, size or meaning: quarantined, series held"),
    "out_of_resources": StoreCondition(
        OUT_OF_RESOURCES, "too little free disk, or it fails", "storage is full or failing", again=True
    ),
    "processing_failure": StoreCondition(
        PROCESSING_FAILURE, "the database does not take the row", "the node cannot record the instance now", again=True
    ),
    "other_context": StoreCondition(
        SOP_CLASS_NOT_SUPPORTED,
        "the command's SOP class is not that of its presentation context",
        "the command's SOP class is not that of its context",
    ),
    "other_class": StoreCondition(
        DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        "the data set's SOP Class UID is not the command's",
        "SOPClassUID in data set and command differ",
    ),
    "other_instance": StoreCondition(
        CANNOT_UNDERSTAND,
        "the data set's SOP Instance UID is not the command's",
        "SOPInstanceUID in data set and command differ",
    ),
    "incomplete": StoreCondition(
        CANNOT_UNDERSTAND, "no data set, or no UIDs in the command", "the request has no data set or lacks a field"
    ),
    "missing_uid": StoreCondition(
        CANNOT_UNDERSTAND, "SOP Class, SOP Instance, Study or Series Instance UID is missing; the comment names it"
    ),
    "bad_uid": StoreCondition(CANNOT_UNDERSTAND, "one of these is no UID; the comment names it"),
    "unscannable": StoreCondition(
        CANNOT_UNDERSTAND, "the elements before the pixel data cannot be read, or end early; the comment says why"
    ),
    "deflated": StoreCondition(
        CANNOT_UNDERSTAND, "a deflated data set cannot be inflated", "the deflated data set cannot be inflated"
    ),
    "deflated_too_large": StoreCondition(
        CANNOT_UNDERSTAND, "a deflated data set inflates beyond the bound", "the deflated data set is too large"
    ),
}


def store_conditions_table() -> str:
    """The table above for the documentation, in Markdown."""
    rows = [
        f"| {one.status:04X} | {one.when} | {'yes' if one.again else '–' if one.status == SUCCESS else 'no'} | `{outcome}` |"
        for outcome, one in STORE_CONDITIONS.items()
    ]
    return "\n".join(["| status | when | send again? | in logs |", "| --- | --- | --- | --- |", *rows])
