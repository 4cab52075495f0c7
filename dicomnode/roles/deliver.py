"""The outbox's way out: one thread a destination, until told to stop."""

import threading

from dicomnode.delivery import Deliverer
from dicomnode.roles import wiring
from dicomnode.roles.lifeline import Lifeline
from dicomnode.settings import Settings


def main(settings: Settings, lifeline: Lifeline) -> None:
    """The process."""
    registry, store = wiring.open_registry(settings), wiring.open_store(settings)
    deliverer = Deliverer(registry, store, wiring.destinations(settings), settings.node.ae_title, wiring.worker_name())
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
