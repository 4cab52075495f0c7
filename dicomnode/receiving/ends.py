"""`Ends`: that associations have ended, noted for many of them at once.

Where each image comes on an association of its own, a transaction for each end would be a sixth of what the association costs.
Nobody waits for an end: it is durable with whatever is written next, and only shortens the wait for a series.
"""

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import structlog

from dicomnode.domain.clock import type_clock

_log = structlog.get_logger("receiving")

_GATHERED_S = 0.05
_AGAIN_S = 1.0


class _Ledger(Protocol):
    def association_opened(self, calling: str, called: str, address: str) -> str:
        """Note an association; its key."""
        ...

    def associations_ended(self, ends: Sequence[tuple[str, str, datetime]]) -> None:
        """Note (key, how, when) of associations that ended."""
        ...


class Ends:
    """An `AssociationLedger` in front of another, whose ends a side thread notes, from `start` to `stop`."""

    def __init__(self, ledger: _Ledger, clock: type_clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._changed = threading.Condition()
        self._ended: list[tuple[str, str, datetime]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def association_opened(self, calling: str, called: str, address: str) -> str:
        """See AssociationLedger."""
        return self._ledger.association_opened(calling, called, address)

    def association_ended(self, key: str, how: str) -> None:
        """See AssociationLedger. Noted a moment later; at once where the side thread is no more."""
        end = key, how, self._clock()
        with self._changed:
            if self._thread is not None:
                self._ended.append(end)
                if len(self._ended) == 1:
                    self._changed.notify()
                return
        self._ledger.associations_ended([end])

    def start(self) -> None:
        """Begin."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="ends", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Note what is not noted yet, and end."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._stopping.set()
            self._changed.notify()
        if thread is not None:
            thread.join()
            self._noted()  # what came while it noted others

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._stopping.is_set())
            self._stopping.wait(_GATHERED_S)
            if not self._noted():
                self._stopping.wait(_AGAIN_S)

    def _noted(self) -> bool:
        with self._changed:
            ended, self._ended = self._ended, []
        try:
            if ended:
                self._ledger.associations_ended(ended)
        except Exception as error:  # noqa: BLE001 - boundary: a database that is away is there again later
            _log.error("the ends of associations cannot be recorded", count=len(ended), error=type(error).__name__)
            with self._changed:
                self._ended = ended + self._ended
            return False
        return True
