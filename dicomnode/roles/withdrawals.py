"""Withdraws what a newer version replaced, where a destination's profile asks for rejection notes (IHE IOCM)."""

import hashlib
from datetime import datetime, timedelta

import structlog

from dicomnode.domain.clock import local_zone
from dicomnode.domain.errors import StorageError
from dicomnode.domain.rejection import KEY_OBJECT_SELECTION, RejectionNote
from dicomnode.domain.results import ResultKind, ResultObject
from dicomnode.domain.routes import Destination
from dicomnode.domain.uids import derived_uid
from dicomnode.registry import Registry
from dicomnode.registry.own_notes import NOTE, DueNote
from dicomnode.settings import Settings
from dicomnode.storage import Store

_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_LAST = 1000  # after everything else of its job
_log = structlog.get_logger()


class Withdrawals:
    """`sweep` as often as one likes: a note is written once."""

    def __init__(self, registry: Registry, store: Store, settings: Settings, destinations: tuple[Destination, ...]) -> None:
        self._registry, self._store, self._settings = registry, store, settings
        self._asking = [one for one in destinations if one.profile.rejection_note]

    def sweep(self, now: datetime) -> int:
        """Write what is due; how many notes."""
        written = 0
        for destination in self._asking:
            youngest = now - timedelta(hours=destination.profile.rejection_within_h)
            for due in self._registry.keeping.due_notes(destination.name, youngest):
                try:
                    note = self._written(due, destination)
                except (OSError, StorageError) as error:
                    _log.error("a rejection note could not be written", job=due.job_key, exc_info=error)
                    continue
                self._registry.keeping.keep_note(due.job_id, note, destination.name)
                _log.info("what a newer version replaced is withdrawn", job=due.job_key, destination=destination.name)
                written += 1
        return written

    def _written(self, due: DueNote, destination: Destination) -> ResultObject:
        from pydicom import dcmread

        from dicomnode.network.rejection_notes import rejection_note

        example = dcmread(self._store.absolute(due.example), stop_before_pixels=True)
        zone = local_zone(str(example.get("TimezoneOffsetFromUTC", "")), self._settings.timezone)
        code = destination.profile.rejection_note
        parts = ["rejection", destination.name, due.job_key, code, *(one.sop_instance_uid for one in due.named)]
        uid, series = (derived_uid([*parts, what], root=self._settings.node.uid_root) for what in ("note", "series"))
        document = rejection_note(
            example,
            RejectionNote(code, due.study_instance_uid, due.named),
            sop_instance_uid=uid,
            series_instance_uid=series,
            at=due.finished_at.astimezone(zone),
            description=NOTE,
        )
        path = self._store.spool_dir(due.job_key) / f"{uid}.dcm"
        document.save_as(path, enforce_file_format=True)
        self._store.seal(path)
        content = path.read_bytes()
        return ResultObject(
            kind=ResultKind.KOS,
            sop_class_uid=KEY_OBJECT_SELECTION,
            sop_instance_uid=uid,
            series_instance_uid=series,
            study_instance_uid=due.study_instance_uid,
            transfer_syntax_uid=_EXPLICIT_LITTLE_ENDIAN,
            path=path.relative_to(self._store.root),
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            source_sop_instance_uids=tuple(one.sop_instance_uid for one in due.named),
            order=_LAST,
            description=NOTE,
        )
