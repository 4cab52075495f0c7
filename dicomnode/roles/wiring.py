"""From settings to domain objects and to the parts that need them. Nothing here opens a connection by itself."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode.domain.errors import SettingsError
from dicomnode.domain.profiles import Profile
from dicomnode.domain.routes import Destination, Peer, PeerTls, Route
from dicomnode.registry import Registry
from dicomnode.roles import canary
from dicomnode.settings import DestinationSettings, PeerSettings, RouteSettings, Settings
from dicomnode.settings_profiles import profiles_of
from dicomnode.storage import Reserve, Store, reserve_size

if TYPE_CHECKING:
    import ssl

    from dicomnode.network.tls import RenewedFiles, TlsFiles


def make_folders(settings: Settings) -> None:
    """The data folder and what the node itself keeps in it. Raises SettingsError where it may not write."""
    for folder in (settings.data_dir, run_folder(settings)):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as error:
            raise SettingsError(
                f"folder {folder} cannot be made: {error.strerror}", "set node.data_dir to a folder that this user may write"
            ) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SettingsError(f"folder {folder} is not writable", "set node.data_dir to a folder that this user may write")


def run_folder(settings: Settings) -> Path:
    """Where roles say how they are; each node has its own where several share a store and a database server."""
    folder = settings.data_dir / "run"
    return folder / settings.node_name if shares_database(settings) else folder


def shares_database(settings: Settings) -> bool:
    """Whether other machines may write to the same rows."""
    return sqlite_file(settings.database_url) is None


def open_store(settings: Settings) -> Store:
    """The bytes."""
    return Store(settings.data_dir, reserve_bytes=_writing_stops_below_bytes(settings), order=settings.storage.order)


def open_reserve(settings: Settings) -> Reserve:
    """What is set aside for the database, on its own disk."""
    return Reserve(
        _database_folder(settings),
        size_bytes=settings.storage.reserve_file_mb << 20,
        writing_stops_below_bytes=_writing_stops_below_bytes(settings),
    )


def _writing_stops_below_bytes(settings: Settings) -> int:
    """Instances never take what the reserve file gave up for the database."""
    reserve = reserve_size(_database_folder(settings), settings.storage.reserve_file_mb << 20)
    return max(settings.storage.reserve_mb << 20, reserve)


def _database_folder(settings: Settings) -> Path:
    """Where SQLite writes; the data folder for a database server, whose disk is not ours to keep free."""
    path = sqlite_file(settings.database_url)
    return path.parent if path is not None else settings.data_dir


def sqlite_file(url: str) -> Path | None:
    """The database's file; None for a server."""
    scheme, _, path = url.partition(":///")
    return Path(path.partition("?")[0]) if scheme.startswith("sqlite") else None


def open_registry(settings: Settings) -> Registry:
    """The rows. On SQLite all of them are this node's, whatever its machine was called when they were written."""
    return Registry(settings.database_url, node=settings.node_name if shares_database(settings) else "")


def worker_name(settings: Settings, pid: int | None = None) -> str:
    """Who holds a lease: this node and process."""
    return f"{settings.node_name}:{pid or os.getpid()}"


def peers(settings: Settings) -> dict[str, Peer]:
    """Peers by name."""
    return {
        one.name: Peer(one.name, one.ae_title, one.host, one.port, frozenset(map(str, one.may)), _peer_tls(settings, one))
        for one in settings.peers
    }


def _peer_tls(settings: Settings, one: PeerSettings) -> PeerTls | None:
    """How we call a peer that wants TLS: with the listener's own certificate, if it has one."""
    if not one.tls:
        return None
    tls = settings.dicom.tls
    if tls is None:
        return PeerTls()
    ca = settings.absolute(tls.ca) if tls.ca is not None else None
    return PeerTls(settings.absolute(tls.certificate), settings.absolute(tls.key), ca)


def destinations(settings: Settings) -> tuple[Destination, ...]:
    """All destinations."""
    by_name = peers(settings)
    profiles = profiles_of(settings.profiles)
    listed = tuple(_destination(one, by_name, profiles, settings) for one in settings.destinations)
    return (*listed, canary.destination(settings, profiles)) if settings.canary.every_h else listed


def _destination(
    one: DestinationSettings, by_name: Mapping[str, Peer], profiles: Mapping[str, Profile], settings: Settings
) -> Destination:
    return Destination(
        name=one.name,
        kind=one.kind,
        profile=profiles[one.profile],
        proof=one.proof,
        accept_demonstration=one.accept_demonstration,
        peer=by_name[one.peer] if one.peer is not None else None,
        path=settings.absolute(one.path) if one.path is not None else None,
        url=one.url,
    )


def routes(settings: Settings) -> tuple[Route, ...]:
    """Routes in the order of the settings file, the canary's last."""
    listed = tuple(map(_route, settings.routes))
    return (*listed, canary.route(settings)) if settings.canary.every_h else listed


def _route(one: RouteSettings) -> Route:
    return Route(
        name=one.name,
        match=one.match,
        pipeline=one.pipeline,
        speed=one.speed,
        select=one.select,
        send_to=one.send_to,
        results=tuple(one.results),
        quiet_s=one.quiet_s,
        max_wait_s=one.max_wait_s,
        send_not_run=one.send_not_run,
        priority=one.priority,
        count_at=one.count_at,
        allow_many_frames_of_reference=one.allow_many_frames_of_reference,
        draw_identity=one.draw_identity,
    )


def tls_files(settings: Settings) -> "TlsFiles | None":
    """Certificates of the DICOM listener; None for plain DICOM."""
    tls = settings.dicom.tls
    if tls is None:
        return None
    from dicomnode.network.tls import TlsFiles  # brings pynetdicom, which status and its like need not load

    ca = settings.absolute(tls.ca) if tls.ca is not None else None
    return TlsFiles(settings.absolute(tls.certificate), settings.absolute(tls.key), ca, tls.require_client)


def tls_context(settings: Settings) -> "ssl.SSLContext | None":
    """For the DICOM listener; None for plain DICOM. Raises SettingsError that names file and remedy."""
    files = tls_files(settings)
    if files is None:
        return None
    from dicomnode.network.tls import days_valid, server_context

    days_valid(files)
    return server_context(files)


def renewed_tls(settings: Settings) -> "RenewedFiles | None":
    """What watches the listener's certificates; None for plain DICOM."""
    files = tls_files(settings)
    if files is None:
        return None
    from dicomnode.network.tls import RenewedFiles

    return RenewedFiles(files)


def not_built(settings: Settings) -> Iterable[SettingsError]:
    """Settings that are understood but whose part does not exist yet: starting all the same would break what they promise."""
    from dicomnode.delivery import supported  # brings pynetdicom, which status and its like need not load

    for destination in destinations(settings):
        try:
            supported(destination)
        except SettingsError as error:
            yield error
