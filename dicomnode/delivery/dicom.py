"""A DICOM peer as destination: C-STORE on one association a job, C-FIND or storage commitment as proof."""

import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import Verification

from dicomnode import network
from dicomnode.delivery.destination import Answer
from dicomnode.domain.equipment import DERIVED_SOP_CLASSES
from dicomnode.domain.errors import PeerUnreachable
from dicomnode.domain.results import ResultObject
from dicomnode.domain.routes import Peer
from dicomnode.domain.statuses import SOP_CLASS_NOT_SUPPORTED, Outcome, outcome_of_store, store_status_in_words

_STALLED_S = 60
_GOODBYE_S = 5.0
_ANSWER_WITHIN_S = 120.0
_SLOWEST_LINK_BYTES_PER_S = 100_000.0
_UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))


class DicomSender:
    """Sends to one peer."""

    query = "C-FIND"

    def __init__(self, peer: Peer, our_ae_title: str, longest_send_s: float) -> None:
        self._peer = peer
        self._our_ae_title = our_ae_title
        self._longest_send_s = longest_send_s

    @contextmanager
    def connect(self, first: ResultObject) -> Iterator["_StoreAssociation"]:
        """An association for `first` and for every class that results may have. Raises PeerUnreachable."""
        contexts = _contexts(first)
        with network.associate(self._peer, self._our_ae_title, contexts) as association:
            yield _StoreAssociation(association, contexts, self._longest_send_s)

    def holds(self, results: Sequence[ResultObject]) -> set[str]:
        """The UIDs of those that the peer lists (C-FIND, study root, IMAGE level). Raises PeerUnreachable."""
        asked = [(one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid) for one in results]
        return network.find_instances(self._peer, self._our_ae_title, asked)

    def ask_commitment(
        self,
        request: network.CommitmentRequest,
        reported: Callable[[network.CommitmentReport], None],
        *,
        wait_s: float,
    ) -> bool:
        """N-ACTION; whether the report came on the same association within `wait_s`. Raises PeerUnreachable."""
        return network.ask_commitment(self._peer, self._our_ae_title, request, reported, wait_s=wait_s)


class _StoreAssociation:
    def __init__(self, association: Any, proposed: Sequence[tuple[str, tuple[str, ...]]], longest_send_s: float) -> None:
        self._association = association
        self._proposed = proposed
        self._longest_send_s = longest_send_s
        self._lost = False
        # A peer that stops reading (hung, or the far half of a dead link) would otherwise block this thread for ever, and
        # pynetdicom 3.0.4 with it: it waits for its own sending thread when it gives up.
        stalled = struct.pack("ll", _STALLED_S, 0)
        association.dul.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, stalled)
        # Also the ARTIM timer (PS3.8 9.1.5): a hung peer does not close the connection after our A-ABORT.
        association.acse_timeout = _GOODBYE_S

    def takes(self, result: ResultObject) -> bool:
        """Whether the object's class was proposed in its transfer syntax, and the link still stands."""
        return not self._lost and any(
            sop_class == result.sop_class_uid and result.transfer_syntax_uid in syntaxes
            for sop_class, syntaxes in self._proposed
        )

    def send(self, path: Path, result: ResultObject) -> Answer:
        """One C-STORE. A lost link gives no status: the outcome is unknown and the same UID goes again."""
        accepted = {str(context.abstract_syntax) for context in self._association.accepted_contexts}
        if result.sop_class_uid not in accepted:
            message = f"the peer takes no {result.kind.value}: presentation context refused"
            return Answer(Outcome.REJECTED, message=message, class_refused=True)
        # pynetdicom counts the time on the wire as time without an answer: a slow link must not look like a silent peer.
        patience_s = _ANSWER_WITHIN_S + result.size_bytes / _SLOWEST_LINK_BYTES_PER_S
        self._association.dimse_timeout = min(patience_s, self._longest_send_s)
        try:
            status = network.send_file(self._association, path)
        except PeerUnreachable as error:  # the class is taken, but not in this transfer syntax
            return Answer(Outcome.REJECTED, message=str(error), class_refused=True)
        self._lost = status is None
        outcome = outcome_of_store(status)
        message = "" if outcome is Outcome.ACCEPTED else f"C-STORE gave {store_status_in_words(status)}"
        return Answer(outcome, status=status, message=message, class_refused=status == SOP_CLASS_NOT_SUPPORTED)


def _contexts(first: ResultObject) -> list[tuple[str, tuple[str, ...]]]:
    """C-ECHO, all classes of results uncompressed, and the first object's own syntax apart where it is compressed.

    A peer picks one syntax of a context: offered together with uncompressed ones it could pick what the file is not in.
    With C-ECHO a peer that takes none of our classes still answers: it is not out of reach, it refuses the object.
    """
    sop_classes = sorted(DERIVED_SOP_CLASSES | {first.sop_class_uid})
    contexts: list[tuple[str, tuple[str, ...]]] = [(str(Verification), _UNCOMPRESSED)]
    contexts += [(sop_class, _UNCOMPRESSED) for sop_class in sop_classes]
    if first.transfer_syntax_uid not in _UNCOMPRESSED:
        contexts.append((first.sop_class_uid, (first.transfer_syntax_uid,)))
    return contexts
