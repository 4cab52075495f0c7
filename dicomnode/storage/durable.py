"""System calls that make bytes and folder entries survive a power cut."""

import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from dicomnode.domain.errors import OutOfSpace, StorageError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MOST_PIECES = os.sysconf("SC_IOV_MAX")  # of one writev (1,024 on Linux)


def storage_error(error: OSError) -> StorageError:
    """Our error for what the file system said; the path stays out of it."""
    if error.errno in FULL:
        return OutOfSpace("the disk under node.data_dir is full", "free some space or move node.data_dir to a larger disk")
    return StorageError(
        f"node.data_dir cannot be written: {error.strerror}", "check the disk and the permissions of node.data_dir"
    )


def write_pieces(descriptor: int, pieces: Sequence[bytes | memoryview]) -> int:
    """Write every byte at the file's position, usually in one system call; how many bytes it were. Raises OSError."""
    total = 0
    for start in range(0, len(pieces), _MOST_PIECES):
        batch = pieces[start : start + _MOST_PIECES]
        size = sum(map(len, batch))
        written = os.writev(descriptor, batch)
        if written < size:  # a signal, or more than Linux writes at once (write(2): 0x7ffff000 bytes)
            _write_rest(descriptor, batch, written)
        total += size
    return total


def _write_rest(descriptor: int, pieces: Sequence[bytes | memoryview], written: int) -> None:
    for piece in pieces:
        view = memoryview(piece)[written:]
        written = max(written - len(piece), 0)
        while view:
            view = view[os.write(descriptor, view) :]


def is_in_flight(path: Path) -> bool:
    """Whether a living process holds this file: its row is not yet committed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


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
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:  # somebody cleared away empty folders
            self.forget()
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
