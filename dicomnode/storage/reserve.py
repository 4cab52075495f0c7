"""A file that is nothing but space: given up when the disk is full, so that the database can still write.

SQLite cannot even delete on a full disk: each transaction goes to the write-ahead log first. Then no delivery could be noted,
no job cancelled and nothing purged, and the node could not help itself out.
"""

import os
from contextlib import suppress
from enum import Enum
from pathlib import Path

from dicomnode.storage.durable import sync_folder

NAME = "reserve"
_LARGEST_SHARE = 16  # of a small disk at most this part
_FULL_BELOW = 4  # with less than this part of the reserve left, the disk counts as full
_BLOCK = 512  # bytes that st_blocks counts in (stat(2))


class ReserveChange(Enum):
    """What `Reserve.tend` did."""

    GIVEN_UP = "given_up"
    SET_ASIDE = "set_aside"


class Reserve:
    """The reserve of one disk. Several processes may tend the same one."""

    def __init__(self, folder: Path, *, size_bytes: int, writing_stops_below_bytes: int) -> None:
        """folder: on the disk of the database. size_bytes: 0 keeps none.

        writing_stops_below_bytes: free space below which no instance is accepted. The reserve is only set aside again when
        afterwards as much is left, so that it does not flutter.
        """
        self._path = folder / NAME
        self._asked_bytes = size_bytes
        self._writing_stops_below_bytes = writing_stops_below_bytes

    @property
    def kept_bytes(self) -> int:
        """What is set aside now."""
        try:
            return self._path.stat().st_blocks * _BLOCK
        except FileNotFoundError:
            return 0

    def tend(self) -> ReserveChange | None:
        """Give the space up if the disk is full, set it aside if there is room again; what this call changed.

        Takes microseconds when there is nothing to do. Raises OSError if the folder is gone.
        """
        size, free, kept = reserve_size(self._path.parent, self._asked_bytes), free_bytes(self._path.parent), self.kept_bytes
        if kept and (size == 0 or free < size // _FULL_BELOW):
            return self._give_up()
        if kept < size and free + kept >= size + self._writing_stops_below_bytes:
            return self._set_aside(size)
        return None

    def _set_aside(self, size: int) -> ReserveChange | None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        except OSError:  # somebody was faster: half a reserve is none
            self._give_up()
            return None
        return ReserveChange.SET_ASIDE

    def _give_up(self) -> ReserveChange:
        self._path.unlink(missing_ok=True)
        # ext4 hands freed blocks out again after its journal's commit, which this forces.
        with suppress(OSError):
            sync_folder(self._path.parent)
        return ReserveChange.GIVEN_UP


def free_bytes(folder: Path) -> int:
    """What a user without privileges may still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def reserve_size(folder: Path, asked_bytes: int) -> int:
    """How large the reserve is there: as asked for, at most a sixteenth of the disk, whole MiB or nothing."""
    while not folder.exists():  # not made yet: it will be on the disk of its parent
        folder = folder.parent
    found = os.statvfs(folder)
    return min(asked_bytes, found.f_blocks * found.f_frsize // _LARGEST_SHARE) >> 20 << 20
