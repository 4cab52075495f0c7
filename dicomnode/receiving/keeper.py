"""`InstanceKeeper`: makes an instance durable and known, in that order, before it is answered with Success."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from dicomnode.domain.clock import type_clock, utc_now
from dicomnode.domain.errors import StaleUpdate, StorageError
from dicomnode.domain.received import Received
from dicomnode.domain.statuses import (
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
)
from dicomnode.network import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.receiving.conflicts import judge
from dicomnode.receiving.handler import SenderGone, StoreAnswer, StoreRequest
from dicomnode.receiving.header import Header, Refused, scan
from dicomnode.receiving.ledger import InstanceLedger
from dicomnode.receiving.ours import is_ours
from dicomnode.registry import KnownInstance
from dicomnode.storage import FileMeta, Store, StoredBytes

_log = structlog.get_logger("receiving")
_LOCKS = 64


class InstanceKeeper:
    """The `InstanceHandler` of the node. Steps: space, understand, bytes, row, answer."""

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
        # The same instance on two associations at once is kept one after the other.
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def store(self, request: StoreRequest, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        """Keep the instance. Success means: bytes, folder entry and row are durable."""
        try:
            return self._store_instance(request, _joined(data_set))
        except SenderGone:
            raise
        except Refused as error:
            return StoreAnswer(error.status, error.code, error.what)
        except StorageError as error:
            _log.error("an instance cannot be stored", association=request.association_key, error=type(error).__name__)
            return StoreAnswer(OUT_OF_RESOURCES, "out_of_resources", "storage is full or failing")
        except Exception as error:  # noqa: BLE001 - boundary: the peer gets a failure, the association goes on
            _log.error("an instance cannot be recorded", association=request.association_key, error=type(error).__name__)
            return StoreAnswer(PROCESSING_FAILURE, "processing_failure", "the node cannot record the instance now")

    def _store_instance(self, request: StoreRequest, data_set: memoryview) -> StoreAnswer:
        self._store.check_space(len(data_set))
        header = scan(data_set, request.transfer_syntax_uid, at_most_inflated=self._max_inflated_bytes)
        _must_be_what_was_announced(request, header)
        pixel_digest = ""
        with self._locks[hash(header.sop_instance_uid) % _LOCKS]:
            return self._keep(request, header, pixel_digest, data_set)

    def _keep(self, request: StoreRequest, header: Header, pixel_digest: str, data_set: memoryview) -> StoreAnswer:
        ours = is_ours(header, self._ledger)
        head = FileMeta(
            header.sop_class_uid,
            header.sop_instance_uid,
            request.transfer_syntax_uid,
            IMPLEMENTATION_CLASS_UID,
            IMPLEMENTATION_VERSION_NAME,
            request.calling_ae,
        ).encoded()
        stored = self._store.write_instance(
            head, (data_set,), header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid
        )
        try:
            received = self._received(request, header, pixel_digest, stored)
            keys = self._ledger.add_instance(received, ours=ours)
            if keys.new:
                _log.debug(
                    "instance stored", association=received.association_key, study=keys.study_key, series=keys.series_key
                )
                return StoreAnswer(SUCCESS, "ours" if ours else "stored")
            return self._meet_again(received, ours=ours)
        except BaseException:
            # Not acknowledged, so nobody misses it; half kept it would be an orphan.
            with suppress(StorageError):
                self._store.discard(stored.path)
            raise
        finally:
            if stored.in_flight is not None:
                stored.in_flight.end()

    def _received(self, request: StoreRequest, header: Header, pixel_digest: str, stored: StoredBytes) -> Received:
        return Received(
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            series_instance_uid=header.series_instance_uid,
            study_instance_uid=header.study_instance_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            path=stored.path,
            sha256=stored.sha256,
            pixel_digest=pixel_digest,
            size_bytes=stored.size_bytes,
            attributes=header.attributes,
            calling_ae=request.calling_ae,
            called_ae=request.called_ae,
            address=request.address,
            association_key=request.association_key,
            received_at=self._clock(),
        )

    def _meet_again(self, received: Received, *, ours: bool) -> StoreAnswer:
        """The UID is known: the same again, our own changed by a PACS, or a contradiction."""
        known = self._ledger.instance(received.sop_instance_uid)
        if known is None:
            raise StaleUpdate("the row of an instance vanished while it came again", "send the instance again")
        if known.sha256 == received.sha256:
            if self._store.verify(known.path, known.size_bytes, known.sha256):
                self._store.discard(received.path)
                return StoreAnswer(SUCCESS, "duplicate")
            self._ledger.add_instance(received, ours=ours, replaces=True)
            _log.warning("bytes that were missing or damaged came again", association=received.association_key)
            return StoreAnswer(SUCCESS, "repaired")
        if ours:
            # Archives add elements of their own to what we sent them; ours is never a conflict.
            self._ledger.add_instance(received, ours=True, replaces=True)
            with suppress(StorageError):
                self._store.discard(known.path)
            return StoreAnswer(SUCCESS, "ours")
        return self._set_aside(received, known)

    def _set_aside(self, received: Received, known: KnownInstance) -> StoreAnswer:
        """Other content under a known UID: kept apart whatever it is, because Success promises that nothing is lost."""
        kind = judge(
            self._store.absolute(known.path),
            self._store.absolute(received.path),
            syntaxes=(known.transfer_syntax_uid, received.transfer_syntax_uid),
        )
        aside = self._store.quarantine(received.path, kind.value if kind else "duplicate")
        if kind is None:
            return StoreAnswer(SUCCESS, "duplicate")
        # If the row fails the file stays: the place is named by its content, and an earlier row, acknowledged, may name it too.
        self._ledger.record_conflict(replace(received, path=aside), kind)
        _log.error(
            "an instance came again with other content: its jobs are held until an operator decides",
            association=received.association_key,
            study=known.study_key,
            series=known.series_key,
            kind=kind.value,
        )
        return StoreAnswer(SUCCESS, f"conflict_{kind.value}")


def _joined(data_set: Iterator[Sequence[memoryview]]) -> memoryview:
    """All of it: pieces are only valid until the next turn."""
    return memoryview(b"".join(piece for pieces in data_set for piece in pieces))


def _must_be_what_was_announced(request: StoreRequest, header: Header) -> None:
    if request.sop_class_uid != request.abstract_syntax_uid:
        raise Refused("the command's SOP class is not that of its context", "other_context", SOP_CLASS_NOT_SUPPORTED)
    if header.sop_class_uid != request.sop_class_uid:
        raise Refused("SOPClassUID in data set and command differ", "other_class", DATA_SET_DOES_NOT_MATCH_SOP_CLASS)
    if header.sop_instance_uid != request.sop_instance_uid:
        raise Refused("SOPInstanceUID in data set and command differ", "other_instance")
