"""The node in the foreground: starts every role as a process, watches them, starts crashed ones again, ends all of them.

Signals: SIGTERM and SIGINT drain and end, SIGHUP reads the settings again and restarts the roles. Everything happens in one
thread; signals are blocked and waited for, so none gets lost between two looks.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from dicomnode.domain.clock import utc_now
from dicomnode.domain.errors import DicomNodeError, ExitCode, SettingsError
from dicomnode.registry import Registry
from dicomnode.roles import preparation, wiring
from dicomnode.roles.lifeline import READY, REPLACE
from dicomnode.roles.notify import notify, watchdog_interval_s
from dicomnode.roles.state_files import RoleStatus, write_state
from dicomnode.settings import Settings, load_settings

LOOK_EVERY_S = 0.2
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
HEALTHY_AFTER_S = 60.0  # a role that ran this long starts with the shortest backoff again
SILENT_FOR_S = 300.0  # a role that says nothing for this long hangs and is killed
STOP_MARGIN_S = 10.0  # beyond work.drain_s, until a role that does not stop is killed

# glibc maps and unmaps every array of a megabyte otherwise; threaded numpy then takes twice as long (measured). What is larger
# than 32 MB goes back to the system at once: kept, a network's widest layers held 330 MB that nobody used (measured).
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}

_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
_log = structlog.get_logger()


@dataclass(slots=True)
class Child:
    """One role and its process, if it has one now."""

    role: str
    process: subprocess.Popen[bytes] | None = None
    pipe: int = -1
    state: str = "starting"
    started: str = ""
    started_at: float = 0.0  # monotonic, as are all times below
    last_word_at: float = 0.0
    start_again_at: float = 0.0
    restarts: int = 0
    failures_in_a_row: int = 0
    ever_ready: bool = False


class Supervisor:
    """Runs `roles` until told to stop. `run` gives the exit code."""

    def __init__(self, settings: Settings, registry: Registry, roles: Sequence[str]) -> None:
        self._settings, self._registry = settings, registry
        self._run_folder = wiring.run_folder(settings)
        self._children = [Child(role) for role in roles]
        self._stopping_since: float | None = None
        self._exit_code = ExitCode.DONE
        self._killed_while_stopping = False
        self._announced = False
        self._watchdog_s = watchdog_interval_s()
        self._watchdog_fed_at = 0.0

    def run(self) -> ExitCode:
        """Until SIGTERM or SIGINT, or until a role cannot start at all."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for child in self._children:
            self._start(child)
        while not self._all_ended():
            self._handle(signal.sigtimedwait(_SIGNALS, LOOK_EVERY_S))
            for child in self._children:
                self._listen(child)
                self._look_after(child)
            self._announce()
        in_order = not self._killed_while_stopping and self._exit_code is ExitCode.DONE
        _log.info("node stopped")
        # Only who received can say that nothing was cut off while it arrived.
        if in_order and any(child.role == "receive" for child in self._children):
            self._registry.mark_clean_stop()
        return self._exit_code

    # --- signals

    def _handle(self, received: signal.struct_siginfo | None) -> None:
        if received is None or received.si_signo == signal.SIGCHLD:
            return
        if received.si_signo == signal.SIGHUP:
            self._reload()
        else:
            self._stop(ExitCode.DONE)

    def _reload(self) -> None:
        try:
            settings = self._settings_now()
        except SettingsError as error:
            print(f"error: settings were not reloaded: {error}", file=sys.stderr, flush=True)  # noqa: T201
            return
        _log.info("settings reloaded")
        notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        self._settings, self._announced = settings, False
        for child in self._children:
            self._tell_to_end(child, "restarting")

    def _settings_now(self) -> Settings:
        """The settings file as it is now. Raises SettingsError if the node cannot go on with it."""
        settings = load_settings(self._settings.source)
        preparation.refuse_what_cannot_run(settings)
        if _lasting(settings) != _lasting(self._settings):
            raise SettingsError("node.data_dir, node.name or database.url changed", "restart the node for that")
        return settings

    def _tell_to_end(self, child: Child, state: str) -> None:
        if child.process is not None:
            child.state, child.last_word_at = state, time.monotonic()
            child.process.terminate()
            self._write(child)

    def _stop(self, exit_code: ExitCode) -> None:
        if self._stopping_since is not None:
            return
        self._stopping_since, self._exit_code = time.monotonic(), exit_code
        _log.info("node stopping")
        notify("STOPPING=1")
        for child in self._children:
            self._tell_to_end(child, "stopping")

    # --- children

    def _start(self, child: Child) -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        environment = {**os.environ, **MALLOC} if child.role == "work" else None
        ties = ["--supervisor", str(os.getpid()), "--pipe", str(writing)]
        command = [sys.executable, "-m", "dicomnode.roles", child.role, *ties]
        if self._settings.source is not None:
            command += ["--config", str(self._settings.source)]
        child.process = subprocess.Popen(command, pass_fds=(writing,), stdin=subprocess.DEVNULL, env=environment)
        os.close(writing)
        child.pipe, child.state = reading, "starting"
        child.started, child.started_at = utc_now().isoformat(timespec="seconds"), time.monotonic()
        child.last_word_at = child.started_at
        self._write(child)

    def _listen(self, child: Child) -> None:
        if child.process is None:
            return
        with suppress(BlockingIOError):
            while words := os.read(child.pipe, 4096):
                if child.state in {"starting", "ready"}:
                    child.last_word_at = time.monotonic()
                if READY in words and child.state == "starting":
                    child.state, child.ever_ready = "ready", True
                    _log.info("role ready", task=child.role, pid=child.process.pid)
                    self._write(child)
                if REPLACE in words and child.state == "ready":
                    child.state, child.last_word_at = "restarting", time.monotonic()
                    _log.info("role wants a fresh process", task=child.role, pid=child.process.pid)
                    self._write(child)

    def _look_after(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is None:
            if self._stopping_since is None and now >= child.start_again_at:
                self._start(child)
            return
        if child.process.poll() is not None:
            self._bury(child, child.process)
            return
        if now - child.last_word_at > self._patience_s(child):
            _log.error("role does not answer and is killed", task=child.role, pid=child.process.pid)
            self._killed_while_stopping |= self._stopping_since is not None
            child.process.kill()

    def _patience_s(self, child: Child) -> float:
        """How long a role may say nothing; one that was told to end says nothing more."""
        return SILENT_FOR_S if child.state in {"starting", "ready"} else self._settings.work.drain_s + STOP_MARGIN_S

    def _bury(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        """A role ended: in order, by a crash, or because it cannot run at all."""
        os.close(child.pipe)
        code, child.process = process.returncode, None
        asked_to_end = self._stopping_since is not None or child.state == "restarting"
        if self._stopping_since is not None:
            child.state = "stopped"
            self._killed_while_stopping |= code != 0
        elif not child.ever_ready and code in (ExitCode.USAGE, ExitCode.UNREACHABLE) and child.restarts == 0:
            child.state = "stopped"  # the role said itself why it cannot start
            self._stop(ExitCode(code))
        else:
            self._plan_restart(child, code, asked=asked_to_end)
        if self._stopping_since is None:  # the next start of the node takes everything back
            self._take_back(process.pid, crashed=code < 0 and not asked_to_end)
        self._write(child)

    def _plan_restart(self, child: Child, code: int, *, asked: bool) -> None:
        now = time.monotonic()
        healthy = asked or now - child.started_at > HEALTHY_AFTER_S
        child.failures_in_a_row = 0 if healthy else child.failures_in_a_row + 1
        wait_s = 0.0 if asked else min(FIRST_BACKOFF_S * 2**child.failures_in_a_row, LONGEST_BACKOFF_S)
        child.state, child.start_again_at = "restarting", now + wait_s
        if not asked:
            child.restarts += 1
            how = {"signal": signal.Signals(-code).name} if code < 0 else {"exit_code": code}
            _log.error("role ended by itself and is started again", task=child.role, backoff_s=wait_s, **how)

    def _take_back(self, pid: int, *, crashed: bool) -> None:
        """Jobs and deliveries that the process held; a death by signal counts against the job that was running then."""
        worker = wiring.worker_name(self._settings, pid)
        try:
            (self._registry.worker_died if crashed else self._registry.worker_ended)(worker)
        except DicomNodeError as error:  # the lease runs out by itself
            _log.error("the end of a worker could not be noted", exc_info=error)

    # --- telling others

    def _all_ended(self) -> bool:
        return self._stopping_since is not None and all(child.process is None for child in self._children)

    def _announce(self) -> None:
        ready = all(child.state == "ready" for child in self._children)
        if ready and not self._announced:
            self._announced = True
            _log.info("node ready", port=self._settings.dicom.port)
            notify("READY=1", "STATUS=ready")
        now = time.monotonic()
        # A role that hangs is killed above and one that crashes is started again; what remains to watch is this loop itself.
        if self._watchdog_s is not None and now - self._watchdog_fed_at >= min(self._watchdog_s, 10.0):
            self._watchdog_fed_at = now
            notify("WATCHDOG=1")

    def _write(self, child: Child) -> None:
        status = RoleStatus(
            name=child.role,
            pid=child.process.pid if child.process else None,
            state=child.state,
            started=child.started,
            restarts=child.restarts,
            supervisor_pid=os.getpid(),
        )
        try:
            write_state(self._run_folder, status)
        except OSError as error:  # a full disk: `status` is late, the node goes on
            _log.error("the state of a role could not be written", task=child.role, exc_info=error)


def _lasting(settings: Settings) -> tuple[object, ...]:
    """What the locks, the rows that this supervisor writes and the names of its workers hang on."""
    return settings.data_dir, settings.database_url, settings.node.name
