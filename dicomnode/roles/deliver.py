"""The outbox's way out: one thread a destination, until told to stop."""

import threading

import structlog

from dicomnode.delivery import Deliverer
from dicomnode.domain.errors import DatabaseUnreachable
from dicomnode.registry import Registry
from dicomnode.roles import wiring
from dicomnode.roles.lifeline import Lifeline
from dicomnode.settings import Settings

_log = structlog.get_logger()


def stranded(registry: Registry, settings: Settings) -> dict[str, int]:
    """Destinations that the settings no longer name → how many objects still wait for them: nobody sends these."""
    known = {one.name for one in settings.destinations} | {one.name for one in wiring.destinations(settings)}
    return {name: count for name, count in registry.unfinished_deliveries().items() if name not in known}


def main(settings: Settings, lifeline: Lifeline) -> None:
    """The process."""
    registry, store = wiring.open_registry(settings), wiring.open_store(settings)
    worker = wiring.worker_name(settings)
    deliverer = Deliverer(registry, store, wiring.destinations(settings), settings.node.ae_title, worker)
    try:
        for name, count in stranded(registry, settings).items():
            _log.error("results wait for a destination that the settings no longer name", destination=name, deliveries=count)
    except DatabaseUnreachable as error:
        _log.warning("what waits to be sent could not be counted", exc_info=error)
    sending = threading.Thread(target=deliverer.loop, args=(lifeline.stop,), name="deliver")
    sending.start()
    lifeline.ready()
    try:
        while not lifeline.stop.wait(1.0):
            if not sending.is_alive():
                raise RuntimeError("the delivery thread ended by itself")
            lifeline.alive()
        sending.join()
    finally:
        registry.close()
