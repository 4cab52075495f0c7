"""Which revision is the database at, and how does it come to the newest? Alembic does the work, silently.

Alembic is imported where it is used: `dicomnode status` and its like ask for the revision only and start twice as fast.
"""

import io
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from dicomnode.domain.errors import SettingsError
from dicomnode.registry.engine import Database
from dicomnode.settings import shipped

if TYPE_CHECKING:
    from alembic.config import Config


def _config() -> "Config":
    from alembic.config import Config

    # No alembic.ini: nothing of Alembic's configures logging or prints.
    config = Config(output_buffer=io.StringIO(), stdout=io.StringIO())
    config.set_main_option("script_location", str(shipped("db")).replace("%", "%%"))
    return config


def head() -> str:
    """The newest revision that this software knows."""
    from alembic.script import ScriptDirectory

    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None  # noqa: S101 - the software always carries its first migration
    return revision


def revision_of(connection: Connection) -> str | None:
    """The database's revision; None if it never had one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def migrate(database: Database, *, only_if_empty: bool) -> str:
    """Bring the database to the newest revision; returns it.

    All in one transaction, so that of several roles that start at once one migrates and the others find it done.

    SettingsError if the database is newer than the software, is not ours, or (with `only_if_empty`) is older.
    """
    newest = head()
    with database.migrate() as connection:
        current = revision_of(connection)
        if current == newest:
            return newest
        if current is None and inspect(connection).get_table_names():
            raise SettingsError(
                "the database holds tables of something else", "give dicomnode a database of its own in database.url"
            )
        if current is not None and current not in _known_revisions():
            raise SettingsError(
                f"the database has revision {current}, which this version of dicomnode does not know",
                "install the version that made it, or a newer one",
            )
        if current is not None and only_if_empty:
            raise SettingsError(
                f"the database has revision {current}, this version of dicomnode needs {newest}",
                "make a backup, then run `dicomnode db upgrade`",
            )
        from alembic import command

        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return newest


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
