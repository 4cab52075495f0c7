"""`InstanceWriter`: one instance on its way to disk, in one of the two orders of DESIGN section 5.

Both are used alike: `write` as pieces come, `complete` when all are in, then the caller commits the row, then `durable`, then
`settle`. In the parallel order the file is synced by a side thread between `complete` and `durable`, so the row's sync runs
beside it. In the serial order `complete` returns when bytes and folder entry are durable, and `durable` has nothing to do.
"""

import fcntl
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dicomnode.storage.durable import storage_error, sync_folder, write_pieces
from dicomnode.storage.hands import Hand, Hands
from dicomnode.storage.pool import SETTLED, Place, Pool

# Of a big object so much is hashed and sent to disk at once, beside the next; memory stays flat, the last sync short.
_STRIDE = 8 << 20
_READ = 1 << 18


class InFlight:
    """Holds a lock on a file whose row is not yet committed, so that `fsck` in another process does not take it for an orphan.

    The kernel drops the lock with the process: after a crash the file is an orphan at once.
    """

    __slots__ = ("_descriptor", "_marked", "_place", "_pool")

    def __init__(self, descriptor: int, pool: Pool, place: Place) -> None:
        self._descriptor, self._pool, self._place, self._marked = descriptor, pool, place, False

    def mark(self) -> None:
        """The row is committed and the bytes are durable: from now on no start takes the file for a half one."""
        if self._descriptor >= 0 and not self._marked:
            self._marked = True
            with suppress(OSError):  # only a hint for the next start; some file systems know no modes
                os.fchmod(self._descriptor, SETTLED)

    def end(self) -> None:
        """It was marked, or the file is gone, or nobody's any more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            self._pool.settle(self._place)

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._descriptor < 0

    def __del__(self) -> None:
        self.end()


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """A file: `path` relative to the root, `sha256` of the data set alone, `size_bytes` of the whole file."""

    path: Path
    sha256: str
    size_bytes: int
    in_flight: InFlight | None = field(default=None, compare=False, repr=False)


class InstanceWriter(ABC):
    """One instance on its way to disk. Used by one thread. Whatever happens, `settle` or `abandon` ends it.

    All methods raise OutOfSpace or StorageError; then only `abandon` is left to do.
    """

    _hashes_beside_the_sync = False

    def __init__(self, descriptor: int, place: Place, pool: Pool, hands: Hands, file_head: bytes) -> None:
        self._descriptor, self._place, self._pool, self._hands = descriptor, place, pool, hands
        self._in_flight = InFlight(descriptor, pool, place)
        with suppress(OSError):  # some network file systems know no locks: then fsck is to wait for quiet times
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._head: bytes | None = file_head
        self._head_size = len(file_head)
        self._size = 0  # of the data set, so far
        self._hashed = 0  # how much of it the digest has seen, or a side thread was told to show it
        self._unhashed: Sequence[bytes | memoryview] = ()  # the last pieces, counted in `_hashed`, not seen by the digest
        self._digest = hashlib.sha256()
        self._hand: Hand | None = None

    @property
    def path(self) -> Path:
        """Of the file, relative to the store's root."""
        return Path(self._place.relative)

    def write(self, pieces: Sequence[bytes | memoryview], *, last: bool = False) -> None:
        """Append to the data set. The pieces are not needed any more when this returns; the last ones when `complete` does."""
        try:
            if self._head is not None:
                head, self._head = self._head, None
                written = write_pieces(self._descriptor, (head, *pieces)) - len(head)
            else:
                written = write_pieces(self._descriptor, pieces)
            before, self._size = self._size, self._size + written
            if self._hashed == before and self._size <= _STRIDE:
                self._hashed = self._size
                if last and self._hashes_beside_the_sync and self._hands.pay:
                    self._unhashed = pieces
                else:
                    self._hash_pieces(pieces)
            elif self._size - self._hashed >= _STRIDE:
                self._stride()
        except OSError as error:
            raise storage_error(error) from error

    @abstractmethod
    def complete(self) -> StoredBytes:
        """All was written: digest and size are known. The row may be committed now, and only Success waits for `durable`."""

    @abstractmethod
    def durable(self) -> None:
        """Until bytes and folder entry survive a power cut."""

    def mark(self) -> None:
        """The row is committed: said before the sender hears it, lest what it was promised be swept. `settle` follows."""
        self._in_flight.mark()

    def settle(self) -> None:
        """The row is committed: the instance is no longer in flight. Nothing if it was abandoned."""
        self._in_flight.mark()
        self._in_flight.end()

    def abandon(self) -> None:
        """Nobody was promised this instance: remove what was written. Nothing if it was settled."""
        if self._in_flight.ended:
            return
        hand, self._hand = self._hand, None
        if hand is not None:
            with suppress(OSError):
                hand.wait()
            self._hands.give_back(hand)
        with suppress(OSError):
            self._remove()
        self._in_flight.end()

    @abstractmethod
    def _remove(self) -> None: ...

    def _stride(self) -> None:
        """A big object: what came in is hashed and sent on its way to disk while more comes."""
        hand = self._taken_hand()
        hand.wait()  # the digest takes the strides in order
        start, self._hashed = self._hashed, self._size
        hand.begin(partial(self._hash_and_write_out, start, self._size))

    def _taken_hand(self) -> Hand:
        if self._hand is None:
            self._hand = self._hands.take()
        return self._hand

    def _release_hand(self) -> None:
        hand, self._hand = self._hand, None
        if hand is not None:
            try:
                hand.wait()
            finally:
                self._hands.give_back(hand)

    def _hash_and_write_out(self, start: int, end: int) -> None:
        self._hash(start, end)
        # On Linux the advice starts writing out what is dirty, without waiting for it.
        os.posix_fadvise(self._descriptor, self._head_size + start, end - start, os.POSIX_FADV_DONTNEED)

    def _hash_pieces(self, pieces: Sequence[bytes | memoryview]) -> None:
        for piece in pieces:
            self._digest.update(piece)

    def _hash(self, start: int, end: int) -> None:
        """Show the digest a part of the data set, read back from the page cache."""
        buffer = memoryview(bytearray(min(_READ, end - start)))
        while start < end:
            count = os.preadv(self._descriptor, [buffer[: end - start]], self._head_size + start)
            if not count:
                raise OSError("a file became shorter while it was written")
            self._digest.update(buffer[:count])
            start += count

    def _stored(self) -> StoredBytes:
        return StoredBytes(self.path, self._digest.hexdigest(), self._head_size + self._size, self._in_flight)


