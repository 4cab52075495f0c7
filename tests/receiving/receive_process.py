"""The `receive` role as the supervisor starts it, alone: a real process on real settings, to be killed, traced and weighed."""

import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from dicomnode.registry import Registry
from tests.peers.node import settings_text
from tests.peers.waiting import free_port

CHECKOUT = Path(__file__).resolve().parents[2]


class ReceiveProcess:
    """`with ReceiveProcess(folder) as node:` — started and listening; killed at the end.

    folder: settings and log; data_dir: where bytes and rows are (default: folder/data). lists: arrays of tables of the settings
    (peers, …). prefix: words before the command, such as strace's. Each `start` takes the same port, so that senders find it
    again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data_dir: Path | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        lists: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        prefix: Sequence[str | Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir or folder / "data"
        self.port = free_port()
        self.log = folder / "receive.log"
        self.config = folder / "dicomnode.toml"
        self.start_cpu_s = 0.0
        self._prefix, self._environment = [*map(str, prefix)], dict(environment or {})
        tables: dict[str, dict[str, Any]] = {
            "node": {"data_dir": str(self.data_dir)},
            "dicom": {"port": self.port},
            "storage": {"reserve_mb": 0},
        }
        for table, values in (settings or {}).items():
            tables.setdefault(table, {}).update(values)
        self.config.write_text(settings_text(tables, lists or {}))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def registry(self) -> Registry:
        """The node's rows, seen from here. The caller closes it."""
        return Registry(f"sqlite:///{self.data_dir / 'dicomnode.db'}")

    def start(self, timeout_s: float = 60.0) -> float:
        """Start it; how many seconds passed until it said "ready"."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        registry = self.registry()
        registry.prepare()  # as the supervisor does before its roles
        registry.close()
        ours, theirs = os.pipe()
        began = time.monotonic()
        command = [sys.executable, "-m", "dicomnode.roles", "receive", "--config", str(self.config), "--pipe", str(theirs)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs,),
                env={**os.environ, **self._environment},
                cwd=CHECKOUT,
                start_new_session=True,
            )
        os.close(theirs)
        try:
            readable, _, _ = select.select([ours], [], [], timeout_s)
            if not readable or not os.read(ours, 1):
                self.kill()
                raise RuntimeError(f"the process did not get ready; its log ends:\n{self.output()[-3000:]}")
        finally:
            os.close(ours)  # what it says later meets a closed pipe, which it must bear
        self.start_cpu_s = self.cpu_s()
        return time.monotonic() - began

    def cpu_s(self) -> float:
        """User and system time that the process has used (proc(5))."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """What it holds in memory now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    def forget_peak(self) -> None:
        """Count the peak of memory from now on (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """The most that it held in memory since `forget_peak`, or its start."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
            self._process = None

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        process, self._process = self._process, None
        return process.wait(timeout_s)

    def output(self) -> str:
        """What it wrote over all starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""
