"""The LD_PRELOAD shim (shim.c), compiled when it is needed: counts, stubs or slows syncs, and keeps peers on the loopback."""

import mmap
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
NO_COMPILER = "there is no C compiler — apt-get install --no-install-recommends gcc libc6-dev"


def compiled(folder: Path) -> Path | None:
    """The shared library, made in `folder`; None where there is no compiler or it lacks the headers."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "shim.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], capture_output=True, text=True, check=False
    )
    return library if done.returncode == 0 else None


class Counted:
    """The environment of a process whose syncs are counted, and stubbed or slowed: `stub`, or `least_ms`."""

    def __init__(self, library: Path, counter: Path, *, stub: bool = False, least_ms: float | None = None) -> None:
        counter.write_bytes(bytes(mmap.PAGESIZE))
        self._counter = counter
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "BENCH_SYNC_COUNT": str(counter),
            **({"BENCH_SYNC": "stub"} if stub else {}),
            **({"BENCH_SYNC_MS": f"{least_ms:g}"} if least_ms is not None else {}),
        }

    @property
    def calls(self) -> int:
        """Syncs asked for so far."""
        return int(struct.unpack_from("@l", self._counter.read_bytes())[0])


def on_loopback(library: Path) -> Mapping[str, str]:
    """The environment of a server that knows no setting for its address."""
    return {"LD_PRELOAD": str(library), "BENCH_LOOPBACK": "1"}