class ParallelWriter(InstanceWriter):
    """Into a file made ahead; it is synced while its digest is made and its row is committed, where that pays."""

    _hashes_beside_the_sync = True
    _finishing = False

    def complete(self) -> StoredBytes:
        """See InstanceWriter."""
        try:
            if self._head is not None:  # a data set of no bytes at all
                self.write(())
            self._finishing = True
            if self._hands.finishing() or self._hand is not None:
                hand = self._taken_hand()
                hand.wait()
                hand.begin(partial(self._hands.sync, self._descriptor))
            unhashed, self._unhashed = self._unhashed, ()
            self._hash_pieces(unhashed)
            if self._hashed < self._size:
                self._hash(self._hashed, self._size)
        except OSError as error:
            raise storage_error(error) from error
        return self._stored()

    def durable(self) -> None:
        """See InstanceWriter."""
        try:
            if self._hand is None:
                self._hands.sync(self._descriptor)
            self._release_hand()
        except OSError as error:
            raise storage_error(error) from error
        finally:
            self._finished()

    def _finished(self) -> None:
        if self._finishing:
            self._finishing = False
            self._hands.finished()

    def _remove(self) -> None:
        self._finished()
        os.unlink(self._place.absolute)  # noqa: PTH108


class SerialWriter(InstanceWriter):
    """The reference: temporary file, fdatasync, rename, fsync of the folder, and only then the row."""

    def __init__(self, temporary: str, descriptor: int, place: Place, pool: Pool, hands: Hands, file_head: bytes) -> None:
        super().__init__(descriptor, place, pool, hands, file_head)
        self._now_at = temporary

    def complete(self) -> StoredBytes:
        """See InstanceWriter."""
        try:
            if self._head is not None:
                self.write(())
            self._release_hand()
            self._hash(self._hashed, self._size)
            os.fdatasync(self._descriptor)
            final = self._place.absolute
            os.rename(self._now_at, final)  # noqa: PTH104
            self._now_at = final
            sync_folder(Path(final).parent)
        except OSError as error:
            raise storage_error(error) from error
        return self._stored()

    def durable(self) -> None:
        """See InstanceWriter: it is."""

    def _remove(self) -> None:
        os.unlink(self._now_at)  # noqa: PTH108
