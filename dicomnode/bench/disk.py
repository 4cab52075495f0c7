"""The disk under the measurement: which file system, and what one sync of it costs (S)."""

import os
import time
from pathlib import Path

from dicomnode.domain.errors import UsageError

_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def file_system(folder: Path) -> str:
    """Its type and device as the kernel mounts it, such as "ext4 on /dev/sda1"; "unknown" where that cannot be read."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, behind = line.partition(" - ")
        if before.split()[2] == wanted:
            kind, source = behind.split()[:2]
            found = f"{kind} on {source}"
    return found


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Raises UsageError for memory disguised as a disk, and for one that is too full."""
    kind = file_system(folder)
    if kind.partition(" ")[0] in _MEMORY:
        raise UsageError(f"{folder} is on {kind}, which has no disk to sync to", "name a folder on the data's disk with --dir")
    filled = os.statvfs(folder)
    if filled.f_bavail * filled.f_frsize < needed_bytes:
        raise UsageError(
            f"the bench needs {needed_bytes // 10**9} GB free in {folder}",
            "free space there, or name another folder with --dir",
        )


def sync_ms(folder: Path, size_bytes: int, count: int) -> list[float]:
    """What fdatasync of `count` fresh files of this size took, each alone and right after its one write."""
    taken, data = [], os.urandom(size_bytes)
    for number in range(count):
        path = folder / f"sync-{number}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, data)
            began = time.perf_counter()
            os.fdatasync(file)
            taken.append((time.perf_counter() - began) * 1000)
        finally:
            os.close(file)
    for number in range(count):
        (folder / f"sync-{number}").unlink()
    return taken
