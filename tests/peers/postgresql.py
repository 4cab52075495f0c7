"""A PostgreSQL server on a free port of the loopback, in a folder of its own, as an unprivileged user."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from tests.peers.processes import PeerProcess
from tests.peers.waiting import free_port, wait_until

# PostgreSQL refuses to run as root; Debian's package makes this user.
UNPRIVILEGED = "postgres"


def binaries() -> Path:
    """The newest server's programs. Raises FileNotFoundError with the remedy."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise FileNotFoundError("PostgreSQL is missing — apt-get install --no-install-recommends postgresql")
    return found[-1].parent


class PostgreSQL:
    """One server. Databases are copies of templates: a fresh one costs milliseconds."""

    def __init__(self) -> None:
        self.port = free_port()
        # Not below pytest's folder, which its owner closes to all others.
        self._folder = Path(tempfile.mkdtemp(prefix="dicomnode-postgresql-"))
        self._process: PeerProcess | None = None
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def __enter__(self) -> Self:
        data = self._folder / "data"
        make = [binaries() / "initdb", "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
        subprocess.run([*self._as_user, *map(str, make)], check=True, capture_output=True, cwd=self._folder)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, again after `kill`; returns when it answers. Nothing here cuts the power, so it need not sync."""
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [*self._as_user, binaries() / "postgres", "-D", self._folder / "data", "-p", str(self.port), *words]
        self._process = PeerProcess(command, self._folder / "log", working_folder=self._folder)
        wait_until(self._answers, timeout_s=30, what=f"PostgreSQL to answer; its log: {self._folder / 'log'}")

    def kill(self) -> None:
        """End it at once: connections are cut, as when the machine that it runs on goes away."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def stop_at_once(self) -> None:
        """`pg_ctl stop -m immediate`: the server ends without a word to its clients and recovers at its next start."""
        if self._process is not None:
            self._process.signal(signal.SIGQUIT)
            self._process.wait(20)
            self._process = None

    def _answers(self) -> bool:
        if self._process is not None and not self._process.running:
            raise RuntimeError(f"PostgreSQL ended at once:\n{self._process.output()[-2000:]}")
        try:
            psycopg.connect(self.url("postgres", driver="")).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str, *, driver: str = "+psycopg") -> str:
        """As `database.url` in the settings has it."""
        return f"postgresql{driver}://tests@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, *, template: str = "template0") -> str:
        """A new database, its URL."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(database), sql.Identifier(template))
        self._execute(statement)
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove it, whoever is still connected."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres", driver=""), autocommit=True) as connection:
            connection.execute(statement)
