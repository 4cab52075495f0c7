"""DCMTK's tools: modalities that send, and a PACS that only stores."""

import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pydicom

from tests.peers.processes import PEER_ENVIRONMENT, PeerProcess, loopback_shim, tool
from tests.peers.waiting import free_port, listens, wait_until


@dataclass(frozen=True)
class ToolResult:
    """How a tool ended and what it said (stdout and stderr together)."""

    exit_code: int
    output: str

    @property
    def ok(self) -> bool:
        """Whether the tool itself says that all went well."""
        return self.exit_code == 0


def _run(name: str, *arguments: str | Path, timeout_s: float = 120.0, environment: dict[str, str] | None = None) -> ToolResult:
    completed = subprocess.run(
        [tool(name, "dcmtk"), *(str(argument) for argument in arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
        env={"PATH": "/usr/bin:/bin", **PEER_ENVIRONMENT, **(environment or {})},
        check=False,
    )
    return ToolResult(completed.returncode, completed.stdout)


def dcmsend(
    port: int,
    *paths: Path,
    calling: str = "DCMSEND",
    called: str = "DICOMNODE",
    extra: Sequence[str] = (),
    timeout_s: float = 300.0,
) -> ToolResult:
    """Sends files or folders (recursively); compressed ones are offered as they are."""
    return _run(
        "dcmsend", "-v", "-aet", calling, "-aec", called, "+sd", "+r", "-nh", *extra, "127.0.0.1", str(port), *paths,
        timeout_s=timeout_s,
    )  # fmt: skip


def storescu(
    port: int,
    *paths: Path,
    calling: str = "STORESCU",
    called: str = "DICOMNODE",
    extra: Sequence[str] = (),
    timeout_s: float = 300.0,
) -> ToolResult:
    """Sends files on one association; `extra` takes its options, such as "-xs" to propose one transfer syntax or "--repeat"."""
    return _run(
        "storescu", "-v", "-aet", calling, "-aec", called, "+sd", "+r", *extra, "127.0.0.1", str(port), *paths,
        timeout_s=timeout_s,
    )  # fmt: skip


def echoscu(port: int, *, calling: str = "ECHOSCU", called: str = "DICOMNODE", extra: Sequence[str] = ()) -> ToolResult:
    """One C-ECHO."""
    return _run("echoscu", "-v", "-aet", calling, "-aec", called, "-to", "5", *extra, "127.0.0.1", str(port), timeout_s=30)


def findscu(
    port: int,
    folder: Path,
    *,
    level: str,
    keys: Sequence[str],
    calling: str = "FINDSCU",
    called: str = "ORTHANC",
) -> list[pydicom.Dataset]:
    """The matches of a study-root C-FIND. `keys` as findscu wants them: "StudyInstanceUID=1.2". Raises RuntimeError."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [word for key in (f"QueryRetrieveLevel={level}", *keys) for word in ("-k", key)]
    result = _run(
        "findscu", "-v", "-S", "-X", "-od", folder, "-aet", calling, "-aec", called, *wanted, "127.0.0.1", str(port)
    )  # fmt: skip
    if not result.ok:
        raise RuntimeError(f"findscu ended with {result.exit_code}:\n{result.output}")
    return [pydicom.dcmread(path, force=True) for path in sorted(folder.glob("rsp*.dcm"))]


class StoreScp:
    """DCMTK's storescp as a PACS that only stores, into `folder`/received.

    `extra`: its own options, among them "--abort-during", "--abort-after", "--refuse", "--sleep-during N", "--ignore".
    `accepted_sop_classes`: only these get a presentation context (all others are refused), in uncompressed syntaxes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "STORESCP",
        port: int | None = None,
        extra: Sequence[str] = (),
        accepted_sop_classes: Sequence[str] | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.port = port or free_port()
        self.received = folder / "received"
        self.received.mkdir(parents=True, exist_ok=True)
        self._log = folder / "storescp.log"
        self._extra = [*extra]
        if accepted_sop_classes is None:
            self._extra += ["-pm", "+xa"]
        else:
            self._extra += ["-xf", str(self._profile(folder, accepted_sop_classes)), "Narrow"]
        self._process: PeerProcess | None = None

    @staticmethod
    def _profile(folder: Path, sop_classes: Sequence[str]) -> Path:
        lines = ["[[TransferSyntaxes]]", "[Uncompressed]", "TransferSyntax1 = LocalEndianExplicit"]
        lines += ["TransferSyntax2 = LittleEndianImplicit", "[[PresentationContexts]]", "[Storage]"]
        lines += [f"PresentationContext{n} = {uid}\\Uncompressed" for n, uid in enumerate(sop_classes, start=1)]
        lines += ["[[Profiles]]", "[Narrow]", "PresentationContexts = Storage"]
        path = folder / "storescp.cfg"
        path.write_text("\n".join(lines) + "\n")
        return path

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, extra: Sequence[str] = ()) -> None:
        """Starts it (with `extra` options this once) and returns when it listens."""
        self._process = PeerProcess(
            [
                tool("storescp", "dcmtk"),
                *("--verbose", "-aet", self.ae_title, "-od", self.received, "-uf"),
                *self._extra,
                *extra,
                str(self.port),
            ],
            self._log,
            environment={"LD_PRELOAD": str(loopback_shim())},
        )
        wait_until(self._listening, timeout_s=10, what=f"storescp to listen; its log: {self._log}")

    def _listening(self) -> bool:
        if self._process is not None and not self._process.running:
            raise RuntimeError(f"storescp ended at once:\n{self.output()[-2000:]}")
        return listens(self.port)

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.terminate(5)
            self._process = None

    def kill(self) -> None:
        """Ends it without a goodbye: an open association is cut."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def freeze(self) -> None:
        """Stops reading and answering, with all connections open: a hung peer, or the far half of a dead link."""
        if self._process is not None:
            self._process.signal(signal.SIGSTOP)

    def output(self) -> str:
        """Its log since the first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def requests(self) -> int:
        """How many C-STORE requests came in over all starts, repeated ones included."""
        return len(re.findall(r"Received Store Request", self.output()))

    def files(self) -> list[Path]:
        """What it stored."""
        return sorted(path for path in self.received.iterdir() if path.is_file())

    def sop_instance_uids(self) -> list[str]:
        """SOP Instance UIDs of what it stored, in the order in which the files were written."""
        in_order = sorted(self.files(), key=lambda path: path.stat().st_mtime_ns)
        return [str(pydicom.dcmread(path, stop_before_pixels=True, force=True).SOPInstanceUID) for path in in_order]
