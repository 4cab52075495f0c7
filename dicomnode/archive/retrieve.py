"""C-GET and C-MOVE (PS3.4 C.4.2, C.4.3): stored instances go out, one after the other, each checked before it leaves."""

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import structlog
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from dicomnode.archive.identifier import Identifier, read_identifier, unique_above
from dicomnode.archive.keys import MODELS, UNIQUE_KEYS, Level
from dicomnode.archive.refusals import RequestRefused
from dicomnode.domain.errors import CorruptInstance, PeerUnreachable
from dicomnode.domain.query_statuses import PENDING
from dicomnode.domain.routes import Peer
from dicomnode.network.contexts import UNCOMPRESSED
from dicomnode.network.courier import Courier, on_the_way_s
from dicomnode.network.dimse import Conversation, QueryRequest, StoredObject, SubOperations
from dicomnode.registry import HeldObject, Holdings, Narrowing
from dicomnode.storage import Store, data_set_offset

_log = structlog.get_logger("archive")

_PAGE = 100  # rows fetched at once
_PENDING_EVERY_S = 0.25
_STILL_HERE_EVERY_S = 5.0  # said again although nothing has changed: many wait 30 s for a response, no longer
_TICK_S = 0.1
_CHUNK = 1 << 18
_LARGEST_CONVERTED = 64 << 20  # bytes; converting takes all of it into memory
_CANCEL_GRACE_S = 2.0
_MOST_LOST = 3  # associations in a row over which nothing arrived
_LONGEST_OF_ONE_S = 120.0  # without a word of the courier: its own time-outs are shorter


@dataclass(slots=True)
class Tally:
    """How the sub-operations went."""

    total: int
    completed: int = 0
    warning: int = 0
    failed: int = 0
    failed_uids: list[str] = field(default_factory=list)
    studies: dict[int, tuple[int, int]] = field(default_factory=dict)  # study id → arrived, tried

    def note(self, one: HeldObject | None, status: int | None) -> None:
        """One has ended with this status of C-STORE (None: without one); one: None where its row is gone."""
        warned = status is not None and status & 0xF000 == 0xB000
        self.completed += status == 0
        self.warning += warned
        if one is not None:
            arrived, tried = self.studies.get(one.study_id, (0, 0))
            self.studies[one.study_id] = arrived + (status == 0 or warned), tried + 1
        if status != 0 and not warned:
            self.failed += 1
            if one is not None:
                self.failed_uids.append(one.sop_instance_uid)

    @property
    def remaining(self) -> int:
        """Not begun yet."""
        return self.total - self.completed - self.warning - self.failed

    def outcome(self) -> str:
        """Of QUERY_CONDITIONS, when nothing remains."""
        if not self.failed and not self.warning:
            return "done"
        return "some_failed" if self.completed or self.warning else "none_sent"

    def counts(self, *, remaining: bool) -> SubOperations:
        """For a response; remaining: only in pending ones and after a C-CANCEL (PS3.7 9.1.3.1)."""
        return SubOperations(self.remaining if remaining else None, self.completed, self.failed, self.warning)


