"""MPPS and Instance Availability Notification as SCP (PS3.4 F.7, R): what modalities and archives announce becomes evidence.

What is said is a row before it is answered. It decides nothing by itself: `routing` weighs it with what arrived.
"""

from collections.abc import Callable

import structlog

from dicomnode.domain.errors import InvalidInstance
from dicomnode.domain.routes import Peer
from dicomnode.domain.statuses import NOT_AUTHORIZED, PROCESSING_FAILURE, SUCCESS
from dicomnode.network.announcements import (
    AVAILABILITY_SOP_CLASS,
    DUPLICATE_SOP_INSTANCE,
    NO_SUCH_SOP_INSTANCE,
    RESOURCE_LIMITATION,
    STEP_SOP_CLASS,
    read_availability,
    read_new_step,
    read_step_change,
)
from dicomnode.receiving.normalized import N_CREATE_RQ, N_SET_RQ, NormalizedAnswer, NormalizedRequest
from dicomnode.registry.announcements import Announcements, Noted

_log = structlog.get_logger("receiving")

_UNRECOGNIZED_OPERATION = 0x0211  # PS3.7 C.5.23
_FINAL = NormalizedAnswer(  # PS3.4 F.7.2.2.3
    PROCESSING_FAILURE, "Performed Procedure Step Object may no longer be updated", 0xA710
)
_ANSWERS: dict[Noted, int | NormalizedAnswer] = {
    Noted.KEPT: SUCCESS,
    Noted.ALREADY_THERE: DUPLICATE_SOP_INSTANCE,
    Noted.UNKNOWN: NO_SUCH_SOP_INSTANCE,
    Noted.FINAL: _FINAL,
    Noted.TOO_MANY: RESOURCE_LIMITATION,
}


class AnnouncementService:
    """The `NormalizedHandler` of MPPS and IAN, for peers that may "announce"."""

    sop_classes = frozenset({STEP_SOP_CLASS, AVAILABILITY_SOP_CLASS})

    def __init__(self, announcements: Announcements, has_room: Callable[[], bool]) -> None:
        """has_room: whether the disk can take more; what waits for images must not keep them from their place."""
        self._announcements, self._has_room = announcements, has_room

    def refusal(self, field: int, sop_class_uid: str, peer: Peer) -> int | None:  # noqa: ARG002
        """See NormalizedHandler."""
        return None if "announce" in peer.may else NOT_AUTHORIZED

    def serve(self, request: NormalizedRequest) -> int | NormalizedAnswer:
        """See NormalizedHandler."""
        if (refused := self.refusal(request.field, request.sop_class_uid, request.peer)) is not None:
            return refused
        if not self._has_room():
            return RESOURCE_LIMITATION
        try:
            noted = self._noted(request)
        except InvalidInstance as error:
            _log.warning("an announcement cannot be used", peer=request.peer.name, status=f"{error.status:04X}")
            return NormalizedAnswer(error.status, error.what)
        except Exception as error:  # noqa: BLE001 - boundary: the peer hears a failure and may try again
            _log.error("an announcement could not be kept", peer=request.peer.name, error=type(error).__name__)
            return PROCESSING_FAILURE
        if noted is None:
            return _UNRECOGNIZED_OPERATION
        return _ANSWERS[noted]

    def _noted(self, request: NormalizedRequest) -> Noted | None:
        peer, uid = request.peer.name, request.sop_instance_uid
        asked = (request.sop_class_uid, request.field)
        if asked == (STEP_SOP_CLASS, N_CREATE_RQ):
            return self._announcements.note(peer, read_new_step(uid, request.data_set))
        if asked == (STEP_SOP_CLASS, N_SET_RQ):
            return self._announcements.change(peer, read_step_change(uid, request.data_set))
        if asked == (AVAILABILITY_SOP_CLASS, N_CREATE_RQ):
            return self._announcements.note(peer, read_availability(uid, request.data_set))
        return None
