"""Holds a job's lease while the worker computes, and ends a worker whose job hangs."""

import os
import signal
import threading
import time
from typing import Self

import structlog

from dicomnode.domain.errors import DicomNodeError, StaleUpdate
from dicomnode.registry import ClaimedJob, Registry
from dicomnode.roles.lifeline import Lifeline

LOCKED_FOR_S = 120.0  # so long no Python code ran: nothing that works holds the interpreter's lock for that
TIMER_GRACE_S = 5.0  # the thread's own kill, which says why, comes first

_log = structlog.get_logger()


class HeldLease:
    """Renews the lease every third of its length for as long as the block runs.

    A job that runs longer than `job_timeout_s` ends its worker by SIGKILL: nothing gentler stops a hanging kernel, the
    supervisor counts the death against the job and starts another worker. Code that holds the interpreter's lock hangs this
    thread too: a timer of the kernel, wound up at each beat, ends the process then. After SIGTERM the job may go on for
    `drain_s`; then the process ends and the next start of the node gives the attempt back.
    """

    def __init__(
        self, registry: Registry, job: ClaimedJob, lifeline: Lifeline, *, job_timeout_s: float, drain_s: float
    ) -> None:
        self._registry, self._job, self._lifeline = registry, job, lifeline
        self._job_timeout_s, self._drain_s = job_timeout_s, drain_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {job.key}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _keep(self) -> None:
        began = renewed = time.monotonic()
        self._wind_up(0.0)
        told_at: float | None = None
        while not self._done.wait(1.0):
            now = time.monotonic()
            self._lifeline.alive()
            self._wind_up(now - began)
            if self._lifeline.stop.is_set():
                told_at = told_at or now
                if now - told_at > self._drain_s:
                    _log.warning("job given back because the node stops", job=self._job.key)
                    os._exit(0)
            if now - began > self._job_timeout_s:
                _log.error("job hangs and its worker is killed", job=self._job.key, elapsed_s=round(now - began))
                os.kill(os.getpid(), signal.SIGKILL)
            if now - renewed > self._job.lease_s / 3 and self._renew():
                renewed = now

    def _wind_up(self, elapsed_s: float) -> None:
        """SIGALRM, whose default is death, unless this thread runs again in time."""
        left_s = max(self._job_timeout_s - elapsed_s, 0.0) + TIMER_GRACE_S
        signal.setitimer(signal.ITIMER_REAL, min(left_s, LOCKED_FOR_S))

    def _renew(self) -> bool:
        """Whether it could; if not, at the next beat."""
        try:
            self._registry.renew_lease(self._job)
        except StaleUpdate:
            _log.warning("job is no longer ours; its result will be dropped", job=self._job.key)
            self._done.set()
        except DicomNodeError as error:  # an unreachable database
            _log.warning("lease could not be renewed", job=self._job.key, exc_info=error)
            return False
        return True