class Progress:
    """Tells the peer how far it is, not more often than anybody reads."""

    def __init__(self, conversation: Conversation, tally: Tally) -> None:
        self._conversation, self._tally = conversation, tally
        self._said_at = time.monotonic()

    def say(self, every_s: float = _PENDING_EVERY_S) -> None:
        """A pending response, if the last one is that long ago."""
        if (now := time.monotonic()) - self._said_at >= every_s:
            self._said_at = now
            self._conversation.answer(PENDING, counts=self._tally.counts(remaining=True))


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for: ids of instances, and their distinct (SOP class, transfer syntax)."""

    ids: "array[int]"
    kinds: Sequence[tuple[str, str]]


def selected(holdings: Holdings, request: QueryRequest) -> Selection:
    """Raises RequestRefused."""
    model = MODELS[request.sop_class_uid]
    asked = read_identifier(request.identifier, request.transfer_syntax_uid, model)
    unique_above(asked, model)
    narrowing = _narrowing(asked)
    return Selection(holdings.select(narrowing), holdings.kinds(narrowing))


def _narrowing(asked: Identifier) -> Narrowing:
    """Exact: unique keys alone, single values or lists of UIDs (PS3.4 C.4.2.1.4.1)."""
    values: dict[Level, tuple[str, ...]] = {level: asked.values(level) for level in UNIQUE_KEYS if level <= asked.level}
    at_level = values[asked.level]
    patient_ids = values[Level.PATIENT]
    wild = any(set("*?") & set(value) for level, some in values.items() if level is not Level.PATIENT for value in some)
    if not at_level or wild or len(patient_ids) > 1:
        raise RequestRefused("missing_key")
    return Narrowing(
        patient_id=patient_ids[0] if patient_ids else "",
        study_instance_uids=values.get(Level.STUDY, ()),
        series_instance_uids=values.get(Level.SERIES, ()),
        sop_instance_uids=values.get(Level.IMAGE, ()),
    )


class Source:
    """The stored instances, as they may leave."""

    def __init__(self, holdings: Holdings, store: Store) -> None:
        self._holdings, self._store = holdings, store

    def objects(self, ids: "array[int]") -> Iterator[HeldObject | None]:
        """In this order; None for one whose row is gone. Rows are looked at again shortly before each is sent."""
        for start in range(0, len(ids), _PAGE):
            page = ids[start : start + _PAGE].tolist()
            held: Mapping[int, HeldObject] = self._holdings.objects(page)
            yield from (held.get(one) for one in page)

    def path(self, one: HeldObject) -> Path | None:
        """Where its bytes are, if they may leave and are what was received."""
        if not one.offered:
            return None
        if not self._store.verify(one.path, one.size_bytes, one.sha256):
            _log.error("an instance that is asked for is missing or damaged: run dicomnode fsck")
            return None
        return self._store.absolute(one.path)


class _Sending(Protocol):
    def __call__(self, one: HeldObject, path: Path) -> int | None: ...


def get(source: Source, selection: Selection, conversation: Conversation, tally: Tally) -> str:
    """Sub-operations on the association of the request; the outcome. tally: new, and right also where the peer leaves."""
    progress = Progress(conversation, tally)

    def sending(one: HeldObject, path: Path) -> int | None:
        try:
            stored = _as_taken(one, path, conversation)
        except CorruptInstance as error:
            _log.error("an instance cannot be sent as the peer wants it", exc_info=error)
            return None
        return None if stored is None else conversation.store(stored)

    for one in source.objects(selection.ids):
        if conversation.cancelled():
            return "cancelled"
        _send(source, one, tally, sending)
        progress.say()
    return tally.outcome()


def _send(source: Source, one: HeldObject | None, tally: Tally, sending: _Sending) -> None:
    status: int | None = None
    try:
        if one is not None and (path := source.path(one)) is not None:
            status = sending(one, path)
    finally:  # who leaves before he answers may have it all the same: it was tried
        tally.note(one, status)


def _as_taken(one: HeldObject, path: Path, conversation: Conversation) -> StoredObject | None:
    """In the syntax in which it is stored, else in the other uncompressed one; None where the peer takes neither."""
    uid, sop_class, syntax = one.sop_instance_uid, one.sop_class_uid, one.transfer_syntax_uid
    if conversation.takes(sop_class, syntax):
        offset = data_set_offset(path)
        return StoredObject(sop_class, uid, syntax, one.size_bytes - offset, lambda: _pieces(path, offset))
    others = (other for other in UNCOMPRESSED if syntax in UNCOMPRESSED and conversation.takes(sop_class, other))
    if (other := next(others, None)) is None or one.size_bytes > _LARGEST_CONVERTED:
        return None
    data_set = _converted(path, other)
    return StoredObject(sop_class, uid, other, len(data_set), lambda: [data_set])


def _pieces(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(_CHUNK):
            yield piece


def _converted(path: Path, transfer_syntax_uid: str) -> bytes:
    """Between the two uncompressed little endian syntaxes: not a value changes. Raises CorruptInstance."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, UID(transfer_syntax_uid).is_implicit_VR
    try:
        write_dataset(buffer, dcmread(path))
    except Exception as error:  # boundary: pydicom raises many kinds for what it cannot read or write
        raise CorruptInstance("a stored instance cannot be written in another transfer syntax", "run dicomnode fsck") from error
    return bytes(buffer.getvalue())


