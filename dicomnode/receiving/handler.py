"""The seam between protocol and promise: an instance arrived; which status does it get?

Whatever speaks the DICOM protocol (`scp`: stock pynetdicom) calls an `InstanceHandler` and knows nothing of files and rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from dicomnode.domain.statuses import SUCCESS


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

    outcome: one word for logs and counts.
    """

    status: int
    outcome: str
    comment: str = ""

    @property
    def success(self) -> bool:
        """Whether we now answer for the instance."""
        return self.status == SUCCESS


class InstanceHandler(Protocol):
    """Called from the association's own thread, by many at once. Never raises."""

    def store(self, request: StoreRequest, data_set: Iterable[memoryview]) -> StoreAnswer:
        """Take the encoded data set, as its pieces come in, and answer for it."""
        ...
