"""Rows and files: `db upgrade`, `db backup`, `fsck`."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.options import ConfigOption, DebugOption, JsonOption, existing_registry, loaded, sqlite_path
from dicomnode.cli.output import print_error, print_json, say, table
from dicomnode.domain.errors import CorruptInstance, StorageError, UsageError

if TYPE_CHECKING:
    from dicomnode.storage import Store

app = typer.Typer(help="The database: upgrade and backup.", pretty_exceptions_enable=False)


@app.command()
def upgrade(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001 - read where errors end
) -> None:
    """Bring the database to this version's form. Stop the node before."""
    from dicomnode.roles import ROLES, wiring
    from dicomnode.roles.state_files import RoleLocks

    settings = loaded(config)
    wiring.make_folders(settings)
    with RoleLocks(wiring.run_folder(settings), ROLES):
        registry = wiring.open_registry(settings)
        revision = registry.upgrade()
        registry.close()
    if as_json:
        print_json("db.upgrade", {"revision": revision})
    else:
        say(f"database is at revision {revision}")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; must not exist.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Copy the database as of now; safe while the node runs."""
    settings = loaded(config)
    registry = existing_registry(settings)
    revision = registry.revision()
    registry.close()
    source = sqlite_path(settings)
    if source is None:
        raise UsageError("only SQLite databases are copied by this command", "use pg_dump for PostgreSQL")
    if file.exists():
        raise UsageError(f"{file} exists already", "name a new file")
    try:
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as ours, closing(sqlite3.connect(file)) as copy:
            ours.backup(copy)
    except sqlite3.Error as error:
        file.unlink(missing_ok=True)
        raise StorageError(f"the copy {file} could not be written: {error}", "name a file on a disk with space") from None
    if as_json:
        print_json("db.backup", {"revision": revision, "file": file.absolute(), "size_bytes": file.stat().st_size})
    else:
        say(f"{file}  revision {revision}")


def fsck(
    mend: Annotated[
        bool, typer.Option("--mend", help="Move files that no row names into quarantine, hold series whose files are damaged.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Compare stored files with the database, digests included; safe while the node runs."""
    from dicomnode import storage
    from dicomnode.roles import wiring

    settings = loaded(config)
    registry, store = existing_registry(settings), wiring.open_store(settings)
    known = (storage.KnownFile(path, size, digest) for path, size, digest in registry.known_files())
    report = storage.fsck(store, known, verify_digests=True, jobs_at_work=registry.jobs_at_work)
    damaged = (*report.missing, *report.corrupt)
    studies, held = registry.studies_of_files(damaged), registry.hold_damaged(damaged) if mend and damaged else []
    registry.close()
    mended = [_put_aside(store, orphan) for orphan in report.orphans] if mend else []
    ok = not (report.missing or report.corrupt) and (mend or not report.orphans)
    if as_json:
        payload = {"ok": ok, "orphans": report.orphans, "missing": report.missing, "corrupt": report.corrupt, "mended": mended}
        print_json("fsck", {**payload, "studies": studies, "held": held, "looked_at": report.looked_at})
    else:
        say(f"{report.looked_at} files: {'all as they should be' if ok else 'not as they should be'}")
        rows = [(what, path) for what in ("orphans", "missing", "corrupt") for path in getattr(report, what)]
        if rows:
            table(("what", "file"), rows)
    if not ok:
        lost, orphans = len(report.missing) + len(report.corrupt), len(report.orphans)
        again = f"let the sender send {', '.join(studies[:20])} again" if studies else "let the sender send these studies again"
        remedy = again if lost else "dicomnode fsck --mend puts them aside"
        print_error(f"{lost} files are missing or damaged, {orphans} are known to no row", remedy)
        raise typer.Exit(1)


def _put_aside(store: "Store", orphan: Path) -> Path | None:
    """An orphan goes to quarantine; one without a head was cut off while it was written and holds nothing. Its new path."""
    try:
        return store.quarantine(orphan, "orphan")
    except CorruptInstance:
        store.discard(orphan)
        return None
