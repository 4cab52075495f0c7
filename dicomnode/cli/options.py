"""What stands after every command: `--json`, `--config FILE`, `--debug`; and what they lead to."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.domain.errors import DatabaseUnreachable, SettingsError

if TYPE_CHECKING:
    from dicomnode.registry import Registry
    from dicomnode.settings import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file; else $DICOMNODE_CONFIG, ./dicomnode.toml, /etc/dicomnode/…"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


def loaded(config: Path | None, *, required: bool = True) -> "Settings":
    """The settings. Raises SettingsError."""
    from dicomnode.settings import load_settings

    return load_settings(config, required=required)


def existing_registry(settings: "Settings") -> "Registry":
    """The rows of a node that was set up. Raises DatabaseUnreachable where there are none, SettingsError for older ones."""
    from dicomnode.registry import Registry

    remedy = "start the node once with dicomnode run, or run dicomnode init"
    path = sqlite_path(settings)
    if path is not None and not path.is_file():
        raise DatabaseUnreachable(f"there is no database at {path}", remedy)
    registry = Registry(settings.database_url)
    if registry.revision() is None:
        raise DatabaseUnreachable("the database is empty", remedy)
    return registry


def sqlite_path(settings: "Settings") -> Path | None:
    """The database's file; None for a server."""
    from dicomnode.roles.wiring import sqlite_file

    return sqlite_file(settings.database_url)


def our_peer(settings: "Settings", name: str) -> str:
    """`name` if it is one of the peers. Raises SettingsError that names the nearest one."""
    from dicomnode.settings_problems import nearest

    names = [peer.name for peer in settings.peers]
    if name not in names:
        remedy = f"the nearest one is {nearest(name, names)!r}" if names else "add a [[peers]] table to the settings"
        raise SettingsError(f"there is no peer {name!r} in the settings", remedy)
    return name
