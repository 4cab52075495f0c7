"""What is kept and for how long: old bytes go, the database stays small. Nothing unsent ever goes (`registry.retention`)."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from dicomnode.domain.canary import CANARY
from dicomnode.domain.errors import StorageError
from dicomnode.registry import Registry
from dicomnode.settings import Settings
from dicomnode.storage import Store

AUDIT = "audit"  # folder of the archive, below the data folder
ASSOCIATIONS_DAYS = 30.0  # a start after a crash asks them who was answered
_AT_ONCE = 50  # studies between two looks at the disk
_FILES_AT_ONCE, _ROWS_AT_ONCE = 2000, 5000
_ROUNDS = 20  # of each kind in one sweep: the rest is for the next one

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Purged:
    """What one sweep removed."""

    studies: int = 0
    jobs: int = 0
    files: int = 0
    audit_rows: int = 0


class Retention:
    """One sweep after the other; each is idempotent and goes on where the last one was broken off."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        settings: Settings,
        *,
        free_share: Callable[[Path], float] | None = None,
    ) -> None:
        """free_share: of a folder's disk what is free, 0 to 1."""
        self._registry, self._store, self._settings = registry, store, settings
        self._free_share = free_share or _free_share
        self._status_is_proof = status_is_proof(settings)

    def sweep(self, now: datetime) -> Purged:
        """Remove what is due."""
        kept = self._settings.retention
        studies = self._sources(now - timedelta(days=kept.sources_days), now) if kept.sources_days else 0
        jobs = self._results(now - timedelta(days=kept.results_days)) if kept.results_days else 0
        files = self._files()
        # The disk decides before age does, but never on what came only just now: it may be asked for again at once.
        youngest = now - timedelta(hours=kept.at_least_hours)
        for _ in range(_ROUNDS):
            if not self._is_short() or not (purged := self._purged_sources(youngest, now)):
                break
            studies, files = studies + len(purged), files + self._files()
        if self._is_short():
            jobs += self._results(youngest)
            files += self._files()
        if self._is_short():
            _log.error("the disk is short of space and nothing more may be purged")
        return Purged(studies, jobs, files, self._rows(now))

    def _is_short(self) -> bool:
        return self._free_share(self._store.root) * 100 < self._settings.retention.free_percent

    def _sources(self, before: datetime, now: datetime) -> int:
        return _all(lambda: len(self._purged_sources(before, now)))

    def _purged_sources(self, before: datetime, now: datetime) -> list[str]:
        return self._registry.keeping.purge_sources(before, self._status_is_proof, _AT_ONCE, now)

    def _results(self, before: datetime) -> int:
        return _all(lambda: len(self._registry.keeping.purge_results(before, self._status_is_proof, _AT_ONCE)))

    def _files(self) -> int:
        def some() -> int:
            paths = self._registry.keeping.files_to_remove(_FILES_AT_ONCE)
            gone = [path for path in paths if self._remove(path)]
            self._registry.keeping.files_removed(gone)
            return len(gone)

        return _all(some)

    def _remove(self, path: Path) -> bool:
        try:
            self._store.discard(path)
        except StorageError as error:  # the next sweep tries again
            _log.warning("a purged file cannot be removed", error=type(error).__name__)
            return False
        with suppress(OSError):  # others lie in it
            self._store.absolute(path.parent).rmdir()
        return True

    def _rows(self, now: datetime) -> int:
        kept, keeping = self._settings.retention, self._registry.keeping
        purged_before = now - timedelta(days=kept.rows_days) if kept.rows_days else None
        ended_before = now - timedelta(days=ASSOCIATIONS_DAYS)
        _all(
            lambda: keeping.forget(
                instances_purged_before=purged_before, associations_ended_before=ended_before, limit=_ROWS_AT_ONCE
            )
        )
        before = now - timedelta(days=kept.audit_days)
        return _all(lambda: self._archive(keeping.audit_before(before, _ROWS_AT_ONCE))) if kept.audit_days else 0

    def _archive(self, rows: list[Mapping[str, Any]]) -> int:
        """Durable in the archive first. A crash in between writes rows twice; their ids tell."""
        by_month: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            by_month.setdefault(f"{row['at']:%Y-%m}", []).append(row)
        for month, of_month in by_month.items():
            append_durably(self._store.root / AUDIT / f"{month}.jsonl", of_month)
        self._registry.keeping.forget_audit([row["id"] for row in rows])
        return len(rows)


def append_durably(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a file of JSON lines; on disk when it returns."""
    path.parent.mkdir(mode=0o750, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, default=_text) + "\n")
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _all(some: Callable[[], int]) -> int:
    """As often as there is something, but not for ever."""
    total = 0
    for _ in range(_ROUNDS):
        if not (count := some()):
            break
        total += count
    return total


def status_is_proof(settings: Settings) -> frozenset[str]:
    """The destinations whose answer is all the proof there is."""
    return frozenset({CANARY, *(one.name for one in settings.destinations if one.proof == "status")})


def _free_share(folder: Path) -> float:
    found = os.statvfs(folder)
    return found.f_bavail / found.f_blocks if found.f_blocks else 1.0
