"""Places for instances: files made ahead, so that no folder entry has to become durable while a sender waits.

A folder `instances/<2 digits>/<14 digits>/` is made with a random key of our own and takes 256 files. Before the first of them
is given away, a mark with the key's name stands durably in `open/`; it goes when every file of the folder is settled: its row
committed, or the file gone. So after a crash only the folders in `open/` can hold bytes without a row (`left_open`).
An empty file below `instances/` belongs to nobody yet, whoever finds it (`is_pool_file`). A file that its group may read is
settled (`is_settled`): its row was committed, so without one it is not the crash's doing.
"""

import fcntl
import os
import secrets
import threading
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.storage.durable import Folders, is_in_flight, sync_folder

INSTANCES, OPEN = "instances", "open"
FILES_IN_FOLDER = 256
_LOW = 192  # with fewer left the side thread makes the next folder: at 3,000 small images a second 60 ms ahead
NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
UNSETTLED, SETTLED = 0o600, 0o640


def is_pool_file(path: Path) -> bool:
    """Whether a file below instances/ was made ahead and nobody has written to it: no orphan, no instance."""
    return path.stat().st_size == 0


def is_settled(path: Path) -> bool:
    """Whether the row of this file was once committed and its bytes durable. A power cut can take this mark, not set it."""
    return bool(path.stat().st_mode & SETTLED & ~UNSETTLED)


@dataclass(slots=True, eq=False)
class _Folder:
    """A folder whose files are being given away. mark: descriptor of its locked mark in open/."""

    relative: str
    absolute: str
    mark_path: str
    mark: int
    given: int = 0  # how many names were given away, or made ahead
    unsettled: int = 0
    waiting: int = 0  # made ahead, not given away


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where one instance goes. relative: to the store's root."""

    relative: str
    absolute: str
    folder: _Folder = field(repr=False)


