"""What receiving needs of the registry."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from dicomnode.domain.received import Received
from dicomnode.registry import InstanceKeys, KnownInstance, StoredFile


class InstanceLedger(Protocol):
    """Rows of instances and associations, each call one transaction (`registry.Registry`), of instances durable on return."""

    def instance(self, sop_instance_uid: str) -> KnownInstance | None:
        """What is stored under this UID."""
        ...

    def add_instance(self, received: Received, *, ours: bool, replaces: bool = False) -> InstanceKeys:
        """Keep the row of an instance. Of a known one (`new` is false) nothing changes, with `replaces` its bytes do."""
        ...

    def came_again(self, received: Received) -> None:
        """A stored instance came once more, unchanged: that counts where it came to another of our AE titles."""
        ...

    def record_conflict(self, received: Received, kind: str) -> None:
        """Same UID, other content (`registry.ConflictKind`)."""
        ...

    def forget_instances(self, sop_instance_uids: Sequence[str]) -> int:
        """Remove rows of instances that were never acknowledged and whose bytes are not on disk."""
        ...

    def files_in(self, folder: Path, since: datetime) -> Sequence[StoredFile]:
        """What the rows received at `since` or later name in this folder of the store."""
        ...

    def files_of(self, sop_instance_uids: Sequence[str]) -> Sequence[StoredFile]:
        """The files of those of these instances that have a row."""
        ...

    def is_our_result(self, sop_instance_uid: str) -> bool:
        """Whether this node made the instance."""
        ...

    def association_opened(self, calling: str, called: str, address: str) -> str:
        """Note an association; its key."""
        ...

    def associations_ended(self, ends: Sequence[tuple[str, str, datetime]]) -> None:
        """Note (key, how, when) of associations that ended."""
        ...
