"""What receiving needs of the registry."""

from typing import Protocol

from dicomnode.domain.received import Received
from dicomnode.registry import InstanceKeys, KnownInstance


class InstanceLedger(Protocol):
    """Rows of instances and associations, each call one transaction that is durable when it returns (`registry.Registry`)."""

    def instance(self, sop_instance_uid: str) -> KnownInstance | None:
        """What is stored under this UID."""
        ...

    def add_instance(self, received: Received, *, ours: bool, replaces: bool = False) -> InstanceKeys:
        """Keep the row of a durable instance. Of a known one (`new` is false) nothing changes, with `replaces` its bytes do."""
        ...

    def record_conflict(self, received: Received, kind: str) -> None:
        """Same UID, other content (`registry.ConflictKind`)."""
        ...

    def is_our_result(self, sop_instance_uid: str) -> bool:
        """Whether this node made the instance."""
        ...

    def association_opened(self, calling: str, called: str, address: str) -> str:
        """Note an association; its key."""
        ...

    def association_ended(self, key: str, how: str) -> None:
        """Note how it ended."""
        ...
