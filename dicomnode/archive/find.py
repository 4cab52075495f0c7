"""C-FIND (PS3.4 C.4.1): pages of the index, compared with what was asked, each match sent before the next page is read."""

from collections.abc import Iterator
from typing import Any

from dicomnode.archive.answering import IMPLICIT, Answers
from dicomnode.archive.identifier import Identifier, read_identifier, unique_above
from dicomnode.archive.keys import KEYS, MODELS, Level
from dicomnode.archive.matching import Matcher, date_limits, matcher_of
from dicomnode.domain.query_statuses import PENDING, PENDING_WITH_UNSUPPORTED_KEYS
from dicomnode.network.dimse import Conversation, QueryRequest
from dicomnode.registry import Holdings, Narrowing

# What we can do of extended negotiation: relational queries, combined date and time (PS3.4 Table C.5-1). Names are compared
# without case and width whatever is agreed on, which is not the fuzzy semantic matching of that table.
EXTENDED = b"\1\1"
_PAGE = 50  # matches fetched at once: what Python makes of them is what images on their way in wait for
_RELATIONAL, _COMBINED = 0, 1


def find(holdings: Holdings, request: QueryRequest, conversation: Conversation, max_matches: int) -> tuple[str, int]:
    """Give the matches; the outcome (of QUERY_CONDITIONS) and how many there were. Raises RequestRefused."""
    model = MODELS[request.sop_class_uid]
    asked = read_identifier(request.identifier, request.transfer_syntax_uid, model)
    if not _agreed(request, _RELATIONAL):
        unique_above(asked, model)
    matcher = matcher_of([(KEYS[keyword], text) for keyword, text in asked.keys.items()], combined=_agreed(request, _COMBINED))
    answers = Answers(asked, explicit_vr=request.transfer_syntax_uid != IMPLICIT, ae_title=request.called_ae)
    status = PENDING_WITH_UNSUPPORTED_KEYS if asked.unsupported else PENDING
    count = 0
    for attributes in _matches(holdings, asked, matcher, conversation):
        if attributes is None or conversation.cancelled():
            return "cancelled", count
        if count == max_matches:
            return "too_many", count
        conversation.answer(status, answers.encode(attributes))
        count += 1
    return "done", count


def _agreed(request: QueryRequest, field: int) -> bool:
    return request.extended[field : field + 1] == b"\1"


def _matches(
    holdings: Holdings, asked: Identifier, matcher: Matcher, conversation: Conversation
) -> Iterator[dict[str, str] | None]:
    """None: the peer does not want to wait for the next one."""
    narrowing = _narrowing(asked)
    after: Any = None
    while True:
        page = holdings.page(asked.level.name, narrowing, after, _PAGE, asked.keys)
        yield from (attributes for _, attributes in page if matcher.matches(attributes))
        if len(page) < _PAGE:
            return
        after = page[-1][0]
        if conversation.cancelled():
            yield None


def _narrowing(asked: Identifier) -> Narrowing:
    def single(keyword: str) -> str:
        text = asked.keys.get(keyword, "")
        return "" if set("*?\\") & set(text) else text

    return Narrowing(
        patient_id=single("PatientID"),
        study_instance_uids=_uids(asked, Level.STUDY),
        series_instance_uids=_uids(asked, Level.SERIES),
        sop_instance_uids=_uids(asked, Level.IMAGE),
        accession_number=single("AccessionNumber"),
        study_dates=date_limits(asked.keys.get("StudyDate", "")),
    )


def _uids(asked: Identifier, level: Level) -> tuple[str, ...]:
    values = asked.values(level)
    return () if any("*" in value for value in values) else values
