"""System calls that make bytes and folder entries survive a power cut."""

import errno
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from dicomnode.domain.errors import OutOfSpace, StorageError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_LARGEST_WRITE = 1 << 30  # Linux writes at most 0x7ffff000 bytes at once (write(2))


def storage_error(error: OSError) -> StorageError:
    """Our error for what the file system said; the path stays out of it."""
    if error.errno in FULL:
        return OutOfSpace("the disk under node.data_dir is full", "free some space or move node.data_dir to a larger disk")
    return StorageError(
        f"node.data_dir cannot be written: {error.strerror}", "check the disk and the permissions of node.data_dir"
    )


def write_all(descriptor: int, chunks: Iterable[bytes | memoryview], seen: Callable[[bytes | memoryview], object]) -> int:
    """Write every byte, showing each chunk to `seen` as well; how many bytes it were."""
    total = 0
    for chunk in chunks:
        seen(chunk)
        view = memoryview(chunk).cast("B")
        while view:
            written = os.write(descriptor, view[:_LARGEST_WRITE])
            view = view[written:]
            total += written
    return total


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Folders:
    """Folders whose own entries are known to be durable, so that each is synced once and not once per file."""

    _MOST = 8192

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable: set[Path] = set()
        self._lock = threading.Lock()

    def ensure(self, folder: Path) -> None:
        """Make `folder` (below the root) and its parents, durably.

        Two threads that find a new folder both sync its parent: only who has synced may call the entry durable.
        """
        with self._lock:
            if folder in self._durable:
                return
        if folder != self._root:
            self.ensure(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
        with self._lock:
            if len(self._durable) >= self._MOST:
                self._durable.clear()
            self._durable.add(folder)

    def forget(self) -> None:
        """Somebody removed folders behind our back: look again."""
        with self._lock:
            self._durable.clear()
