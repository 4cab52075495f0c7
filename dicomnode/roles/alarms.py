"""Every alarm that stands: what the rows show, and what only this machine knows of its disk, certificate, canary and roles."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from dicomnode.domain.alarms import Alarm, AlarmKind
from dicomnode.domain.errors import SettingsError, UnreachableError
from dicomnode.registry import Registry
from dicomnode.roles import ROLES, canary, wiring
from dicomnode.roles.state_files import RoleStatus, read_states
from dicomnode.settings import Settings

_log = structlog.get_logger()
_ENDED_BY_THEMSELVES = frozenset({"restarting", "stopped"})
type_space = Callable[[Path], tuple[int, float]]


def standing(settings: Settings, registry: Registry, now: datetime, *, space: type_space | None = None) -> list[Alarm]:
    """All, each with the time since when it stands as far as anybody knows. Raises UnreachableError without a database.

    space: of a folder's disk the free bytes and the free share, 0 to 1.
    """
    own = registry.alarms
    known = own.known_since()
    found = [
        *of_this_machine(settings, space=space),
        *_canary(settings, registry, now),
        *own.standing(
            queue_longer_than=timedelta(minutes=settings.alarms.queue_min),
            failed_within=timedelta(days=settings.alarms.failed_days),
        ),
    ]
    return [one if one.since else replace(one, since=known.get((one.kind.value, one.subject))) for one in found]


def of_this_machine(settings: Settings, *, space: type_space | None = None) -> list[Alarm]:
    """What is to be said without a database."""
    found = [*_disk(settings, space or _space), *_certificate(settings), *_roles(settings)]
    if not wiring.shares_database(settings):
        return found
    return [replace(one, subject=f"{one.subject}@{settings.node_name}") for one in found]


def without_database(settings: Settings, error: UnreachableError) -> list[Alarm]:
    """What stands while the database is away."""
    return [Alarm(AlarmKind.DATABASE_UNREACHABLE, "database", detail=error.what), *of_this_machine(settings)]


class AlarmWatch:
    """`look` on a clock: each alarm is said in the log when it comes and when it goes, and since when it stands is kept.

    That the database is away cannot be kept there: this object remembers that it was said.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings, self._registry = settings, registry
        self._away = False

    def look(self, now: datetime) -> None:
        """One look."""
        try:
            self._look(now)
        except UnreachableError as error:
            if not self._away:
                _log.error("alarm", kind=AlarmKind.DATABASE_UNREACHABLE.value, how="database", count=1, exc_info=error)
            self._away = True
            return
        if self._away:
            _log.info("alarm is over", kind=AlarmKind.DATABASE_UNREACHABLE.value, how="database")
        self._away = False

    def _look(self, now: datetime) -> None:
        alarms = standing(self._settings, self._registry, now)
        counts = {(one.kind.value, one.subject): one.count for one in alarms}
        node = self._settings.node_name if wiring.shares_database(self._settings) else ""
        raised, cleared = self._registry.alarms.keep(alarms, node)
        for name in raised:
            _log.error("alarm", kind=name[0], how=name[1], count=counts[name])
        for kind, subject in cleared:
            _log.info("alarm is over", kind=kind, how=subject)


def _disk(settings: Settings, space: type_space) -> Iterable[Alarm]:
    free, share = space(settings.data_dir)
    if free < wiring.open_store(settings).reserve_bytes:
        yield Alarm(AlarmKind.DISK_FULL, "data_dir", detail=f"{free >> 20} MB are free")
    elif share * 100 < settings.retention.free_percent:
        yield Alarm(AlarmKind.DISK_LOW, "data_dir", detail=f"{share * 100:.0f} % are free")


def _space(folder: Path) -> tuple[int, float]:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_bavail / found.f_blocks if found.f_blocks else 1.0


def _certificate(settings: Settings) -> Iterable[Alarm]:
    files = wiring.tls_files(settings)
    if files is None:
        return
    from dicomnode.network.tls import days_valid  # brings pynetdicom, which status and its like need not load

    try:
        days = days_valid(files)
    except SettingsError as error:
        yield Alarm(AlarmKind.CERTIFICATE_UNUSABLE, "dicom.tls", detail=error.what)
        return
    if days < settings.alarms.certificate_days:
        yield Alarm(AlarmKind.CERTIFICATE_ENDS, "dicom.tls", int(days), detail=f"{days:.0f} days are left")


def _roles(settings: Settings) -> Iterable[Alarm]:
    states: Sequence[RoleStatus] = read_states(wiring.run_folder(settings), ROLES)
    if all(one["state"] == "stopped" for one in states):
        return  # the node was stopped, or killed: `ready` says so
    for one in states:
        if one["state"] in _ENDED_BY_THEMSELVES and one["restarts"]:
            yield Alarm(AlarmKind.ROLE_DOWN, one["name"], one["restarts"], datetime.fromisoformat(one["started"]))


def _canary(settings: Settings, registry: Registry, now: datetime) -> Iterable[Alarm]:
    if not settings.canary.every_h:
        return
    sent_at, answered_at = registry.keeping.canary_marks()
    if sent_at is None or (answered_at is not None and answered_at >= sent_at):
        return
    if now - sent_at > timedelta(minutes=settings.canary.within_min):
        answer = registry.keeping.canary_answer(canary.study_uid(sent_at))
        why = "it was never received" if answer is None else answer.why
        yield Alarm(AlarmKind.CANARY_LATE, "canary" if answer is None else answer.study_key, since=sent_at, detail=why)
