"""What must hold before any role starts; `dicomnode run` does it once, with the right to run the roles already held."""

from collections.abc import Sequence

import structlog

from dicomnode.domain.errors import SettingsError
from dicomnode.registry import Registry
from dicomnode.roles import presence, wiring
from dicomnode.settings import Settings
from dicomnode.settings_problems import nearest

_log = structlog.get_logger()


def refuse_what_cannot_run(settings: Settings) -> None:
    """Raises SettingsError for settings that name parts, pipelines or certificates that do not exist or cannot be used."""
    for problem in (*wiring.not_built(settings), *missing_pipelines(settings)):
        raise problem
    wiring.tls_context(settings)


def missing_pipelines(settings: Settings) -> list[SettingsError]:
    """One error for each route whose pipeline is in none of the folders."""
    from dicomnode import engines

    routes = wiring.routes(settings)
    if not routes:
        return []
    known = [info.name for info in engines.find_pipelines(settings.pipeline_folders)]
    return [
        SettingsError(
            f"route {route.name!r} names pipeline {route.pipeline!r}, which does not exist or cannot be read",
            f"the nearest one is {nearest(route.pipeline, known)!r}; dicomnode pipelines list names all"
            if known
            else "there are none: add one with dicomnode pipelines add",
        )
        for route in routes
        if route.pipeline not in known
    ]


def prepare_data(settings: Settings, roles: Sequence[str]) -> Registry:
    """Folders, database, and what a crash left in both.

    Raises SettingsError for an older database or another node of this name on it, DatabaseUnreachable.
    """
    wiring.open_store(settings).prepare()
    registry = wiring.open_registry(settings)
    revision = registry.prepare()
    _log.info("database ready", revision=revision)
    if wiring.shares_database(settings):
        presence.refuse_a_twin(settings, registry)
    # Nobody else runs these roles of this node: what is marked as running in one of them was cut off.
    if given_back := registry.node_restarted(roles):
        _log.warning("work of the last run given back", jobs=given_back)
    return registry
