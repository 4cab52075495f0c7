"""DIMSE response statuses of the Query/Retrieve service as we give them (PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4)."""

from collections.abc import Mapping
from dataclasses import dataclass

PENDING = 0xFF00
PENDING_WITH_UNSUPPORTED_KEYS = 0xFF01


@dataclass(frozen=True, slots=True)
class QueryCondition:
    """When we end a C-FIND, C-MOVE or C-GET with which status.

    services: F, M, G. comment: Error Comment (0000,0902), VR LO, 64 characters at most, nothing of the request.
    """

    status: int
    services: str
    when: str
    comment: str = ""


# By outcome: the word for logs and counts.
QUERY_CONDITIONS: Mapping[str, QueryCondition] = {
    "done": QueryCondition(0x0000, "FMG", "all matches were given, or all of them arrived; also where nothing matches"),
    "some_failed": QueryCondition(
        0xB000, "MG", "some sub-operations failed, or ended with a warning; the identifier names the failed instances"
    ),
    "cancelled": QueryCondition(0xFE00, "FMG", "the peer asked for the end (C-CANCEL); what was under way is ended first"),
    "too_many": QueryCondition(
        0xA700, "F", "more matches than `archive.max_matches`; that many were given", "too many matches: narrow the query"
    ),
    "busy": QueryCondition(0xA700, "F", "as many queries run as the node lets run at once", "too many queries: ask again"),
    "too_many_retrievals": QueryCondition(
        0xA702, "MG", "as many retrievals run as `archive.max_retrievals`", "too many retrievals at once: ask again"
    ),
    "none_sent": QueryCondition(
        0xA702, "MG", "nothing could be sent: the destination is out of reach, or takes none of it", "nothing could be sent"
    ),
    "unknown_destination": QueryCondition(
        0xA801, "M", "the move destination is no AE title of a peer in the settings, or of several", "unknown move destination"
    ),
    "wrong_level": QueryCondition(
        0xA900, "FMG", "Query/Retrieve Level is missing, or none of this model", "the level is missing, or none of this model"
    ),
    "missing_key": QueryCondition(
        0xA900,
        "FMG",
        "a unique key is missing, or is no single value: of a level above, in a retrieval of the level itself",
        "a unique key is missing, or not a single value",
    ),
    "bad_key": QueryCondition(
        0xA900, "F", "a key is no date, time or UID, or a range of these", "a key is no valid date, time, UID or range"
    ),
    "no_identifier": QueryCondition(
        0xA900, "FMG", "no identifier, or one of more than a megabyte", "no identifier, or a too long one"
    ),
    "unreadable": QueryCondition(0xC000, "FMG", "the identifier cannot be read as a data set", "the identifier is no data set"),
    "failed": QueryCondition(0xC001, "FMG", "the node failed, such as for a database that is away", "the node cannot look now"),
}  # fmt: skip


def query_conditions_table() -> str:
    """The table above for the documentation, in Markdown."""
    names = {"F": "C-FIND", "M": "C-MOVE", "G": "C-GET"}
    rows = [
        f"| {one.status:04X} | {', '.join(names[letter] for letter in one.services)} | {one.when} | `{outcome}` |"
        for outcome, one in QUERY_CONDITIONS.items()
    ]
    return "\n".join(["| status | of | when | in logs |", "| --- | --- | --- | --- |", *rows])
