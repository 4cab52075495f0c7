"""`Store`: one folder tree on one file system, written in the serial reference order of DESIGN section 5."""

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.domain.errors import CorruptInstance, OutOfSpace, StorageError
from dicomnode.storage.durable import Folders, storage_error, sync_folder, write_all
from dicomnode.storage.part10 import read_head

INSTANCES, INCOMING, QUARANTINE, SPOOL = "instances", "incoming", "quarantine", "spool"
_HASH_LENGTH = 20  # hexadecimal digits = 80 bits: no two series of one hospital ever meet
_CHUNK = 1 << 20


class InFlight:
    """Holds a lock on a file whose row is not yet committed, so that `fsck` in another process does not take it for an orphan.

    The kernel drops the lock with the process: after a crash the file is an orphan at once.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def end(self) -> None:
        """The row is committed, or the file is gone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.end()


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """A durable file: `path` relative to the root, `sha256` of the data set alone, `size_bytes` of the whole file."""

    path: Path
    sha256: str
    size_bytes: int
    in_flight: InFlight | None = field(default=None, compare=False, repr=False)


def _name(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:_HASH_LENGTH]


class Store:
    """The bytes of one node. Safe to share between threads; several processes may use one root."""

    def __init__(self, root: Path, *, reserve_bytes: int) -> None:
        """`root`: node.data_dir. `reserve_bytes`: with less than this left free nothing more is written."""
        self.root = root.absolute()
        self.reserve_bytes = reserve_bytes
        self._folders = Folders(self.root)

    def prepare(self) -> None:
        """Make the folders. Raises StorageError where that is not possible."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for name in (INSTANCES, INCOMING, QUARANTINE, SPOOL):
                self._folders.ensure(self.root / name)
        except OSError as error:
            raise storage_error(error) from error

    def clear_incoming(self) -> int:
        """Remove what a crash left half written; returns how many. For the receiver's start, before it accepts anything."""
        left = [path for path in (self.root / INCOMING).glob("*") if not is_in_flight(path)]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

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
        if self.free_bytes() < self.reserve_bytes + size_bytes:
            raise OutOfSpace(
                "the disk under node.data_dir is full to its reserve",
                "free some space, move node.data_dir to a larger disk, or lower storage.reserve_mb",
            )

    def write_instance(
        self, file_head: bytes, chunks: Iterable[bytes | memoryview], study: str, series: str, sop: str
    ) -> StoredBytes:
        """Write head and data set so that both survive a power cut: temporary file, fdatasync, rename, fsync of the folder.

        study, series, sop: UIDs, of which only hashes show in the path. The name is new each time: nothing is overwritten.
        Raises OutOfSpace, StorageError; then nothing is left behind.
        """
        self.check_space()
        name = f"{_name(sop)}-{secrets.token_hex(4)}.dcm"
        hashed = _name(study)
        relative = Path(INSTANCES, hashed[:2], hashed[2:], _name(series), name)
        digest = hashlib.sha256()
        try:
            self._folders.ensure(self.root / INCOMING)
            temporary = self.root / INCOMING / name
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            in_flight = InFlight(descriptor)
            try:
                with suppress(OSError):  # some network file systems know no locks: then fsck is to wait for quiet times
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
                size = write_all(descriptor, (file_head,), lambda _: None)
                size += write_all(descriptor, chunks, digest.update)
                os.fdatasync(descriptor)
                self._put(temporary, self.root / relative)
            except BaseException:
                temporary.unlink(missing_ok=True)
                in_flight.end()
                raise
        except OSError as error:
            raise storage_error(error) from error
        return StoredBytes(relative, digest.hexdigest(), size, in_flight)

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

    def discard(self, relative: Path) -> None:
        """Remove a file that nobody was promised to keep; no error if it is gone already."""
        path = self.absolute(relative)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error) from error

    def quarantine(self, relative: Path, reason: str) -> Path:
        """Move a file aside, durably, into a folder named by the reason (a word of ours); its new relative path.

        The name depends on the name before and on the content, so the same bytes sent again and again fill one place.
        """
        if not reason.isidentifier():
            raise ValueError("the reason of a quarantine is one word of ours")
        source = self.absolute(relative)
        try:
            digest = digest_of_data_set(source)
            target = Path(QUARANTINE, reason, f"{source.name.partition('-')[0]}-{digest[:16]}.dcm")
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
