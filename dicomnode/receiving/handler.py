"""The seam between protocol and promise: an instance arrived; which status does it get?

Whatever speaks the DICOM protocol (`association`) calls an `InstanceHandler` and knows nothing of files and rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dicomnode.domain.statuses import SUCCESS


class SenderGone(Exception):
    """The association ended inside the data set."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What command and association say of one C-STORE (PS3.7 9.1.1)."""

    sop_class_uid: str  # Affected SOP Class UID
    sop_instance_uid: str  # Affected SOP Instance UID
    abstract_syntax_uid: str  # of the presentation context
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    address: str
    association_key: str


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """Status of the C-STORE response (PS3.4 B.2.3). comment: Error Comment (0000,0902), without anything of the object.

    outcome: one word for logs and counts. afterwards: what can wait until the peer has its answer; who answers calls it, also
    where the peer has gone.
    """

    status: int
    outcome: str
    comment: str = ""
    afterwards: Callable[[], None] | None = None

    @property
    def success(self) -> bool:
        """Whether we now answer for the instance."""
        return self.status == SUCCESS


class LastPieces(list[memoryview]):
    """The pieces of a data set's last turn, where that is known when they come. Nothing is read over them until the answer."""


class InstanceHandler(Protocol):
    """Called from the association's own thread, by many at once."""

    def store(self, request: StoreRequest, data_set: Iterator[Sequence[memoryview]]) -> StoreAnswer:
        """Take the encoded data set while it comes in, and answer for it. Begins before the first byte of it was read.

        data_set: each turn gives the pieces that one read of the socket brought, none of them empty, 512 at most; they are
        valid only until the next turn, `LastPieces` until the answer. Raises SenderGone when the association ends inside the
        data set: clean up and let it pass. Whoever returns before the end refuses the rest: it is read, not kept, and then the
        answer is sent. Raises nothing else.
        """
        ...
