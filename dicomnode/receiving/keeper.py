"""`InstanceKeeper`: makes an instance durable and known before it is answered with Success."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from dicomnode.domain.clock import type_clock, utc_now
from dicomnode.domain.errors import StaleUpdate, StorageError
from dicomnode.domain.received import Received
from dicomnode.network import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.receiving.answers import answer
from dicomnode.receiving.conflicts import judge
from dicomnode.receiving.handler import LastPieces, SenderGone, StoreAnswer, StoreRequest
from dicomnode.receiving.header import Header, HeaderReader, Refused
from dicomnode.receiving.ledger import InstanceLedger
from dicomnode.receiving.ours import is_ours
from dicomnode.registry import KnownInstance
from dicomnode.storage import FileMeta, InstanceWriter, Store

_log = structlog.get_logger("receiving")
_LOCKS = 4096  # held over a sync: two instances should hardly ever meet in one


class InstanceKeeper:
    """The `InstanceHandler` of the node. Steps: space, understand, bytes, row, answer.

    The file is synced beside the commit of its row (storage.order = "parallel"). A crash between the two leaves a row with an
    incomplete file, or a file without a row, neither of them acknowledged: `recovery` finds them.
    """

    def __init__(
        self,
        store: Store,
        ledger: InstanceLedger,
        *,
        max_inflated_bytes: int,
        clock: type_clock = utc_now,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._max_inflated_bytes = max_inflated_bytes
        self._clock = clock
        self._say = _log.bind().debug  # looked up once: that takes longer than to say nothing
        # The same instance on two associations at once is kept one after the other.
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def store(self, request: StoreRequest, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        """Keep the instance. Success means: bytes, folder entry and row are durable."""
        try:
            self._store.check_space()  # before the first byte of the data set: it is not cut off later
            return self._store_instance(request, data_set)
        except SenderGone:
            raise
        except Refused as error:
            return answer(error.code, error.what)
        except StorageError as error:
            _log.error("an instance cannot be stored", association=request.association_key, error=type(error).__name__)
            return answer("out_of_resources")
        except Exception as error:  # noqa: BLE001 - boundary: the peer gets a failure, the association goes on
            _log.error("an instance cannot be recorded", association=request.association_key, error=type(error).__name__)
            return answer("processing_failure")

    def _store_instance(self, request: StoreRequest, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        if request.sop_class_uid != request.abstract_syntax_uid:
            raise Refused("other_context")
        reader = HeaderReader(request.transfer_syntax_uid, at_most_inflated=self._max_inflated_bytes)
        header: Header | None = None
        writer: InstanceWriter | None = None
        try:
            for pieces in data_set:
                if header is None and (header := reader.feed(pieces)) is not None:
                    _must_be_what_was_announced(request, header)
                if writer is None:
                    writer = self._store.begin_instance(_file_head(request))
                writer.write(pieces, last=isinstance(pieces, LastPieces))
            if header is None:
                header = reader.finish()
                _must_be_what_was_announced(request, header)
            if writer is None:
                writer = self._store.begin_instance(_file_head(request))
            with self._locks[hash(header.sop_instance_uid) % _LOCKS]:
                return self._keep(request, header, writer)
        except BaseException:
            # Not acknowledged, so nobody misses it; half kept it would be an orphan.
            if writer is not None:
                writer.abandon()
            raise

    def _keep(self, request: StoreRequest, header: Header, writer: InstanceWriter) -> StoreAnswer:
        ours = is_ours(header, self._ledger)
        stored = writer.complete()
        received = Received(
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            series_instance_uid=header.series_instance_uid,
            study_instance_uid=header.study_instance_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            path=stored.path,
            sha256=stored.sha256,
            pixel_digest="",
            size_bytes=stored.size_bytes,
            attributes=header.attributes,
            calling_ae=request.calling_ae,
            called_ae=request.called_ae,
            address=request.address,
            association_key=request.association_key,
            received_at=self._clock(),
        )
        keys = self._ledger.add_instance(received, ours=ours)
        if not keys.new:
            met = self._meet_again(received, writer, ours=ours)
            writer.settle()
            return met
        self._make_durable(received, writer)
        writer.mark()
        self._say("instance stored", association=received.association_key, study=keys.study_key, series=keys.series_key)
        return answer("ours" if ours else "stored", afterwards=writer.settle)

    def _make_durable(self, received: Received, writer: InstanceWriter) -> None:
        """Raises StorageError; then the new row is gone, or stays with its file until an operator or the next start looks."""
        try:
            writer.durable()
        except StorageError:
            try:
                self._ledger.forget_instances([received.sop_instance_uid])
            except BaseException:
                writer.settle()
                raise
            raise

    def _meet_again(self, received: Received, writer: InstanceWriter, *, ours: bool) -> StoreAnswer:
        """The UID is known: the same again, our own changed by a PACS, or a contradiction."""
        known = self._ledger.instance(received.sop_instance_uid)
        if known is None:
            raise StaleUpdate("the row of an instance vanished while it came again", "send the instance again")
        if known.sha256 == received.sha256 and self._store.verify(known.path, known.size_bytes, known.sha256):
            self._store.sync(known.path)  # another process may be just about to
            self._ledger.came_again(received)
            writer.abandon()
            return answer("duplicate")
        writer.durable()
        if known.purged:  # there is nothing left that it could contradict
            self._ledger.add_instance(received, ours=ours, replaces=True)
            return answer("repaired")
        if known.sha256 == received.sha256:
            self._ledger.add_instance(received, ours=ours, replaces=True)
            with suppress(StorageError):  # else the damaged file would stay behind as an orphan
                self._store.discard(known.path)
            _log.warning("bytes that were missing or damaged came again", association=received.association_key)
            return answer("repaired")
        if ours:
            # Archives add elements of their own to what we sent them; ours is never a conflict.
            self._ledger.add_instance(received, ours=True, replaces=True)
            with suppress(StorageError):
                self._store.discard(known.path)
            return answer("ours")
        return self._set_aside(received, known)

    def _set_aside(self, received: Received, known: KnownInstance) -> StoreAnswer:
        """Other content under a known UID: kept apart whatever it is, because Success promises that nothing is lost."""
        kind = judge(
            self._store.absolute(known.path),
            self._store.absolute(received.path),
            syntaxes=(known.transfer_syntax_uid, received.transfer_syntax_uid),
        )
        if kind is None:
            self._ledger.came_again(received)
        aside = self._store.quarantine(received.path, kind.value if kind else "duplicate")
        if kind is None:
            return answer("duplicate")
        # If the row fails the file stays: the place is named by its content, and an earlier row, acknowledged, may name it too.
        self._ledger.record_conflict(replace(received, path=aside), kind)
        _log.error(
            "an instance came again with other content: its jobs are held until an operator decides",
            association=received.association_key,
            study=known.study_key,
            series=known.series_key,
            kind=kind.value,
        )
        return answer(f"conflict_{kind.value}")


def _file_head(request: StoreRequest) -> bytes:
    """From the command alone: the data set must say the same, or nothing is kept."""
    return FileMeta(
        request.sop_class_uid,
        request.sop_instance_uid,
        request.transfer_syntax_uid,
        IMPLEMENTATION_CLASS_UID,
        IMPLEMENTATION_VERSION_NAME,
        request.calling_ae,
    ).encoded()


def _must_be_what_was_announced(request: StoreRequest, header: Header) -> None:
    if header.sop_class_uid != request.sop_class_uid:
        raise Refused("other_class")
    if header.sop_instance_uid != request.sop_instance_uid:
        raise Refused("other_instance")
