"""Starting and ending the processes of peers, with their output kept for the report of a failed test."""

import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.peers.waiting import wait_until

# Without it DCMTK-based peers wait for delayed acknowledgements: 40 ms an image that say nothing about us.
PEER_ENVIRONMENT = {"TCP_NODELAY": "1"}


def tool(name: str, package: str) -> str:
    """The path of a system tool. Raises FileNotFoundError with the remedy: a test without its peer proves nothing."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise FileNotFoundError(f"{name} is missing — apt-get install --no-install-recommends {package}")
    return found


@functools.cache
def loopback_shim() -> Path:
    """The compiled bind() shim, made once a session."""
    source = Path(__file__).with_name("bind_loopback.c")
    library = Path(tempfile.mkdtemp(prefix="dicomnode-tests-")) / "bind_loopback.so"
    subprocess.run([tool("gcc", "gcc libc6-dev"), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


class PeerProcess:
    """One process in a process group of its own, its output in `log`."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        working_folder: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **PEER_ENVIRONMENT, **(environment or {})},
                cwd=working_folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process, which also leads its group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def output(self) -> str:
        """All that it has said until now."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to this process alone."""
        if self.running:
            self._process.send_signal(number)

    def terminate(self, timeout_s: float = 20.0) -> int:
        """Asks it to end, waits, and kills the group if it does not. The exit code (negative: the signal)."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def wait(self, timeout_s: float) -> int:
        """The exit code once it has ended by itself. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout_s)

    def kill(self) -> int:
        """SIGKILL to the whole group: a power cut as far as processes go."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        ended = self._process.wait(10)
        # Its children are not ours to wait for, and one that is still dying accepts connections.
        wait_until(lambda: not _lives_in(self.pid), timeout_s=10, every_s=0.005, what="the end of a killed group")
        return ended


def _lives_in(group: int) -> bool:
    """Whether a process of this group is more than a zombie (proc(5): state and group follow the name in brackets)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False
