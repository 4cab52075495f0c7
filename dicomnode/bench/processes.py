"""Receivers as processes: started, seen to listen, measured for memory, ended. And the network namespace for small MTUs."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dicomnode.domain.errors import DicomNodeError, ExitCode

_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h
_STARTED_WITHIN_S, _LOOK_EVERY_S = 60.0, 0.01
# Without it DCMTK-based peers wait for delayed acknowledgements, 40 ms an image: a comparison against that is worthless.
PEER_ENVIRONMENT = {"TCP_NODELAY": "1"}


class MeasurementFailed(DicomNodeError):
    """A subject did not start, refused, or did not keep what it was sent."""

    exit_code = ExitCode.NO


class Running:
    """One receiver, listening. `startup_s` is the time from exec to listening."""

    def __init__(
        self, command: Sequence[str | Path], port: int, folder: Path, environment: Mapping[str, str], prefix: Sequence[str] = ()
    ) -> None:
        self.log = folder / "log"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DICOMNODE_")}
        began = time.monotonic()
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [*prefix, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**kept, **PEER_ENVIRONMENT, **environment},
                start_new_session=True,
            )
        try:
            self._wait_until_it_listens(port, Path(str(command[0])).name)
        except BaseException:
            self.kill()
            raise
        self.startup_s = time.monotonic() - began
        self._rss_before = self._memory_mb("VmRSS")

    def _wait_until_it_listens(self, port: int, name: str) -> None:
        until = time.monotonic() + _STARTED_WITHIN_S
        while not listens(self._process.pid, port):
            if self._process.poll() is not None or time.monotonic() > until:
                end = self.log.read_text(errors="replace").strip().splitlines()[-1:]
                raise MeasurementFailed(f"{name} did not start: {' '.join(end) or 'it said nothing'}", "start it by hand")
            time.sleep(_LOOK_EVERY_S)

    def forget_peak(self) -> None:
        """From now on a new peak counts."""
        with suppress(OSError):
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM
        self._rss_before = self._memory_mb("VmRSS")

    @property
    def peak_mb(self) -> float:
        """Most resident memory since `forget_peak`."""
        return self._memory_mb("VmHWM")

    @property
    def growth_mb(self) -> float:
        """How far that is above what it held then."""
        return self.peak_mb - self._rss_before

    def _memory_mb(self, field: str) -> float:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise MeasurementFailed("a receiver ended while it was measured", "look at its log")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def terminate(self) -> None:
        """Asks it to end; kills it where it does not."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it with all its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def listens(pid: int, port: int) -> bool:
    """Whether somebody listens on this port in the network namespace of this process; asks the kernel, connects to nobody."""
    with suppress(OSError):
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                    return True
    return False


@contextmanager
def small_mtu(bytes_: int = 1500) -> Iterator[Sequence[str]]:
    """Words before a command that run it in a network namespace whose loopback has this MTU.

    Raises MeasurementFailed where that is not allowed: it needs root.
    """
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        raise MeasurementFailed("unshare, nsenter or ip is missing", "apt-get install util-linux iproute2")
    script = f"ip link set lo mtu {bytes_} up && echo ready && exec sleep infinity"
    holder = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    try:
        if holder.stdout is None or holder.stdout.readline().strip() != "ready":
            raise MeasurementFailed("no network namespace can be made", "run the bench as root for the cases at MTU 1500")
        yield ("nsenter", "-t", str(holder.pid), "-n")
    finally:
        holder.kill()
        holder.wait()
        for stream in (holder.stdout, holder.stderr):
            if stream is not None:
                stream.close()
