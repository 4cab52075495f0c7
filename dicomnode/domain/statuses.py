"""DIMSE response statuses of the Storage service (PS3.4 B.2.3, PS3.7 C) and what delivery makes of each."""

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
