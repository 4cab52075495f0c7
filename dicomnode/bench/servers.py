"""A PostgreSQL server for a bench, where one is installed: on a port of the loopback, in a folder of its own, syncs and all."""

import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.bench.processes import MeasurementFailed, free_port

PLACES = Path("/usr/lib/postgresql")
MISSING = "PostgreSQL is not installed — apt-get install --no-install-recommends postgresql"
_UNPRIVILEGED = "postgres"  # the server refuses to run as root; Debian's package makes this user
_STARTS_WITHIN_S = 60.0


def installed() -> Path | None:
    """The folder of the newest server's programs."""
    found = sorted(PLACES.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A server with an empty database; its URL. Raises MeasurementFailed."""
    programs = installed()
    if programs is None:
        raise MeasurementFailed(MISSING, "install it, or measure SQLite alone")
    as_user: list[str] = []
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        user = pwd.getpwnam(_UNPRIVILEGED)
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    port, data = free_port(), folder / "data"
    make = [programs / "initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
    made = subprocess.run([*as_user, *map(str, make)], capture_output=True, text=True, cwd=folder, check=False)
    if made.returncode:
        raise MeasurementFailed(f"PostgreSQL cannot be set up: {made.stderr.strip()[-300:]}", "look at the folder's rights")
    listen = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    command = [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(port), *listen]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as server:
        try:
            _wait(programs, port, server)
            yield f"postgresql+psycopg://bench@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()


def _wait(programs: Path, port: int, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _STARTS_WITHIN_S
    ask = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ask, check=False).returncode:
        if server.poll() is not None or time.monotonic() > until:
            raise MeasurementFailed("PostgreSQL does not start", "look whether its port is free")
        time.sleep(0.05)
