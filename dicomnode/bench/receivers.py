"""Who receives: our own role, and the peers that are installed. Each runs as its own process on fresh storage."""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from dicomnode.bench.objects import SentObject
from dicomnode.bench.processes import MeasurementFailed

Command = Callable[[Path, int], Sequence[str | Path]]
Check = Callable[[Path, SentObject, int], None]
SAMPLES = "samples.json"
_DEBIAN_PLACES = ":/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Receiver:
    """`command(folder, port)` prepares a fresh folder and says what to run; `check` raises MeasurementFailed for losses."""

    name: str
    called_ae: str
    command: Command
    check: Check
    program: str = ""  # what must be installed; empty: nothing
    package: str = ""  # the Debian package that has it
    any_address: bool = False  # knows no setting for the address to listen on
    bare: bool = False  # no DICOM
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> str:
        """Why it cannot run, with the remedy; "" if it can."""
        if not self.program or found(self.program):
            return ""
        return f"{self.program} is not installed — apt-get install --no-install-recommends {self.package}"


@cache
def found(program: str) -> str | None:
    """Its path."""
    import os

    return shutil.which(program, path=os.environ.get("PATH", "") + _DEBIAN_PLACES)


def _program(name: str) -> str:
    return found(name) or name


# --- ours


def _ours(order: str | None, *, sampled: bool = False) -> Command:
    def command(folder: Path, port: int) -> Sequence[str | Path]:
        from dicomnode.roles.preparation import prepare_data
        from dicomnode.settings import load_settings

        config = folder / "dicomnode.toml"
        lines = ["[node]", f"data_dir = {json.dumps(str(folder / 'data'))}", "[dicom]", f"port = {port}"]
        lines += ["[logs]", 'level = "warning"', *(["[storage]", f'order = "{order}"'] if order else [])]
        config.write_text("\n".join(lines) + "\n")
        prepare_data(load_settings(config), ["receive"]).close()
        if sampled:
            from dicomnode.bench import sampling

            package = Path(sampling.__file__).parents[1]
            run = ["-P", str(sampling.__file__), SAMPLES, f"{package}/"]
        else:
            run = ["-m", "dicomnode.roles"]
        return [sys.executable, *run, "receive", "--config", config]

    return command


def _ours_kept(folder: Path, sent: SentObject, images: int) -> None:
    """Row, file and digest of every single image."""
    from dicomnode.registry import Registry
    from dicomnode.roles import wiring
    from dicomnode.settings import load_settings

    settings = load_settings(folder / "dicomnode.toml")
    store, registry = wiring.open_store(settings), Registry(settings.database_url)
    try:
        for index in range(images):
            known = registry.instance(sent.uid_of(index))
            expected = sent.sha256_of(index)
            if known is None or known.sha256 != expected or _data_set_digest(store.absolute(known.path)) != expected:
                raise MeasurementFailed(f"image {index} was acknowledged and is not there", "this is a fault: report it")
    finally:
        registry.close()


def _data_set_digest(path: Path) -> str:
    """SHA-256 of what stands behind the File Meta Information."""
    from dicomnode.storage import data_set_offset

    with path.open("rb") as file:
        file.seek(data_set_offset(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def ours(name: str = "ours", order: str | None = None, *, sampled: bool = False) -> Receiver:
    """The real receive role with default settings; `order` sets storage.order. Sampled: leaves SAMPLES when terminated."""
    return Receiver(name, "DICOMNODE", _ours(order, sampled=sampled), _ours_kept)


# --- peers


def _files_kept(below: str, names: str = "*") -> Check:
    """As many whole files as images were sent."""

    def check(folder: Path, sent: SentObject, images: int) -> None:
        kept = sum(path.is_file() and path.stat().st_size >= sent.size_bytes for path in (folder / below).rglob(names))
        if kept != images:
            raise MeasurementFailed(f"it acknowledged {images} images and keeps {kept}", "leave this peer out")

    return check


def _storescp(*options: str) -> Command:
    def command(folder: Path, port: int) -> Sequence[str | Path]:
        (folder / "received").mkdir()
        return [_program("storescp"), "-aet", "STORESCP", "-od", "received", *options, str(port)]

    return command


def storescp(name: str = "storescp", *options: str) -> Receiver:
    """DCMTK's storescp, which syncs nothing."""
    return Receiver(
        name, "STORESCP", _storescp(*options), _files_kept("received"), "storescp", "dcmtk", any_address=True
    )  # fmt: skip


def _orthanc(settings: Mapping[str, object]) -> Command:
    def command(folder: Path, port: int) -> Sequence[str | Path]:
        ours = {
            "StorageDirectory": "storage",
            "IndexDirectory": "storage",
            "SyncStorageArea": True,
            "Plugins": [],
            "HttpServerEnabled": False,
            "DicomAet": "ORTHANC",
            "DicomPort": port,
            "DicomAlwaysAllowStore": True,
            "DicomScpTimeout": 120,
        }
        (folder / "orthanc.json").write_text(json.dumps({**ours, **settings}))
        return [_program("Orthanc"), "orthanc.json"]

    return command


def orthanc(name: str = "orthanc", **settings: object) -> Receiver:
    """Orthanc as installed, its storage area synced; its files have UUIDs as names, its index lies beside them."""
    check = _files_kept("storage", "????????-*-*-*-*")
    return Receiver(name, "ORTHANC", _orthanc(settings), check, "Orthanc", "orthanc", any_address=True)


def _pynetdicom(folder: Path, port: int) -> Sequence[str | Path]:
    (folder / "received").mkdir()
    return [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-ba", "127.0.0.1", "-od", "received", "-q"]


def pynetdicom_app() -> Receiver:
    """The storescp that comes with pynetdicom."""
    return Receiver("pynetdicom", "STORESCP", _pynetdicom, _files_kept("received"))


def _floor(folder: Path, port: int) -> Sequence[str | Path]:
    from dicomnode.bench import floor

    (folder / "received").mkdir()
    return [sys.executable, "-I", str(floor.__file__), str(port), "received"]


def bare_floor() -> Receiver:
    """Loopback into a file, fdatasync, one byte back."""
    return Receiver("floor", "", _floor, _files_kept("received"), bare=True)


def versions() -> dict[str, str | None]:
    """Of ourselves and of everyone measured; None for what is not installed."""
    import platform
    import sqlite3
    from importlib.metadata import version

    from dicomnode import __version__

    return {
        "dicomnode": __version__,
        "python": platform.python_version(),
        "pydicom": version("pydicom"),
        "pynetdicom": version("pynetdicom") if importlib.util.find_spec("pynetdicom") else None,
        "sqlite": sqlite3.sqlite_version,
        "dcmtk": _first_version("storescp"),
        "orthanc": _first_version("Orthanc"),
    }


def _first_version(program: str) -> str | None:
    path = found(program)
    if path is None:
        return None
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d+(\.\d+)?", told.stdout)
    return match[0] if match else None
