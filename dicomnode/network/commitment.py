"""Storage commitment, push model (PS3.4 J.3): what is asked, what is reported, and our SCU side of both."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicomnode.domain.errors import InvalidInstance, PeerUnreachable
from dicomnode.domain.routes import Peer
from dicomnode.domain.statuses import SUCCESS
from dicomnode.network.association import Timeouts, associate
from dicomnode.network.contexts import UNCOMPRESSED
from dicomnode.network.reactor import hold

_log = structlog.get_logger("network")

COMMITMENT_SOP_CLASS = str(StorageCommitmentPushModel)
COMMITMENT_SOP_INSTANCE = str(StorageCommitmentPushModelInstance)  # well-known (PS3.4 J.3.5)
REQUEST_COMMITMENT = 1  # Action Type ID (PS3.4 J.3.2)
ALL_COMMITTED, SOME_FAILED = 1, 2  # Event Type ID (PS3.4 J.3.3)

# Failure Reason (0008,1197), PS3.3 C.14.1.1
INVALID_ARGUMENT = 0x0115  # PS3.7 C.5.12
PROCESSING_FAILURE = 0x0110
NO_SUCH_OBJECT = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119

_REFUSALS_IN_WORDS = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_OBJECT: "no such object",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction",
    CLASS_INSTANCE_CONFLICT: "class and instance conflict",
    0x0213: "resource limitation",
}


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """What somebody wants kept. references: (SOP Class UID, SOP Instance UID), at least one."""

    transaction_uid: str
    references: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """What is kept. committed: SOP Instance UIDs; failed: SOP Instance UID → Failure Reason."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """SOP Instance UID → why, of those that the peer does not have."""
        return {uid: _refused(reason) for uid, reason in self.failed.items() if reason == NO_SUCH_OBJECT}

    @property
    def refused(self) -> dict[str, str]:
        """SOP Instance UID → why, of those that it may have and does not commit itself to."""
        return {uid: _refused(reason) for uid, reason in self.failed.items() if reason != NO_SUCH_OBJECT}


def _refused(reason: int) -> str:
    return f"storage commitment was refused: {failure_in_words(reason)}"


def failure_in_words(reason: int) -> str:
    """A Failure Reason for people: "0112 (no such object)"."""
    return f"{reason:04X} ({_REFUSALS_IN_WORDS.get(reason, 'not listed in PS3.3 C.14.1.1')})"


def new_transaction_uid() -> str:
    """For one request; never used again (PS3.4 J.3.2.1.1)."""
    return str(generate_uid(prefix=None))  # 2.25 of a random UUID


def request_data_set(request: CommitmentRequest) -> Dataset:
    """Action Information (PS3.4 Table J.3-1)."""
    asked = Dataset()
    asked.TransactionUID = request.transaction_uid
    asked.ReferencedSOPSequence = [_reference(*one) for one in request.references]
    return asked


def read_request(asked: Dataset) -> CommitmentRequest:
    """Raises InvalidInstance for a request that names no transaction or no instances."""
    references = [_pair(item) for item in asked.get("ReferencedSOPSequence", None) or ()]
    transaction_uid = str(asked.get("TransactionUID", ""))
    if not transaction_uid or not references or not all(sop_class and sop_instance for sop_class, sop_instance in references):
        raise InvalidInstance("a commitment request names no transaction or instance", "repair the sender", INVALID_ARGUMENT)
    return CommitmentRequest(transaction_uid, tuple(references))


def report_data_set(report: CommitmentReport, classes: Mapping[str, str]) -> Dataset:
    """Event Information (PS3.4 Table J.3-2). classes: SOP Instance UID → SOP Class UID as it was asked."""
    said = Dataset()
    said.TransactionUID = report.transaction_uid
    if report.committed:
        said.ReferencedSOPSequence = [_reference(classes[uid], uid) for uid in report.committed]
    if report.failed:
        said.FailedSOPSequence = [_reference(classes[uid], uid, reason) for uid, reason in report.failed.items()]
    return said


def read_report(said: Dataset) -> CommitmentReport:
    """Raises InvalidInstance for a report that names no transaction."""
    transaction_uid = str(said.get("TransactionUID", ""))
    if not transaction_uid:
        raise InvalidInstance("a storage commitment report names no transaction", "look at its own log", INVALID_ARGUMENT)
    committed = tuple(_pair(item)[1] for item in said.get("ReferencedSOPSequence", None) or ())
    failed = {
        _pair(item)[1]: int(item.get("FailureReason", PROCESSING_FAILURE)) for item in said.get("FailedSOPSequence", None) or ()
    }
    return CommitmentReport(transaction_uid, committed, failed)


def _reference(sop_class: str, sop_instance: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    if reason is not None:
        item.FailureReason = reason
    return item


def _pair(item: Dataset) -> tuple[str, str]:
    return str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", ""))


def ask_commitment(
    peer: Peer,
    our_ae_title: str,
    request: CommitmentRequest,
    reported: Callable[[CommitmentReport], None],
    *,
    wait_s: float,
    timeouts: Timeouts = Timeouts(dimse_s=30.0),  # noqa: B008 - frozen
) -> bool:
    """N-ACTION; whether the report came on this association within `wait_s`. Raises PeerUnreachable, also for a refusal.

    Reports, of this transaction or an earlier one, go to `reported` before they are answered; it may raise, then the peer hears
    a failure. Without a report here the peer sends it on an association that it opens, to our listener.
    """
    came = threading.Event()

    def handle(event: evt.Event) -> tuple[int, None]:
        status, report = _take(event.event_information, reported)
        if report is not None and report.transaction_uid == request.transaction_uid:
            came.set()
        return status, None

    contexts = [(COMMITMENT_SOP_CLASS, UNCOMPRESSED)]
    handlers = [(evt.EVT_N_EVENT_REPORT, handle)]
    with associate(peer, our_ae_title, contexts, timeouts=timeouts, handlers=handlers) as association:
        hold(association)
        answer, _ = association.send_n_action(
            request_data_set(request), REQUEST_COMMITMENT, COMMITMENT_SOP_CLASS, COMMITMENT_SOP_INSTANCE
        )
        status = int(answer.Status) if "Status" in answer else None
        if status != SUCCESS:
            said = "nothing" if status is None else f"status 0x{status:04X}"
            raise PeerUnreachable(
                f"peer {peer.name!r} answered a storage commitment request with {said}",
                "let the peer know our AE title, address and port, or set another proof for the destination",
            )
        return came.wait(wait_s)


def _take(information: Dataset, reported: Callable[[CommitmentReport], None]) -> tuple[int, CommitmentReport | None]:
    try:
        report = read_report(information)
        reported(report)
    except InvalidInstance:
        return PROCESSING_FAILURE, None
    except Exception as error:  # noqa: BLE001 - boundary: the peer hears a failure and says it again
        _log.error("a storage commitment report could not be taken", error=type(error).__name__)
        return PROCESSING_FAILURE, None
    return SUCCESS, report


def send_report(
    peer: Peer,
    our_ae_title: str,
    report: CommitmentReport,
    classes: Mapping[str, str],
    *,
    timeouts: Timeouts = Timeouts(dimse_s=30.0),  # noqa: B008 - frozen
) -> None:
    """N-EVENT-REPORT on an association of our own, in the role of SCP (PS3.4 J.3.3, PS3.7 D.3.3.4). Raises PeerUnreachable."""
    contexts = [(COMMITMENT_SOP_CLASS, UNCOMPRESSED)]
    roles = [build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)]
    with associate(peer, our_ae_title, contexts, timeouts=timeouts, roles=roles) as association:
        hold(association)
        event_type = SOME_FAILED if report.failed else ALL_COMMITTED
        answer, _ = association.send_n_event_report(
            report_data_set(report, classes), event_type, COMMITMENT_SOP_CLASS, COMMITMENT_SOP_INSTANCE
        )
        status = int(answer.Status) if "Status" in answer else None
    if status != SUCCESS:
        said = "nothing" if status is None else f"status 0x{status:04X}"
        raise PeerUnreachable(
            f"peer {peer.name!r} answered a storage commitment report with {said}", "look at the peer's own log"
        )