def destination_of(peers: Iterable[Peer], request: QueryRequest) -> Peer:
    """The peer of the settings that the Move Destination names: who asks, if it is its own title. Raises RequestRefused."""
    named = [peer for peer in peers if peer.ae_title.strip() == request.move_destination]
    asking = [peer for peer in named if peer.name == request.peer.name]
    if len(asking or named) != 1:
        raise RequestRefused("unknown_destination")
    return (asking or named)[0]


def move(
    source: Source, selection: Selection, conversation: Conversation, tally: Tally, start_courier: Callable[[], Courier]
) -> str:
    """Sub-operations on associations of ours; the outcome. tally: see `get`.

    An object over which the destination ends the association fails; the others go on the next one.
    """
    with _Trip(start_courier, conversation, Progress(conversation, tally)) as trip:
        for one in source.objects(selection.ids):
            if conversation.cancelled():
                return "cancelled"
            if trip.goes_on():
                _send(source, one, tally, trip.take)
                trip.progress.say()
            else:
                tally.note(one, None)
    return tally.outcome()


class _Trip:
    """Couriers on their way, one after the other, while the peer that asked is kept informed and is heard."""

    def __init__(self, start_courier: Callable[[], Courier], conversation: Conversation, progress: Progress) -> None:
        self._start_courier, self._conversation = start_courier, conversation
        self.progress = progress
        self._courier: Courier | None = None
        self._lost = 0  # associations, since something last arrived

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def goes_on(self) -> bool:
        """Whether there is an association; begun if need be, but not again and again where nothing arrives."""
        if self._courier is None and self._lost < _MOST_LOST:
            self._courier = self._start_courier()
            if self._word() is None:
                self._lost = _MOST_LOST
        return self._courier is not None

    def take(self, one: HeldObject, path: Path) -> int | None:
        """Its status of C-STORE; None without one."""
        if self._courier is None:
            return None
        try:
            self._courier.send(path)
        except PeerUnreachable:
            self._give_up()
            return None
        said = self._word(_LONGEST_OF_ONE_S + on_the_way_s(one.size_bytes))
        if said is None or said["status"] is None:
            self._give_up()
            return None
        self._lost = 0
        return int(said["status"])

    def _word(self, wait_s: float = _LONGEST_OF_ONE_S) -> dict[str, Any] | None:
        """What the courier says next; None, and it is ended, if there is nothing."""
        until = time.monotonic() + wait_s
        cancelled = False
        while self._courier is not None and time.monotonic() < until:
            try:
                said = self._courier.heard(_TICK_S)
            except PeerUnreachable as error:
                _log.warning("a move destination cannot be reached", exc_info=error)
                break
            if said is not None:
                return said
            self.progress.say(_STILL_HERE_EVERY_S)
            if not cancelled and self._conversation.cancelled():
                cancelled, until = True, time.monotonic() + _CANCEL_GRACE_S
        self._give_up()
        return None

    def _give_up(self) -> None:
        if self._courier is not None:
            self._lost += 1
            self._courier.kill()
            self._end()

    def _end(self) -> None:
        if self._courier is not None:
            courier, self._courier = self._courier, None
            courier.close()
