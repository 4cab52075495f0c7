"""`Store`: one folder tree on one file system."""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dicomnode.domain.errors import CorruptInstance, OutOfSpace, StorageError
from dicomnode.storage.durable import Folders, is_in_flight, storage_error, sync_folder
from dicomnode.storage.hands import Hands
from dicomnode.storage.part10 import read_head
from dicomnode.storage.pool import INSTANCES, NEW_FILE, OPEN, UNSETTLED, LeftOpen, Pool, close_left_open, left_open
from dicomnode.storage.writer import InstanceWriter, ParallelWriter, SerialWriter, StoredBytes

INCOMING, QUARANTINE, SPOOL = "incoming", "quarantine", "spool"
# Folders of the quarantine for what nobody was promised as an object of its own; all others hold what rows name.
WITHOUT_ROW = frozenset({"duplicate", "no_row", "orphan"})
_CHUNK = 1 << 20
_PLENTY_FOR_S, _FASTEST_FILLING = 0.05, 4 << 30

type_order = Literal["parallel", "serial"]


class Store:
    """The bytes of one node. Safe to share between threads; several processes may use one root."""

    def __init__(self, root: Path, *, reserve_bytes: int, order: type_order = "parallel") -> None:
        """`root`: node.data_dir. `reserve_bytes`: with less than this left free nothing more is written.

        order: how instances become durable. parallel: into files made ahead, synced while the row is committed; serial: the
        reference, for file systems that need it (temporary file, fdatasync, rename, fsync of the folder, then the row).
        """
        self.root = root.absolute()
        self.reserve_bytes = reserve_bytes
        self._order = order
        self._folders = Folders(self.root)
        self._pool = Pool(self.root, self._folders)
        self._hands = Hands()
        self._plenty, self._plenty_until = 0, 0.0  # so many bytes are free, until then (monotonic), without asking

    def prepare(self) -> None:
        """Make the folders. Raises StorageError where that is not possible."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for name in (INSTANCES, INCOMING, QUARANTINE, SPOOL, OPEN):
                self._folders.ensure(self.root / name)
        except OSError as error:
            raise storage_error(error) from error

    def make_ahead(self) -> None:
        """Make the files for the first instances, as the receiver starts. Raises StorageError."""
        if self._order == "parallel":
            try:
                self._pool.open()
                self._pool.fill()
            except OSError as error:
                raise storage_error(error) from error

    def close(self) -> None:
        """Nothing more will be written soon: remove files made ahead, end side threads. The store stays usable."""
        self._pool.close()
        self._hands.end()

    def clear_incoming(self) -> int:
        """Remove what a crash left half written; returns how many. For the receiver's start, before it accepts anything."""
        left = [path for path in (self.root / INCOMING).glob("*") if not is_in_flight(path)]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def left_open(self) -> list[LeftOpen]:
        """What a crash left in doubt: bytes without a row, rows without bytes. For the receiver's start (`close_left_open`)."""
        return left_open(self.root)

    def close_left_open(self, left: LeftOpen) -> None:
        """All of it was looked at. Raises StorageError."""
        try:
            close_left_open(self.root, left)
        except OSError as error:
            raise storage_error(error) from error

    def absolute(self, relative: Path) -> Path:
        """Where the file is. Raises StorageError for a path that leads out of the root."""
        if relative.is_absolute() or ".." in relative.parts:
            raise StorageError("a stored path leads out of node.data_dir", "run dicomnode fsck")
        return self.root / relative

    def free_bytes(self) -> int:
        """What a user without privileges may still write."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def check_space(self, size_bytes: int = 0) -> None:
        """Raises OutOfSpace if writing `size_bytes` more would go into the reserve."""
        now = time.monotonic()
        needed = self.reserve_bytes + size_bytes
        if now < self._plenty_until and needed <= self._plenty:
            return
        free = self.free_bytes()
        # No disk fills so fast: of a stream of small images few have to ask the kernel.
        self._plenty, self._plenty_until = free - _FASTEST_FILLING, now + _PLENTY_FOR_S
        if free < needed:
            raise OutOfSpace(
                "the disk under node.data_dir is full to its reserve",
                "free some space, move node.data_dir to a larger disk, or lower storage.reserve_mb",
            )

    def has_room(self) -> bool:
        """Whether the disk takes more."""
        try:
            self.check_space()
        except OutOfSpace:
            return False
        return True

    def begin_instance(self, file_head: bytes) -> InstanceWriter:
        """A writer for a new instance, under a name of our own. Raises OutOfSpace, StorageError.

        Whoever begins ends it by `settle` or `abandon`. Whether there is space is the caller's question (`check_space`).
        """
        try:
            if self._order == "parallel":
                place, descriptor = self._pool.take()
                return ParallelWriter(descriptor, place, self._pool, self._hands, file_head)
            return self._begin_serially(file_head)
        except OSError as error:
            raise storage_error(error) from error

    def _begin_serially(self, file_head: bytes) -> InstanceWriter:
        temporary = f"{self.root}/{INCOMING}/{secrets.token_hex(8)}.dcm"
        self._folders.ensure(self.root / INCOMING)
        try:
            descriptor = os.open(temporary, NEW_FILE, UNSETTLED)
        except FileNotFoundError:  # somebody cleared it away
            self._folders.forget()
            self._folders.ensure(self.root / INCOMING)
            descriptor = os.open(temporary, NEW_FILE, UNSETTLED)
        try:
            place = self._pool.name()
        except BaseException:
            os.close(descriptor)
            os.unlink(temporary)  # noqa: PTH108 - as all paths of an image's way: a Path costs more than the call
            raise
        return SerialWriter(temporary, descriptor, place, self._pool, self._hands, file_head)

    def write_instance(self, file_head: bytes, chunks: Iterable[bytes | memoryview]) -> StoredBytes:
        """Write head and data set so that both survive a power cut. The caller ends `in_flight` when its row is committed.

        Raises OutOfSpace, StorageError; then nothing is left behind.
        """
        self.check_space()
        writer = self.begin_instance(file_head)
        try:
            for chunk in chunks:
                writer.write((chunk,))
            stored = writer.complete()
            writer.durable()
        except OSError as error:
            writer.abandon()
            raise storage_error(error) from error
        except BaseException:
            writer.abandon()
            raise
        return stored

    def _put(self, temporary: Path, final: Path) -> None:
        """Rename into place and make the folder's entry durable."""
        self._folders.ensure(final.parent)
        try:
            temporary.rename(final)
        except FileNotFoundError:  # somebody cleared away empty folders
            self._folders.forget()
            self._folders.ensure(final.parent)
            temporary.rename(final)
        try:
            sync_folder(final.parent)
        except OSError:
            final.rename(temporary)  # not promised to anybody yet: the caller disposes of it
            raise

    def verify(self, relative: Path, size_bytes: int, sha256: str) -> bool:
        """Whether the stored data set is still there, of this size (of the file) and with this digest (of the data set)."""
        path = self.absolute(relative)
        try:
            return path.stat().st_size == size_bytes and digest_of_data_set(path) == sha256
        except (OSError, CorruptInstance):
            return False

    def sync(self, relative: Path) -> None:
        """Make a file's bytes durable: another process may have written, and not yet synced, what we answer for now."""
        try:
            descriptor = os.open(self.absolute(relative), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_error(error) from error

    def discard(self, relative: Path) -> None:
        """Remove a file that nobody was promised to keep; no error if it is gone already."""
        path = self.absolute(relative)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error) from error

    def quarantine(self, relative: Path, reason: str) -> Path:
        """Move a file aside, durably, into a folder named by the reason (a word of ours); its new relative path.

        The name depends on the content alone, so the same bytes sent again and again fill one place.
        """
        if not reason.isidentifier():
            raise ValueError("the reason of a quarantine is one word of ours")
        source = self.absolute(relative)
        try:
            target = Path(QUARANTINE, reason, f"{digest_of_data_set(source)[:32]}.dcm")
            self._put(source, self.root / target)
        except OSError as error:
            raise storage_error(error) from error
        return target

    def spool_dir(self, job_key: str) -> Path:
        """The folder (absolute, made here) in which the results of one job are built, such as spool/J56."""
        folder = self.absolute(Path(SPOOL, job_key))
        try:
            self._folders.ensure(folder)
            if not folder.is_dir():  # removed by another process since we made it
                self._folders.forget()
                self._folders.ensure(folder)
        except OSError as error:
            raise storage_error(error) from error
        return folder

    def discard_spool(self, job_key: str) -> None:
        """Remove what an unfinished attempt left in a job's spool folder."""
        shutil.rmtree(self.absolute(Path(SPOOL, job_key)), ignore_errors=True)
        self._folders.forget()

    def seal(self, path: Path) -> None:
        """Make a finished file and its folder's entry durable. `path`: absolute, or relative to the root."""
        whole = self.root / path
        try:
            descriptor = os.open(whole, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(whole.parent)
        except OSError as error:
            raise storage_error(error) from error

    def relative(self, path: Path) -> Path:
        """The path as rows hold it. Raises StorageError for a file outside the root."""
        try:
            return path.absolute().relative_to(self.root)
        except ValueError:
            raise StorageError("a file to keep is outside node.data_dir", "report this: a result was built elsewhere") from None


def digest_of_data_set(path: Path) -> str:
    """SHA-256 (hex) of what follows the File Meta Information. Raises CorruptInstance if there is none, OSError if no file."""
    with path.open("rb") as file:
        try:
            read_head(file)
        except ValueError as error:
            raise CorruptInstance("a stored file has lost its head", "run dicomnode fsck") from error
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 (hex) of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
