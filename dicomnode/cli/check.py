"""`check`: everything that a start needs, each with what is wrong and what to do."""

import importlib.metadata
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption, sqlite_path
from dicomnode.cli.output import print_error, print_json, table
from dicomnode.domain.errors import DicomNodeError, ExitCode

if TYPE_CHECKING:
    from dicomnode.network.tls import TlsFiles
    from dicomnode.settings import Settings

LOW_DISK_BYTES = 10 * 2**30
CERTIFICATE_DAYS = 30
OLDEST_SANE_CLOCK = 1_767_225_600.0  # 2026-01-01 UTC: no machine that runs this version is older


@dataclass(frozen=True, slots=True)
class Check:
    """One question to the machine and its answer."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def check(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Look at everything that a start needs; changes nothing."""
    from dicomnode.settings import read_settings

    settings, problems = read_settings(config)
    if settings is None or problems:
        checks = [Check("settings", False, one.what, one.remedy) for one in problems]
    else:
        checks = [one for name, look in _LOOKS for one in _guarded(name, look, settings)]
    ok = all(one.ok for one in checks)
    if as_json:
        print_json("check", {"ok": ok, "checks": [asdict(one) for one in checks]})
    else:
        table(("", "check", "detail", "what to do"), [("ok" if c.ok else "NO", c.name, c.detail, c.remedy) for c in checks])
    if not ok:
        first = next(one for one in checks if not one.ok)
        print_error(f"check {first.name}: {first.detail}", first.remedy)
        wrong_settings = any(one.name == "settings" and not one.ok for one in checks)
        raise typer.Exit(int(ExitCode.USAGE if wrong_settings else ExitCode.NO))


def _guarded(name: str, look: "Callable[[Settings], Iterator[Check]]", settings: "Settings") -> list[Check]:
    """One failed look must not hide the others."""
    try:
        return list(look(settings))
    except DicomNodeError as error:
        return [Check(name, False, error.what, error.remedy)]
    except Exception as error:  # noqa: BLE001 - the boundary of one question
        return [Check(name, False, f"could not be looked at ({type(error).__name__})", "run dicomnode check --debug")]


def _settings(settings: "Settings") -> Iterator[Check]:
    from dicomnode.roles import wiring

    problems = list(wiring.not_built(settings))
    for one in problems:
        yield Check("settings", False, one.what, one.remedy)
    if not problems:
        yield Check("settings", True, f"{settings.source} is understood")


def _folders(settings: "Settings") -> Iterator[Check]:
    import os

    folder = settings.data_dir
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    detail = f"{folder} {'is' if existing == folder else 'can be made and'} writable" if ok else f"{folder} is not writable"
    yield Check("folders", ok, detail, "" if ok else "set node.data_dir to a folder that this user may write")


def _disk(settings: "Settings") -> Iterator[Check]:
    import shutil

    existing = next(one for one in (settings.data_dir, *settings.data_dir.parents) if one.exists())
    free, reserve = shutil.disk_usage(existing).free, settings.storage.reserve_mb * 2**20
    ok = free > reserve
    remedy = "free some space, or move node.data_dir to a larger disk" if free < max(reserve, LOW_DISK_BYTES) else ""
    yield Check("disk", ok, f"{free / 2**30:.1f} GB free, {reserve / 2**30:.1f} GB kept in reserve", remedy)


def _database(settings: "Settings") -> Iterator[Check]:
    path = sqlite_path(settings)
    if path is not None and not path.exists():
        yield Check("database", True, f"{path} will be made by the first start")
        return
    from dicomnode.registry import Registry

    registry = Registry(settings.database_url)
    if registry.revision() is None:
        yield Check("database", True, "empty: the first start sets it up")
    else:
        yield Check("database", True, f"revision {registry.prepare()}")  # an older one raises and says what to do
    registry.close()


def _folder_destinations(settings: "Settings") -> Iterator[Check]:
    import os

    from dicomnode.roles import wiring

    for one in wiring.destinations(settings):
        if one.path is not None:
            ok = one.path.is_dir() and os.access(one.path, os.W_OK | os.X_OK)
            detail = f"destination {one.name}: {one.path} {'is writable' if ok else 'is no folder that can be written'}"
            yield Check("destinations", ok, detail, "" if ok else f"make it, or mount it: mkdir -p {one.path}")


def _stranded_deliveries(settings: "Settings") -> Iterator[Check]:
    path = sqlite_path(settings)
    if path is not None and not path.exists():
        return
    from dicomnode.registry import Registry
    from dicomnode.roles.deliver import stranded

    registry = Registry(settings.database_url)
    found = stranded(registry, settings) if registry.revision() is not None else {}
    registry.close()
    for name, count in found.items():
        detail = f"{count} objects wait for destination {name}, which the settings no longer name"
        yield Check("deliveries", False, detail, "add it again, or cancel them: dicomnode cancel D…")


def _ports(settings: "Settings") -> Iterator[Check]:
    from dicomnode.roles import wiring
    from dicomnode.roles.state_files import read_states

    where = f"{settings.dicom.host}:{settings.dicom.port}"
    family = socket.AF_INET6 if ":" in settings.dicom.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.dicom.host, settings.dicom.port))
        except OSError as error:
            receivers = [one for one in read_states(wiring.run_folder(settings), ["receive"]) if one["state"] != "stopped"]
            if receivers:
                yield Check("ports", True, f"{where} is held by this node (pid {receivers[0]['pid']})")
            else:
                remedy = "stop the program that holds it, or set dicom.host and dicom.port"
                yield Check("ports", False, f"{where} cannot be opened: {error.strerror}", remedy)
            return
    yield Check("ports", True, f"{where} is free")


