"""Small file systems of their own, which can be filled to the last byte or lose their power."""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.peers.waiting import wait_until

# FS_IOC_SHUTDOWN (ext4, XFS, f2fs): from now on every access is EIO, and with NOLOGFLUSH nothing that was not synced reaches
# the disk any more. It is what xfstests uses for power cuts ("godown -f").
_FS_IOC_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = 2
_MKFS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}


class Disk:
    """A file system in an image file, mounted at `folder`."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder = image, folder

    def mount(self) -> None:
        """Make it usable; after `cut_power` the file system replays its journal here, as at a machine's start."""
        self.folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=True, capture_output=True)

    def unmount(self) -> None:
        """Give it back; waits until nobody holds it any more."""
        wait_until(self._unmounted, timeout_s=20, what="the disk to be free")

    def _unmounted(self) -> bool:
        return subprocess.run(["umount", self.folder], check=False, capture_output=True).returncode == 0

    def cut_power(self) -> None:
        """What was not synced at this instant is gone."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(descriptor)


@contextmanager
def small_disk(folder: Path, kind: str, size_mb: int) -> Iterator[Disk]:
    """A mounted disk of this kind below `folder`; skips, with the reason, where the machine does not let us."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root: what a full disk or a power cut does was not tested")
    if shutil.which(_MKFS[kind][0]) is None:
        pytest.skip(f"{_MKFS[kind][0]} is missing: {kind} was not tested")
    disk = Disk(folder / f"{kind}.img", folder / f"{kind}-disk")
    with disk.image.open("wb") as image:
        image.truncate(size_mb << 20)
    subprocess.run([*_MKFS[kind], disk.image], check=True, capture_output=True)
    try:
        disk.mount()
    except subprocess.CalledProcessError:
        pytest.skip("no file system can be mounted here: what a full disk or a power cut does was not tested")
    try:
        yield disk
    finally:
        with suppress(FileNotFoundError):
            subprocess.run(["umount", "-l", disk.folder], check=False, capture_output=True)
