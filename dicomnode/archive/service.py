"""`Archive`: the `QueryHandler` of the node (`network.dimse`)."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import structlog

from dicomnode.archive.answering import IMPLICIT, failed_list
from dicomnode.archive.find import EXTENDED, find
from dicomnode.archive.keys import FIND_CLASSES, RIGHTS
from dicomnode.archive.refusals import RequestRefused
from dicomnode.archive.retrieve import Selection, Source, Tally, destination_of, get, move, selected
from dicomnode.domain.errors import DicomNodeError
from dicomnode.domain.query_statuses import QUERY_CONDITIONS
from dicomnode.domain.routes import Peer
from dicomnode.network.courier import Courier
from dicomnode.network.dimse import Conversation, QueryRequest, QueryService
from dicomnode.registry import Holdings
from dicomnode.storage import Store

_SYNTAXES_FOR_S = 60.0
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

    def __init__(
        self,
        holdings: Holdings,
        store: Store,
        peers: Iterable[Peer],
        our_ae_title: str,
        limits: ArchiveLimits = ArchiveLimits(),
    ) -> None:
        """peers: of the settings; to these alone a C-MOVE may send. our_ae_title: under which we call them."""
        self._holdings, self._limits = holdings, limits
        self._source = Source(holdings, store)
        self._peers, self._our_ae_title = tuple(peers), our_ae_title
        self._syntaxes: Mapping[str, Sequence[str]] = {}
        self._syntaxes_until = 0.0
        self._queries = threading.BoundedSemaphore(limits.max_queries)
        self._retrievals = threading.BoundedSemaphore(limits.max_retrievals)

    def syntaxes(self, sop_class_uid: str) -> Sequence[str]:
        """See QueryHandler. As of a minute ago at most."""
        now = time.monotonic()
        if now >= self._syntaxes_until:
            with suppress(DicomNodeError):  # then as it was
                self._syntaxes = self._holdings.syntaxes()
            self._syntaxes_until = now + _SYNTAXES_FOR_S
        return self._syntaxes.get(sop_class_uid, ())

    def serve(self, request: QueryRequest, conversation: Conversation) -> None:
        """See QueryHandler. Nothing of what was asked for reaches the log (identifiers hold names)."""
        started = time.monotonic()
        tally: Tally | None = None
        count = 0
        try:
            if request.service is QueryService.FIND:
                with _place(self._queries, "busy"):
                    outcome, count = find(self._holdings, request, conversation, self._limits.max_matches)
            else:
                with _place(self._retrievals, "too_many_retrievals"):
                    outcome, tally = self._retrieve(request, conversation)
        except RequestRefused as refused:
            outcome = refused.outcome
        except DicomNodeError as error:
            outcome = "failed"
            _log.error("a query failed", association=request.association_key, exc_info=error)
        _log.info(
            "a query was answered",
            association=request.association_key,
            peer=request.peer.name,
            kind=request.service.name,
            code=outcome,
            count=count if tally is None else tally.total,
            failed_count=None if tally is None else tally.failed,
            duration_s=round(time.monotonic() - started, 3),
        )
        _last_response(request, conversation, outcome, tally)

    def _retrieve(self, request: QueryRequest, conversation: Conversation) -> tuple[str, Tally]:
        if request.service is QueryService.GET:
            selection = selected(self._holdings, request)
            with self._noted(selection, request, "C-GET") as tally:
                return get(self._source, selection, conversation, tally), tally
        destination = destination_of(self._peers, request)
        selection = selected(self._holdings, request)
        originator = (request.calling_ae, request.message_id)
        start_courier = partial(Courier, destination, self._our_ae_title, selection.kinds, originator=originator)
        with self._noted(selection, request, f"C-MOVE to {destination.name}") as tally:
            return move(self._source, selection, conversation, tally, start_courier), tally

    @contextmanager
    def _noted(self, selection: Selection, request: QueryRequest, how: str) -> Iterator[Tally]:
        """A tally; who had what is noted at its end, also where the peer left before."""
        tally = Tally(len(selection.ids))
        try:
            yield tally
        finally:
            try:
                if tally.studies:
                    self._holdings.note_retrieved(tally.studies, request.peer.name, how)
            except DicomNodeError as error:  # the peer has its images all the same
                _log.error("a retrieval could not be noted", association=request.association_key, exc_info=error)


def _last_response(request: QueryRequest, conversation: Conversation, outcome: str, tally: Tally | None) -> None:
    condition = QUERY_CONDITIONS[outcome]
    if tally is None:
        conversation.answer(condition.status, comment=condition.comment)
        return
    explicit_vr = request.transfer_syntax_uid != IMPLICIT
    conversation.answer(
        condition.status,
        failed_list(tally.failed_uids, explicit_vr=explicit_vr),
        counts=tally.counts(remaining=outcome == "cancelled"),
        comment=condition.comment,
    )


@contextmanager
def _place(places: threading.BoundedSemaphore, otherwise: str) -> Iterator[None]:
    if not places.acquire(blocking=False):
        raise RequestRefused(otherwise)
    try:
        yield
    finally:
        places.release()
