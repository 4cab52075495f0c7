"""`Archive`: the `QueryHandler` of the node (`network.dimse`)."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from dicomnode.archive.find import EXTENDED, find
from dicomnode.archive.keys import FIND_CLASSES, RIGHTS
from dicomnode.archive.refusals import RequestRefused
from dicomnode.domain.errors import DicomNodeError
from dicomnode.domain.query_statuses import QUERY_CONDITIONS
from dicomnode.network.dimse import Conversation, QueryRequest, QueryService
from dicomnode.registry import Holdings

_log = structlog.get_logger("archive")


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """max_matches: of one C-FIND. max_queries, max_retrievals: at once, in this process."""

    max_matches: int = 10_000
    max_queries: int = 8
    max_retrievals: int = 4


class Archive:
    """Finds and gives back what was received. Safe for many threads."""

    sop_classes: Mapping[str, str] = RIGHTS
    extended: Mapping[str, bytes] = dict.fromkeys(FIND_CLASSES, EXTENDED)

    def __init__(self, holdings: Holdings, limits: ArchiveLimits = ArchiveLimits()) -> None:
        self._holdings, self._limits = holdings, limits
        self._queries = threading.BoundedSemaphore(limits.max_queries)

    def serve(self, request: QueryRequest, conversation: Conversation) -> None:
        """See QueryHandler. Nothing of what was asked for reaches the log (identifiers hold names)."""
        started = time.monotonic()
        try:
            outcome, count = self._served(request, conversation)
        except RequestRefused as refused:
            outcome, count = refused.outcome, 0
        except DicomNodeError as error:
            outcome, count = "failed", 0
            _log.error("a query failed", association=request.association_key, exc_info=error)
        condition = QUERY_CONDITIONS[outcome]
        _log.info(
            "a query was answered",
            association=request.association_key,
            peer=request.peer.name,
            kind=request.service.name,
            code=outcome,
            count=count,
            duration_s=round(time.monotonic() - started, 3),
        )
        conversation.answer(condition.status, comment=condition.comment)

    def _served(self, request: QueryRequest, conversation: Conversation) -> tuple[str, int]:
        if request.service is QueryService.FIND:
            with _place(self._queries, "busy"):
                return find(self._holdings, request, conversation, self._limits.max_matches)
        raise RequestRefused("failed")


@contextmanager
def _place(places: threading.BoundedSemaphore, otherwise: str) -> Iterator[None]:
    if not places.acquire(blocking=False):
        raise RequestRefused(otherwise)
    try:
        yield
    finally:
        places.release()
