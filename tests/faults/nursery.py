"""`python -m tests.faults.nursery`: nodes that start in a tenth of a second, to be killed again and again.

What costs seconds at a node's start is importing torch, MONAI and highdicom. Here it is paid once: each node, and each of its
roles, is a fork of this process, and runs what `dicomnode run` and `python -m dicomnode.roles` run: the same supervisor, the
same mains. Crash points (`crash_points`) are put into the fork of one role; the node's own code knows nothing of them.

One JSON document a line on stdin, one answer a line on stdout:
{"start": SETTINGS, "log": FILE, "crash": a crash point | null, "fault": a fault | null} → {"pid": …};
{"poll": PID} → {"ended": true | false}; {"kill": PID} → {"ended": true}; {"stop": PID} → {}; {"code": PID} → {"code": …}.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

_OTHER_ROLES = ("dicomnode.roles.receive", "dicomnode.roles.sweep", "dicomnode.roles.work", "dicomnode.roles.deliver")


def _import_all() -> None:
    """Everything that a role imports late, so that a fork need not."""
    import importlib

    import torch

    torch.set_num_threads(1)  # a fork has none of the threads that a computation here would leave behind
    for name in (*_OTHER_ROLES, "dicomnode.engines.bundle", "dicomnode.cli.main", "highdicom", "skimage.measure"):
        importlib.import_module(name)
    from dicomnode import imaging, results

    # No network is run here, not even a loaded model's test of itself: a fork would wait for its threads for ever.
    imaging.install_decoders()
    results.warm_up()
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all pages


class _Fork:
    """`subprocess.Popen` for a role, as far as the supervisor knows it: a fork in place of a new interpreter."""

    crash: Mapping[str, Any] | None = None
    fault: Mapping[str, Any] | None = None

    def __init__(self, command: Sequence[str], **_: object) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                code = _run_role(command[3], list(command[3:]), self.crash, self.fault)
            finally:
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _run_role(role: str, words: Sequence[str], crash: Mapping[str, Any] | None, fault: Mapping[str, Any] | None) -> int:
    import faulthandler
    import random

    faulthandler.register(signal.SIGUSR1, all_threads=True)  # where does it hang? The log will say
    random.seed()
    if crash is not None:
        from tests.faults import crash_points

        crash_points.install(role, crash)
    if fault is not None:
        from tests.faults import faults

        faults.install(role, fault)
    from dicomnode.roles.__main__ import main

    sys.argv = ["dicomnode.roles", *words]
    return main()


def _run_node(order: Mapping[str, Any]) -> int:
    """`dicomnode run --config SETTINGS`, in a fork of its own that leads its process group."""
    os.setpgid(0, 0)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    from dicomnode.registry import queue
    from dicomnode.roles import supervisor

    # After a worker's death its job rests for 10 s, then for 20: nothing here is about how long.
    queue._FIRST_BACKOFF_S = 1.0
    _Fork.crash, _Fork.fault = order.get("crash"), order.get("fault")
    supervisor.subprocess = SimpleNamespace(Popen=_Fork, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]
    start = supervisor.Supervisor._start

    def start_role(self: supervisor.Supervisor, child: supervisor.Child) -> None:
        self._registry.close()  # SQLite's locks and its shared memory must not be carried over a fork; it opens again by itself
        start(self, child)

    supervisor.Supervisor._start = start_role  # type: ignore[method-assign]
    from dicomnode.cli.main import run

    return run(["run", "--config", order["start"]])


def _answer(order: Mapping[str, Any]) -> dict[str, Any]:
    if "start" in order:
        pid = os.fork()
        if not pid:
            code = 70
            try:
                code = _run_node(order)
            finally:
                os._exit(code)
        with suppress(OSError):  # here and there, for whoever comes first
            os.setpgid(pid, pid)
        return {"pid": pid}
    if "kill" in order:
        with suppress(ProcessLookupError):
            os.killpg(order["kill"], signal.SIGKILL)
        while not _ended(order["kill"]):
            time.sleep(0.002)
        return {"ended": True}
    if "stop" in order:
        os.kill(order["stop"], signal.SIGTERM)
        return {}
    if "code" in order:
        return {"code": _codes.get(order["code"])}
    return {"ended": _ended(order["poll"])}


_codes: dict[int, int] = {}


def _ended(node: int) -> bool:
    """Whether the node and all that it forked are gone; roles of a killed supervisor are ours to bury (subreaper)."""
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0] != 0:
            _codes[child[0]] = os.waitstatus_to_exitcode(child[1])
    try:
        os.killpg(node, 0)
    except ProcessLookupError:
        return True
    return False


def main() -> None:
    """Until stdin ends."""
    import ctypes

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER (linux/prctl.h)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # end with the test run
    warnings.simplefilter("ignore")
    orders = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _import_all()
    answers.write('{"ready": true}\n')
    while line := orders.readline():
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
