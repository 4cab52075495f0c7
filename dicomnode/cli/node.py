"""The node itself: `init`, `run`, `status`, `version`."""

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode import __version__
from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption, existing_registry, loaded
from dicomnode.cli.output import print_json, say, table
from dicomnode.domain.clock import utc_now
from dicomnode.domain.errors import DicomNodeError, SettingsError, UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicomnode.registry import Registry
    from dicomnode.roles.state_files import RoleStatus
    from dicomnode.settings import Settings

# Where a service's settings live its data do not (FHS 3.0, 3.7 and 5.8).
SYSTEM_SETTINGS, SYSTEM_DATA = Path("/etc/dicomnode"), Path("/var/lib/dicomnode")


def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the settings file and the data go.")] = Path(),
    data: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Default: DIR/data; /var/lib/dicomnode for /etc/dicomnode.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Write a commented settings file, make the data folder and the database."""
    from dicomnode.cli.settings_template import settings_template
    from dicomnode.roles import wiring

    path = (config or directory / "dicomnode.toml").absolute()
    data_dir = (data or (SYSTEM_DATA if path.parent == SYSTEM_SETTINGS else directory / "data")).absolute()
    if path.exists():
        raise UsageError(f"{path} exists already", "edit it, or name another folder: dicomnode init DIR")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(settings_template(data_dir))
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}", "name a folder that you may write") from None
    try:
        settings = loaded(path)
        wiring.make_folders(settings)
        wiring.open_store(settings).prepare()
        registry = wiring.open_registry(settings)
        revision = registry.prepare()
        registry.close()
        _hand_over(settings.data_dir)
    except (DicomNodeError, OSError):
        path.unlink()  # else the next try, with the cause mended, finds settings that "exist already"
        raise
    if as_json:
        print_json("init", {"config": path, "data_dir": settings.data_dir, "revision": revision})
        return
    say(f"settings  {path}")
    say(f"data      {settings.data_dir}")
    say("next      add your PACS under [[peers]], then: dicomnode check, dicomnode run")


def _hand_over(data_dir: Path) -> None:
    """What root made in the service user's data folder becomes that user's: the service could not write it otherwise.

    systemd does this (StateDirectory=) only where the folder itself is not the user's, which `adduser --home` makes it.
    """
    owner = data_dir.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for made in data_dir.rglob("*"):
            os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=False)


def run(
    role: Annotated[list[str] | None, typer.Option("--role", help="Only this role; may be given more than once.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Run the node in the foreground, all roles unless some are named. SIGTERM ends it in order, SIGHUP reloads settings."""
    from dicomnode import logs
    from dicomnode.roles import preparation, presence, wiring
    from dicomnode.roles.state_files import RoleLocks
    from dicomnode.roles.supervisor import Supervisor

    roles = _asked_roles(role or [])
    if as_json:
        raise UsageError("run has no JSON document", "dicomnode status --json tells how the node is")
    settings = loaded(config)
    logs.configure("node", level=settings.logs.level, form=settings.logs.format)
    preparation.refuse_what_cannot_run(settings)
    wiring.make_folders(settings)
    with RoleLocks(wiring.run_folder(settings), roles):
        registry = preparation.prepare_data(settings, roles)
        with presence.said(settings):
            code = Supervisor(settings, registry, roles).run()
        registry.close()
    raise typer.Exit(int(code))


def _asked_roles(asked: list[str]) -> tuple[str, ...]:
    from dicomnode.roles import LATER_ROLES, ROLES
    from dicomnode.settings_problems import nearest

    for name in asked:
        if name in LATER_ROLES:
            raise UsageError(f"role {name!r} is not built yet", f"leave it out; there are {', '.join(ROLES)}")
        if name not in ROLES:
            raise UsageError(f"there is no role {name!r}", f"the nearest one is {nearest(name, ROLES)!r}")
    return tuple(one for one in ROLES if one in asked) if asked else ROLES


def status(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Show how the node is: its roles, what it holds, what waits."""
    from dicomnode.cli.alarms import alarms_as_json, say_alarms
    from dicomnode.roles import ROLES, wiring
    from dicomnode.roles.alarms import standing
    from dicomnode.roles.state_files import read_states

    settings = loaded(config)
    roles = read_states(wiring.run_folder(settings), ROLES)
    try:
        with closing(existing_registry(settings)) as registry:
            counted = registry.status_counts()
            canary, alarms = _canary(registry, settings), standing(settings, registry, utc_now())
    except UnreachableError as error:
        if roles and not as_json:  # a document holds the error alone
            _without_database(settings, roles, error)
        raise
    payload = {
        "version": __version__,
        "ae_title": settings.node.ae_title,
        "ready": bool(roles) and all(one["state"] == "ready" for one in roles),
        "roles": roles,
        **counted,
        "disk": {"free_bytes": wiring.open_store(settings).free_bytes()},
        "canary": canary,
        "alarms": alarms_as_json(alarms),
    }
    if as_json:
        print_json("status", payload)
        return
    say(f"dicomnode {__version__}  {settings.node.ae_title}  {'ready' if payload['ready'] else 'not ready'}")
    say_alarms(alarms)
    _say_roles(roles)
    counts = counted["counts"]
    if isinstance(counts, dict):
        table(("what", "how many"), [(name, _shown(value)) for name, value in counts.items()])
    if counted["oldest_queued_s"] is not None:
        say(f"oldest queued job waits for {counted['oldest_queued_s']:.0f} s")
    if canary is not None:
        age = "never came out" if canary["age_s"] is None else f"last came out {canary['age_s']:.0f} s ago"
        say(f"the canary {age}{' and is late' if canary['state'] == 'late' else ''}")


def _without_database(settings: "Settings", roles: "Sequence[RoleStatus]", error: UnreachableError) -> None:
    """What can be said all the same; the error and its exit code follow."""
    from dicomnode.cli.alarms import say_alarms
    from dicomnode.roles.alarms import without_database

    say(f"dicomnode {__version__}  {settings.node.ae_title}  not ready")
    say_alarms(without_database(settings, error))
    _say_roles(roles)


def _say_roles(roles: "Sequence[RoleStatus]") -> None:
    table(("role", "pid", "state", "since"), [(one["name"], one["pid"], one["state"], one["started"]) for one in roles])


def _canary(registry: "Registry", settings: "Settings") -> dict[str, object] | None:
    """How long ago a canary last came out whole; None where none is sent."""
    if not settings.canary.every_h:
        return None
    sent_at, answered_at = registry.keeping.canary_marks()
    now = utc_now()
    waits_s = 0.0 if sent_at is None else (now - sent_at).total_seconds()
    answered = answered_at is not None and sent_at is not None and answered_at >= sent_at
    late = not answered and waits_s > settings.canary.within_min * 60
    return {
        "state": "answered" if answered else "late" if late else "waiting",
        "age_s": None if answered_at is None else round((now - answered_at).total_seconds(), 1),
        "sent_at": None if sent_at is None else sent_at.isoformat(),
        "answered_at": None if answered_at is None else answered_at.isoformat(),
    }


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{number} {state}" for state, number in value.items() if number) or "none"
    return str(value)


def version(
    config: ConfigOption = None,  # noqa: ARG001
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Print the version."""
    if as_json:
        print_json("version", {"version": __version__})
    else:
        say(f"dicomnode {__version__}")
