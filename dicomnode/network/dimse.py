"""C-FIND, C-MOVE and C-GET on their way from the listener to the room that answers them (PS3.7 9.1.2 - 9.1.4).

The listener speaks the protocol and knows nothing of matches; whoever answers knows nothing of PDUs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from dicomnode.domain.routes import Peer

LONGEST_IDENTIFIER = 1 << 20  # bytes; a list of 10,000 UIDs fits


class QueryService(Enum):
    """Command Field of the request (PS3.7 E.1)."""

    FIND = 0x0020
    GET = 0x0010
    MOVE = 0x0021


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One request. identifier: its encoded data set, None where there is none or it is longer than LONGEST_IDENTIFIER.

    extended: what SOP Class Extended Negotiation agreed on (PS3.4 C.5.1.1, C.5.2.1), b"" for nothing.
    move_destination: the AE title of a C-MOVE, else "".
    """

    service: QueryService
    message_id: int
    sop_class_uid: str
    transfer_syntax_uid: str
    identifier: bytes | None
    move_destination: str
    extended: bytes
    peer: Peer
    calling_ae: str
    called_ae: str
    association_key: str


@dataclass(frozen=True, slots=True)
class SubOperations:
    """Numbers of sub-operations (PS3.7 9.1.3.1, 9.1.4.1). remaining: None where the response must not say."""

    remaining: int | None
    completed: int
    failed: int
    warning: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a C-STORE sub-operation sends. data_set: opens the encoded data set in pieces; size_bytes: of all of them."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    data_set: Callable[[], Iterable[bytes]]


class Conversation(Protocol):
    """The association of the request. Raises when the peer leaves or must be left; let that pass."""

    def answer(self, status: int, identifier: bytes = b"", *, counts: SubOperations | None = None, comment: str = "") -> None:
        """One response; identifier: its encoded data set, b"" for none. The last one is not a pending one."""
        ...

    def cancelled(self) -> bool:
        """Whether the peer has asked for the end of this request (C-CANCEL). Looks, never waits."""
        ...

    def takes(self, sop_class_uid: str, transfer_syntax_uid: str) -> bool:
        """Whether the peer agreed to be sent such objects on this association."""
        ...

    def store(self, instance: StoredObject) -> int | None:
        """C-STORE on this association; the status of its response, None where it has none."""
        ...


class QueryHandler(Protocol):
    """Answers requests of the SOP classes that it names. Called from the association's own thread, by many at once.

    sop_classes: SOP class → the right that a peer needs for it (`Peer.may`). extended: SOP class → what we can do of its
    extended negotiation; agreed is the bitwise AND with what is asked for.
    """

    sop_classes: Mapping[str, str]
    extended: Mapping[str, bytes]

    def syntaxes(self, sop_class_uid: str) -> Sequence[str]:
        """The transfer syntaxes in which such objects are here, the commonest first; none: nothing is known of them."""
        ...

    def serve(self, request: QueryRequest, conversation: Conversation) -> None:
        """Give all responses. Raises only what the conversation raises."""
        ...