def _peers(settings: "Settings") -> Iterator[Check]:
    from dicomnode import network
    from dicomnode.roles import wiring

    called = {one.peer for one in settings.destinations}
    for name, peer in wiring.peers(settings).items():
        try:
            seconds = network.echo(peer, settings.node.ae_title)
            yield Check("peers", True, f"{name} answered C-ECHO after {seconds * 1000:.0f} ms")
        except DicomNodeError as error:
            needed = name in called
            detail = error.what if needed else f"{error.what}; it is no destination, so it need not listen"
            yield Check("peers", not needed, detail, error.remedy if needed else "")
    if not settings.peers:
        remedy = "" if settings.dicom.host in {"127.0.0.1", "::1", "localhost"} else "list who may send under [[peers]]"
        yield Check("peers", True, "none listed: only this machine may send", remedy)


def _pipelines(settings: "Settings") -> Iterator[Check]:
    from dicomnode import engines
    from dicomnode.roles.preparation import missing_pipelines

    for problem in missing_pipelines(settings):
        yield Check("pipelines", False, problem.what, problem.remedy)
    routed = {route.pipeline for route in settings.routes}
    trusted = frozenset(settings.pipelines.trusted)
    for info in engines.find_pipelines(settings.pipeline_folders):
        found = engines.check_pipeline(info.folder, trusted_digests=trusted)
        errors = [one for one in found if one.level == "error"]
        detail = f"{info.name} {info.version}: {errors[0].what if errors else 'complete'}"
        yield Check("pipelines", not errors or info.name not in routed, detail, errors[0].remedy if errors else "")


def _device(settings: "Settings") -> Iterator[Check]:
    import torch

    wanted, there = settings.work.device, torch.cuda.is_available()
    ok = there or not wanted.startswith("cuda")
    using = "cuda" if there and wanted == "auto" else "cpu" if wanted == "auto" else wanted
    yield Check(
        "device",
        ok,
        f"work.device = {wanted!r} uses {using}" if ok else "no CUDA device was found",
        "" if ok else 'set work.device = "cpu"',
    )


def _clock(settings: "Settings") -> Iterator[Check]:
    from dicomnode.settings import machine_timezone

    ok = time.time() > OLDEST_SANE_CLOCK
    yield Check(
        "clock", ok, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "" if ok else "set the machine's clock (NTP)"
    )
    known = settings.node.timezone is not None
    detail = f"times in results are {settings.timezone}" + ("" if known else " (this machine's)")
    remedy = "" if known or machine_timezone() != "UTC" else "set node.timezone if the hospital's clocks do not show UTC"
    yield Check("timezone", True, detail, remedy)


def _certificates(settings: "Settings") -> Iterator[Check]:
    from dicomnode.roles import wiring

    files = wiring.tls_files(settings)
    if files is None:
        yield Check("certificates", True, "none are used: dicom.tls is not set")
        return
    from dicomnode.network.tls import days_valid, server_context

    server_context(files)
    days = days_valid(files)
    remedy = f"have it renewed, then restart: {files.certificate}" if days < CERTIFICATE_DAYS else ""
    yield Check("certificates", True, f"dicom.tls.certificate is valid for {days:.0f} more days", remedy)
    if settings.canary.every_h:
        yield _canarys_certificate(settings, files)


def _canarys_certificate(settings: "Settings", files: "TlsFiles") -> Check:
    """Whether the listener would let the node's own phantom in."""
    from dicomnode.network.client_tls import client_context
    from dicomnode.network.tls import refusal_of, server_context
    from dicomnode.roles import canary

    tls = canary.sender(settings).tls
    assert tls is not None  # noqa: S101 - the listener speaks TLS
    why = refusal_of(client_context(tls), server_context(files))
    if not why:
        return Check("certificates", True, "the canary's certificate is taken")
    remedy = "set canary.certificate and canary.key to a pair that dicom.tls.ca has signed for a client"
    return Check("certificates", False, f"the listener does not take the canary's certificate: {why}", remedy)


def _package(settings: "Settings") -> Iterator[Check]:  # noqa: ARG001
    owners = set(importlib.metadata.packages_distributions().get("dicomnode", []))
    # An editable installation lists no files: it is known by its name alone.
    owners |= {one.name for one in importlib.metadata.distributions(name="dicomnode-ai")}
    ours = Path(__file__).resolve().parents[1]
    ok = owners <= {"dicomnode-ai"}
    remedy = "another library installs a package of the same name: give each its own virtual environment"
    yield Check(
        "package", ok, f"dicomnode at {ours} belongs to {', '.join(sorted(owners)) or 'a source tree'}", "" if ok else remedy
    )


_LOOKS: tuple[tuple[str, "Callable[[Settings], Iterator[Check]]"], ...] = (
    ("settings", _settings),
    ("folders", _folders),
    ("disk", _disk),
    ("database", _database),
    ("ports", _ports),
    ("destinations", _folder_destinations),
    ("deliveries", _stranded_deliveries),
    ("peers", _peers),
    ("pipelines", _pipelines),
    ("device", _device),
    ("clock", _clock),
    ("certificates", _certificates),
    ("package", _package),
)
