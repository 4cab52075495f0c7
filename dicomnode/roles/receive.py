"""The listener: instances in, bytes and rows durable, then the answer."""

import ctypes
import threading
from contextlib import suppress
from datetime import timedelta

import structlog

from dicomnode.archive import Archive, ArchiveLimits
from dicomnode.domain.errors import UnreachableError
from dicomnode.receiving import Limits, Receiver
from dicomnode.receiving.announcements import AnnouncementService
from dicomnode.receiving.commitment import CommitmentService, Committer
from dicomnode.receiving.normalized import NormalizedHandler, NormalizedHandlers
from dicomnode.registry import Registry
from dicomnode.roles import canary, wiring
from dicomnode.roles.lifeline import Lifeline
from dicomnode.roles.space import ReserveKeeper
from dicomnode.settings import Settings
from dicomnode.storage import Store

_log = structlog.get_logger("receiving")

_M_ARENA_MAX = -8  # malloc.h


def main(settings: Settings, lifeline: Lifeline) -> None:
    """The process."""
    _share_arenas()
    registry, store = wiring.open_registry(settings), wiring.open_store(settings)
    noted = threading.Event()
    renewed = wiring.renewed_tls(settings)  # before the context: a change between the two is seen
    at_once = ArchiveLimits(max_matches=settings.archive.max_matches, max_retrievals=settings.archive.max_retrievals)
    receiver = Receiver(
        store,
        registry,
        ae_title=settings.node.ae_title,
        also_called=settings.dicom.also_called,
        extra_sop_classes=settings.dicom.extra_sop_classes,
        transfer_syntaxes=settings.dicom.transfer_syntaxes,
        host=settings.dicom.host,
        port=settings.dicom.port,
        peers=(*wiring.peers(settings).values(), *canary.permitted(settings)),
        tls=wiring.tls_context(settings),
        limits=Limits(
            max_associations=settings.dicom.max_associations,
            max_giving=at_once.max_queries + at_once.max_retrievals,
            network_timeout_s=settings.dicom.network_timeout_s,
        ),
        normalized=_normalized(settings, registry, store, noted),
        queries=_archive(settings, registry, store, at_once),
    )
    committer = _committer(settings, registry, store, noted)
    reserve = ReserveKeeper(wiring.open_reserve(settings))
    reserve.tend()
    receiver.start()
    _ask_for_proofs_again(registry)
    if committer is not None:
        committer.start()
    lifeline.ready()
    try:
        while not lifeline.stop.wait(1.0):
            if not receiver.listening:
                raise RuntimeError("the listener's thread ended by itself")
            reserve.tend()
            _settle_doubts(registry)
            if renewed is not None and (context := renewed.look()) is not None:
                receiver.renew_tls(context)
            lifeline.alive()
    finally:
        receiver.stop(settings.work.drain_s)
        if committer is not None:
            committer.stop()
        registry.close()


def _ask_for_proofs_again(registry: Registry) -> None:
    """What `deliver` asked before this listened, or while it was restarted: Orthanc, refused once, reports no second time."""
    try:
        registry.proofs.ask_again()
    except Exception as error:  # noqa: BLE001 - boundary: it is asked again anyway, minutes later
        _log.warning("open storage commitments cannot be asked for again", error=type(error).__name__)


def _settle_doubts(registry: Registry) -> None:
    """Never raises: a database that is full, or may only be read after a failover, must not end the listener."""
    try:
        registry.settle_doubts()
    except UnreachableError:
        pass  # next time
    except Exception as error:  # noqa: BLE001 - boundary
        _log.error("rows in doubt cannot be settled", error=type(error).__name__)


def _normalized(settings: Settings, registry: Registry, store: Store, noted: threading.Event) -> NormalizedHandler | None:
    """All DIMSE-N services that somebody may use."""
    services: list[NormalizedHandler] = []
    if (commitment := _commitment_service(settings, registry, noted)) is not None:
        services.append(commitment)
    if any("announce" in one.may for one in settings.peers):
        services.append(AnnouncementService(registry.announcements, store.has_room))
    return NormalizedHandlers(services) if services else None


def _commitment_service(settings: Settings, registry: Registry, noted: threading.Event) -> CommitmentService | None:
    """For reports to us where a destination proves by storage commitment, and for requests where we are its SCP."""
    if not settings.commitment.serve and all(one.proof != "commitment" for one in settings.destinations):
        return None
    return CommitmentService(registry.proofs, registry.promises if settings.commitment.serve else None, noted)


def _archive(settings: Settings, registry: Registry, store: Store, limits: ArchiveLimits) -> Archive:
    """For whoever may "query" or "retrieve"."""
    return Archive(registry.holdings, store, wiring.peers(settings).values(), settings.node.ae_title, limits)


def _committer(settings: Settings, registry: Registry, store: Store, noted: threading.Event) -> Committer | None:
    if not settings.commitment.serve:
        return None
    keep_for = timedelta(days=settings.commitment.keep_days)
    peers, ae_title = wiring.peers(settings), settings.node.ae_title
    return Committer(registry.promises, registry.instance, store, peers, ae_title, keep_for, noted)


def _share_arenas() -> None:
    """Two malloc arenas for all threads. glibc's default, eight a core, costs 10 MB more after sixteen senders (measured)."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