class Pool:
    """Gives each instance a place of its own. Safe to share between threads; several processes may use one root."""

    def __init__(self, root: Path, folders: Folders) -> None:
        self._root, self._folders = root, folders
        self._lock = threading.Lock()  # counts and lists; never held during a system call that waits for the disk
        self._making = threading.Lock()  # one folder is made at a time
        self._ready: deque[Place] = deque()
        self._current: _Folder | None = None
        self._wanted: threading.Event | None = None
        self._closed = False

    def take(self) -> tuple[Place, int]:
        """A place whose folder entry is durable, and its open file (empty, for reading and writing). Raises OSError."""
        while True:
            with self._lock:
                place = self._ready.popleft() if self._ready else None
                if place is not None:
                    place.folder.waiting -= 1
                    place.folder.unsettled += 1
            if len(self._ready) < _LOW:
                self._fill_aside()
            if place is None:
                with self._making:
                    if self._ready:  # filled while we waited
                        continue
                    place = self._next_name()
                return place, self._create_now(place)
            try:
                return place, os.open(place.absolute, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # somebody cleared it away
                self.settle(place)
            except BaseException:
                self.settle(place)
                raise

    def name(self) -> Place:
        """A new name in a durable folder; nothing is made under it. Raises OSError."""
        with self._making:
            return self._next_name()

    def settle(self, place: Place) -> None:
        """The place's row is committed and its bytes are durable, or there is nothing in it and never will be."""
        with self._lock:
            place.folder.unsettled -= 1
        self._close_if_done(place.folder)

    def fill(self) -> None:
        """Make files ahead, durably. Raises OSError."""
        with self._making:
            if self._closed or len(self._ready) >= FILES_IN_FOLDER:
                return
            folder = self._new_folder()
            folder.given = FILES_IN_FOLDER
            places = [_place(folder, number) for number in range(FILES_IN_FOLDER)]
            try:
                for place in places:
                    os.close(os.open(place.absolute, NEW_FILE, UNSETTLED))
                sync_folder(Path(folder.absolute))
            except BaseException:
                self._remove(folder, places)
                raise
            with self._lock:
                folder.waiting = len(places)
                self._ready.extend(places)

    def open(self) -> None:
        """Files may be made ahead (again)."""
        self._closed = False

    def close(self) -> None:
        """Remove what was made ahead and not used. Places can still be taken, each folder entry is then synced for itself."""
        with self._making:
            self._closed = True
            if self._wanted is not None:
                self._wanted.set()
                self._wanted = None
            with self._lock:
                unused = list(self._ready)
                self._ready.clear()
                for place in unused:
                    place.folder.waiting -= 1
            current, self._current = self._current, None
            for folder in {place.folder for place in unused}:
                self._remove(folder, [place for place in unused if place.folder is folder])
            if current is not None:
                current.given = FILES_IN_FOLDER
                self._remove(current, [])

    def _remove(self, folder: _Folder, places: list[Place]) -> None:
        for place in places:
            with suppress(OSError):
                os.unlink(place.absolute)  # noqa: PTH108 - no Path for each of 256
        with suppress(OSError):  # instances are in it
            os.rmdir(folder.absolute)  # noqa: PTH106
        self._close_if_done(folder)

    def _next_name(self) -> Place:
        folder = self._current
        if folder is None or folder.given >= FILES_IN_FOLDER or not os.path.isdir(folder.absolute):  # noqa: PTH112
            if folder is not None:
                folder.given = FILES_IN_FOLDER
                self._close_if_done(folder)
            folder = self._current = self._new_folder()
        with self._lock:
            place = _place(folder, folder.given)
            folder.given += 1
            folder.unsettled += 1
        return place

    def _create_now(self, place: Place) -> int:
        """The serial way out: nobody has made a file ahead. Raises OSError."""
        try:
            descriptor = os.open(place.absolute, NEW_FILE, UNSETTLED)
            try:
                sync_folder(Path(place.folder.absolute))
            except BaseException:
                os.close(descriptor)
                os.unlink(place.absolute)  # noqa: PTH108
                raise
        except BaseException:
            self.settle(place)
            raise
        return descriptor

    def _new_folder(self) -> _Folder:
        """A folder and its mark, both durable."""
        key = secrets.token_hex(8)
        path, mark_path = self._root / INSTANCES / key[:2] / key[2:], self._root / OPEN / key
        self._folders.ensure(mark_path.parent)
        mark = os.open(mark_path, NEW_FILE, UNSETTLED)
        try:
            with suppress(OSError):  # some network file systems know no locks
                fcntl.flock(mark, fcntl.LOCK_SH)
            sync_folder(mark_path.parent)
            self._folders.ensure(path)
        except BaseException:
            os.close(mark)
            mark_path.unlink(missing_ok=True)
            raise
        return _Folder(path.relative_to(self._root).as_posix(), str(path), str(mark_path), mark)

    def _close_if_done(self, folder: _Folder) -> None:
        with self._lock:
            if folder.mark < 0 or folder.unsettled or folder.waiting or folder.given < FILES_IN_FOLDER:
                return
            mark, folder.mark = folder.mark, -1
        # Not synced: a mark that a crash brings back costs the next start a look, nothing else.
        with suppress(OSError):
            os.unlink(folder.mark_path)  # noqa: PTH108
        os.close(mark)

    def _fill_aside(self) -> None:
        wanted = self._wanted
        if wanted is not None:
            wanted.set()
            return
        with self._lock:
            if self._closed or self._wanted is not None:
                return
            wanted = self._wanted = threading.Event()
        wanted.set()
        weakref.finalize(self, wanted.set)  # so that the thread notices at once
        threading.Thread(target=_keep_filled, args=(weakref.ref(self), wanted), name="pool", daemon=True).start()


def _keep_filled(pool_reference: "weakref.ref[Pool]", wanted: threading.Event) -> None:
    """The side thread: fills the pool when asked, ends when the pool is closed or gone."""
    while wanted.wait():
        wanted.clear()
        pool = pool_reference()
        if pool is None or pool._wanted is not wanted:  # noqa: SLF001 - its own thread
            return
        with suppress(OSError):  # a full disk: who needs a place meets it too, and says so
            pool.fill()
        del pool


def _place(folder: _Folder, number: int) -> Place:
    name = f"{number:03d}.dcm"
    return Place(f"{folder.relative}/{name}", f"{folder.absolute}/{name}", folder)


@dataclass(frozen=True, slots=True)
class LeftOpen:
    """A folder that a crash left open. relative, files: relative to the store's root; empty files are not among them."""

    relative: Path
    files: tuple[Path, ...]
    opened_at: float  # seconds since 1970 by the clock of this machine


def left_open(root: Path) -> list[LeftOpen]:
    """The folders that may hold bytes without a row, or rows without bytes, and that no living process uses."""
    found = []
    for mark in sorted((root / OPEN).glob("*")):
        if is_in_flight(mark):
            continue
        folder = root / INSTANCES / mark.name[:2] / mark.name[2:]
        files = [path for path in sorted(folder.glob("*")) if path.is_file() and not is_pool_file(path)]
        opened_at = mark.stat().st_mtime
        found.append(LeftOpen(folder.relative_to(root), tuple(path.relative_to(root) for path in files), opened_at))
    return found


def close_left_open(root: Path, left: LeftOpen) -> None:
    """Nothing in this folder is in doubt any more: remove its unused files and its mark, durably. Raises OSError."""
    folder = root / left.relative
    for path in folder.glob("*"):
        if is_pool_file(path):
            path.unlink(missing_ok=True)
    with suppress(OSError):  # files are left in it, or it is gone
        folder.rmdir()
    (root / OPEN / "".join(left.relative.parts[-2:])).unlink(missing_ok=True)
    sync_folder(root / OPEN)
