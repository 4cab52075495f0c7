"""Storage commitment (PS3.4 J), both of its sides that others begin: reports of what we asked for, and what is asked of us.

Modalities delete what was committed. So a request is durable before it is answered; success is said only after size and digest
of each instance were checked again; what was committed is kept for the stated time. The report goes out on an association of
ours, until the peer has acknowledged it.
"""

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import structlog

from dicomnode.domain.clock import type_clock, utc_now
from dicomnode.domain.errors import InvalidInstance, UnreachableError
from dicomnode.domain.routes import Peer
from dicomnode.domain.statuses import NOT_AUTHORIZED, PROCESSING_FAILURE, SUCCESS
from dicomnode.network import (
    COMMITMENT_SOP_CLASS,
    NO_SUCH_OBJECT,
    CommitmentReport,
    read_report,
    read_request,
    send_report,
)
from dicomnode.network.commitment import (
    ALL_COMMITTED,
    CLASS_INSTANCE_CONFLICT,
    INVALID_ARGUMENT,
    REQUEST_COMMITMENT,
    SOME_FAILED,
)
from dicomnode.receiving.normalized import N_ACTION_RQ, NormalizedRequest
from dicomnode.registry import AskedCommitment, KnownInstance, Promises, Proofs
from dicomnode.storage import Store

_log = structlog.get_logger("receiving")

_NO_SUCH_TYPE = 0x0113  # no such event type (PS3.7 C.5.8); of an action it is 0x0123
_NO_SUCH_ACTION = 0x0123
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 900.0
_LOOK_EVERY_S = 5.0


class CommitmentService:
    """The `NormalizedHandler` of storage commitment.

    proofs: keeps reports on what we asked for. promises: keeps what is asked of us; None where we are no SCP, and refuse it.
    noted: set when something was asked.
    """

    sop_classes = frozenset({COMMITMENT_SOP_CLASS})

    def __init__(self, proofs: Proofs, promises: Promises | None, noted: threading.Event) -> None:
        self._proofs, self._promises, self._noted = proofs, promises, noted

    def refusal(self, field: int, sop_class_uid: str, peer: Peer) -> int | None:  # noqa: ARG002
        """See NormalizedHandler. Whom we asked may always report."""
        return NOT_AUTHORIZED if field == N_ACTION_RQ and (self._promises is None or "commit" not in peer.may) else None

    def serve(self, request: NormalizedRequest) -> int:
        """See NormalizedHandler."""
        try:
            return self._asked(request) if request.field == N_ACTION_RQ else self._told(request)
        except InvalidInstance as error:
            _log.warning("a storage commitment message cannot be used", peer=request.peer.name, exc_info=error)
            return INVALID_ARGUMENT
        except Exception as error:  # noqa: BLE001 - boundary: the peer hears a failure and may try again
            _log.error("a storage commitment message could not be kept", peer=request.peer.name, error=type(error).__name__)
            return PROCESSING_FAILURE

    def _asked(self, request: NormalizedRequest) -> int:
        if self._promises is None or self.refusal(request.field, request.sop_class_uid, request.peer) is not None:
            return NOT_AUTHORIZED
        if request.type_id != REQUEST_COMMITMENT:
            return _NO_SUCH_ACTION
        asked = read_request(request.data_set)
        self._promises.note(request.peer.name, asked.transaction_uid, asked.references)
        self._noted.set()
        _log.info("storage commitment is asked of us", peer=request.peer.name, count=len(asked.references))
        return SUCCESS

    def _told(self, request: NormalizedRequest) -> int:
        if request.type_id not in (ALL_COMMITTED, SOME_FAILED):
            return _NO_SUCH_TYPE
        report = read_report(request.data_set)
        changed = self._proofs.reported(report.transaction_uid, report.committed, report.missing, report.refused)
        _log.info("storage commitment reported", peer=request.peer.name, deliveries=changed, failed=len(report.failed))
        return SUCCESS


class Committer:
    """Decides on what was asked of us, and tells the peers. One thread, from `start` to `stop`."""

    def __init__(
        self,
        promises: Promises,
        instance: Callable[[str], KnownInstance | None],
        store: Store,
        peers: Mapping[str, Peer],
        our_ae_title: str,
        keep_for: timedelta,
        noted: threading.Event,
        *,
        clock: type_clock = utc_now,
    ) -> None:
        """instance: what is stored under a UID. noted: set when a request came in."""
        self._promises, self._instance, self._store = promises, instance, store
        self._peers, self._our_ae_title, self._keep_for = peers, our_ae_title, keep_for
        self._noted, self._clock = noted, clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier run left undecided or untold."""
        self._thread.start()

    def stop(self) -> None:
        """End after the request that is being looked at."""
        self._stopping.set()
        self._noted.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._noted.wait(_LOOK_EVERY_S)
            self._noted.clear()
            try:
                while not self._stopping.is_set() and (due := self._promises.due()):
                    for asked in due:
                        self.settle(asked)
            except Exception as error:  # noqa: BLE001 - boundary: a database that is away must not end this thread
                _log.error("storage commitments could not be looked at", error=type(error).__name__)
                self._stopping.wait(_LOOK_EVERY_S)

    def settle(self, asked: AskedCommitment) -> None:
        """Decide, if that was not done before a crash, and tell the peer."""
        failed = asked.failed
        if failed is None:
            failed = self._decide(asked)
        peer = self._peers.get(asked.peer)
        if peer is None:
            self._promises.postpone(asked.id, _LONGEST_PAUSE_S, "the peer is no longer in the settings")
            return
        classes = {uid: sop_class for sop_class, uid in asked.references}
        committed = tuple(uid for uid in classes if uid not in failed)
        try:
            send_report(peer, self._our_ae_title, CommitmentReport(asked.transaction_uid, committed, failed), classes)
        except UnreachableError as error:
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(asked.attempts, 20))
            self._promises.postpone(asked.id, pause, str(error))
            _log.warning("a storage commitment could not be reported", peer=peer.name, pause_s=pause, exc_info=error)
            return
        self._promises.told(asked.id)
        _log.info("storage commitment reported to the peer", peer=peer.name, committed=len(committed), failed=len(failed))

    def _decide(self, asked: AskedCommitment) -> dict[str, int]:
        uids = [uid for _, uid in asked.references]
        # Kept first, checked then: a purge between the two would make the promise a lie.
        self._promises.keep(uids, self._clock() + self._keep_for)
        failed = {uid: reason for sop_class, uid in asked.references if (reason := self._why_not(sop_class, uid))}
        for uid in self._promises.in_quarantine(uids):
            failed[uid] = PROCESSING_FAILURE  # other content waits under that UID: which one would be kept?
        self._promises.decide(asked.id, failed)
        if failed:
            _log.error("storage commitment is refused for some instances", peer=asked.peer, failed=len(failed))
        return failed

    def _why_not(self, sop_class: str, uid: str) -> int:
        """Failure Reason (PS3.3 C.14.1.1); 0 if size and digest on disk are what they were."""
        known = self._instance(uid)
        if known is None or known.path == Path():
            return NO_SUCH_OBJECT
        if known.sop_class_uid != sop_class:
            return CLASS_INSTANCE_CONFLICT
        return 0 if self._store.verify(known.path, known.size_bytes, known.sha256) else PROCESSING_FAILURE
