"""DIMSE response statuses of the Storage service (PS3.4 B.2.3, PS3.7 C) and what delivery makes of each."""

from enum import StrEnum

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3
DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900  # PS3.4 B.2.3
CANNOT_UNDERSTAND = 0xC000  # PS3.4 B.2.3
PROCESSING_FAILURE = 0x0110  # PS3.7 C.4
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.7
NOT_AUTHORIZED = 0x0124  # PS3.7 C.5.5

WARNINGS = frozenset({0xB000, 0xB006, 0xB007})  # coercion, elements discarded, data set does not match: stored all the same


class Outcome(StrEnum):
    """What one C-STORE response means for a delivery."""

    ACCEPTED = "accepted"
    ACCEPTED_WITH_WARNING = "accepted_with_warning"
    TRY_AGAIN = "try_again"
    REJECTED = "rejected"


def outcome_of_store(status: int | None) -> Outcome:
    """The meaning of a C-STORE response; `None` (the link was lost, outcome unknown) is tried again under the same UID."""
    if status == SUCCESS:
        return Outcome.ACCEPTED
    if status in WARNINGS:
        return Outcome.ACCEPTED_WITH_WARNING
    if (
        status is None
        or status & 0xFF00 == OUT_OF_RESOURCES
        or status == PROCESSING_FAILURE
        or status & 0xF000 == CANNOT_UNDERSTAND
    ):
        return Outcome.TRY_AGAIN
    return Outcome.REJECTED
