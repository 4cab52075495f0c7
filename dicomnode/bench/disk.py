"""The disk under the measurement: which file system, and what one sync of it costs (S)."""

import os
import tempfile
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
    folder = Path(tempfile.mkdtemp(prefix="syncs-", dir=folder))  # its files are not deleted, see `put_away`
    for number in range(count):
        file = os.open(folder / f"sync-{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, data)
            began = time.perf_counter()
            os.fdatasync(file)
            taken.append((time.perf_counter() - began) * 1000)
        finally:
            os.close(file)
    for number in range(count):
        os.truncate(folder / f"sync-{number}", 0)
    return taken


def put_away(folder: Path, where: Path) -> None:
    """Give back the space that a run took, and move its folder below `where`; its files stay, empty, until all is measured.

    ext4 gives no inode away again within minutes of its deletion, and looks past each of them for the next new file: whoever
    ran after a thousand deleted files would pay for it (`recently_deleted`, 10 % of our processor time, measured).
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                path.chmod(0o600)
                os.truncate(path, 0)
    where.mkdir(exist_ok=True)
    folder.rename(where / str(len(list(where.iterdir()))))
