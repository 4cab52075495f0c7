"""Do files and rows agree?"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.domain.errors import CorruptInstance
from dicomnode.storage.durable import is_in_flight
from dicomnode.storage.pool import INSTANCES, is_pool_file
from dicomnode.storage.store import QUARANTINE, SPOOL, WITHOUT_ROW, Store, digest_of_data_set, digest_of_file

# Only files younger than this are asked whether somebody still holds them in flight: no row takes an hour to commit.
_IN_FLIGHT_AT_MOST_S = 3600.0
_BEING_WRITTEN_S = 60.0


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file that a row names. `sha256`: of the data set, for files in the spool (results) of the whole file."""

    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FsckReport:
    """Relative paths. orphans: no row names them. missing: a row does, but no file is there. corrupt: size or digest differ."""

    orphans: tuple[Path, ...] = ()
    missing: tuple[Path, ...] = ()
    corrupt: tuple[Path, ...] = ()
    looked_at: int = field(default=0, compare=False)

    @property
    def ok(self) -> bool:
        """Whether files and rows agree."""
        return not (self.orphans or self.missing or self.corrupt)


def _settled_files(root: Path) -> Iterator[Path]:
    """The files below instances/, and those in quarantine that have rows, that nobody is about to commit a row for."""
    young = time.time() - _IN_FLIGHT_AT_MOST_S
    for path in _files_below(root / INSTANCES, root / QUARANTINE):
        try:
            if is_pool_file(path):
                continue
            fresh = path.stat().st_mtime > young
        except FileNotFoundError:
            continue
        relative = path.relative_to(root)
        if relative.parts[:1] == (QUARANTINE,) and relative.parts[1] in WITHOUT_ROW:
            continue
        if not (fresh and is_in_flight(path)):
            yield relative


def _files_below(*folders: Path) -> Iterator[Path]:
    for top in folders:
        for folder, _, names in os.walk(top):
            yield from (Path(folder, name) for name in names)


def _left_in_spool(store: Store, jobs_at_work: Callable[[], Collection[str]]) -> dict[Path, float]:
    """Files of jobs on which nobody works, with the times at which they were written."""
    found = {}
    for path in _files_below(store.root / SPOOL):
        with suppress(FileNotFoundError):
            found[path.relative_to(store.root)] = path.stat().st_mtime
    at_work = jobs_at_work()  # asked after the files were seen: a job that began since has written none of these
    quiet = time.time() - _BEING_WRITTEN_S  # "not run" is said of jobs that nobody works on any more
    return {path: at for path, at in found.items() if at < quiet and path.parts[1].partition("-")[0] not in at_work}


def _still_there(path: Path, written_at: float | None) -> bool:
    """written_at: a file written later under the same name is another one."""
    try:
        return path.is_file() and written_at in (None, path.stat().st_mtime)
    except FileNotFoundError:
        return False


def _intact(store: Store, known: KnownFile, *, verify_digests: bool) -> bool:
    path = store.absolute(known.path)
    if path.stat().st_size != known.size_bytes:
        return False
    if not verify_digests:
        return True
    whole = known.path.parts[:1] == (SPOOL,)
    try:
        return (digest_of_file(path) if whole else digest_of_data_set(path)) == known.sha256
    except (OSError, CorruptInstance):
        return False


def fsck(
    store: Store,
    known: Iterable[KnownFile],
    *,
    verify_digests: bool,
    find_orphans: bool = True,
    jobs_at_work: Callable[[], Collection[str]] | None = None,
) -> FsckReport:
    """Compare files and rows, while the node runs. Without `find_orphans` only the named files are looked at, no folders.

    jobs_at_work: the keys of jobs that somebody works on just now; results in the spool that belong to none of these and that
    no row names are orphans. Without it the spool is not searched.
    `known` is read after the files were listed: a file in the list whose row was committed meanwhile is then known, one whose
    row is not yet committed is locked by its writer.
    """
    unclaimed = set(_settled_files(store.root)) if find_orphans else set()
    spooled = _left_in_spool(store, jobs_at_work) if find_orphans and jobs_at_work is not None else {}
    unclaimed.update(spooled)
    missing, corrupt, count = [], [], 0
    for one in known:
        count += 1
        unclaimed.discard(one.path)
        if not store.absolute(one.path).is_file():
            missing.append(one.path)
        elif not _intact(store, one, verify_digests=verify_digests):
            corrupt.append(one.path)
    # A file may have been discarded since: only what is still there is an orphan.
    orphans = [path for path in unclaimed if _still_there(store.absolute(path), spooled.get(path))]
    return FsckReport(tuple(sorted(orphans)), tuple(missing), tuple(corrupt), count)
