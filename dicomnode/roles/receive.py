"""The listener: instances in, bytes and rows durable, then the answer."""

import ctypes
from contextlib import suppress

from dicomnode.receiving import Limits, Receiver
from dicomnode.roles import wiring
from dicomnode.roles.lifeline import Lifeline
from dicomnode.roles.space import ReserveKeeper
from dicomnode.settings import Settings

_M_ARENA_MAX = -8  # malloc.h


def main(settings: Settings, lifeline: Lifeline) -> None:
    """The process."""
    _share_arenas()
    registry = wiring.open_registry(settings)
    receiver = Receiver(
        wiring.open_store(settings),
        registry,
        ae_title=settings.node.ae_title,
        also_called=settings.dicom.also_called,
        extra_sop_classes=settings.dicom.extra_sop_classes,
        transfer_syntaxes=settings.dicom.transfer_syntaxes,
        host=settings.dicom.host,
        port=settings.dicom.port,
        peers=tuple(wiring.peers(settings).values()),
        tls=wiring.tls_context(settings),
        limits=Limits(max_associations=settings.dicom.max_associations, network_timeout_s=settings.dicom.network_timeout_s),
    )
    reserve = ReserveKeeper(wiring.open_reserve(settings))
    reserve.tend()
    receiver.start()
    lifeline.ready()
    try:
        while not lifeline.stop.wait(1.0):
            if not receiver.listening:
                raise RuntimeError("the listener's thread ended by itself")
            reserve.tend()
            lifeline.alive()
    finally:
        receiver.stop(settings.work.drain_s)
        registry.close()


def _share_arenas() -> None:
    """Two malloc arenas for all threads. glibc's default, eight a core, costs 10 MB more after sixteen senders (measured)."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
