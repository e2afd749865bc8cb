"""The databases of the tests: the ones that run on this machine, and servers of the tests' own, which they
may stop, kill and starve."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa

from tests.broker.private_node import free_ports, make_certificates, until

ENGINES = ("postgresql", "mariadb")
URLS = {
    "postgresql": os.environ.get("N6_STATEFUL_POSTGRESQL", "postgresql://postgres@127.0.0.1/postgres"),
    "mariadb": os.environ.get("N6_STATEFUL_MARIADB", "mysql://root@127.0.0.1/mysql"),
}
HOW_TO_START = {
    "postgresql": "apt-get install postgresql; pg_ctlcluster 15 main start; let 127.0.0.1 in pg_hba.conf be "
    "trusted, or set N6_STATEFUL_POSTGRESQL=postgresql://...",
    "mariadb": "apt-get install mariadb-server; mariadbd-safe &; let root@127.0.0.1 in, or set "
    "N6_STATEFUL_MARIADB=mysql://...",
}
# Ends its process group when its standard input ends, which happens when the tests' process does.
_GUARD = '"$@" </dev/null & read -r _; kill -KILL 0'
_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


def missing(problem: str) -> NoReturn:
    """Skip, or fail where N6_STATEFUL_REQUIRE_DATABASES is set, as in CI."""
    if os.environ.get("N6_STATEFUL_REQUIRE_DATABASES"):
        pytest.fail(problem)
    pytest.skip(problem)


def execute(url: str, *statements: str) -> list[Any]:
    """Execute them over a connection of their own; the rows of the last one."""
    driver = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}[
        sa.make_url(url).get_backend_name()
    ]
    engine = sa.create_engine(
        sa.make_url(url).set(drivername=driver), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    rows: list[Any] = []
    with engine.connect() as connection:
        for statement in statements:
            result = connection.exec_driver_sql(statement)
            rows = list(result.all()) if result.returns_rows else []
    return rows


def end_sessions(url: str) -> None:
    """End every session in the database of `url`, but not the one that does it."""
    if url.startswith("postgresql"):
        execute(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        return
    ours = "FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    for (session,) in execute(url, f"SELECT id {ours}"):
        with suppress(sa.exc.OperationalError):  # it has ended by itself
            execute(url, f"KILL {session}")


class Server:
    """A server of the tests' own; everything of it is below a directory that goes with it.

    Args:
        engine: `postgresql` or `mariadb`.
        primary: a PostgreSQL that it follows as its standby.
        disk: the size of a disk of its own, like `100m`, which only root can give it.

    Attributes:
        url: of a database on it, whose user may do anything, from any address.
        port: where it listens, on every address.
        directory: where everything of it is.
        certificates: `ca.pem`, which has signed the server's own for `localhost`, and `wrong-ca.pem`.
    """

    def __init__(self, engine: str, primary: Server | None = None, disk: str = "") -> None:
        # Not below pytest's own, which is closed to other users.
        self._directory = tempfile.TemporaryDirectory(prefix="n6-stateful-")
        self.directory = directory = Path(self._directory.name)
        self._disk = disk
        self._as_nobody: Sequence[str] = ()
        if disk:
            self._call("mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", directory)
        if os.geteuid() == 0:  # neither server runs as root
            self._as_nobody = _NOBODY
            shutil.chown(directory, "nobody", "nogroup")
        self._data = directory / "data"
        self._log = directory / "log"
        self._primary = primary
        self.certificates = directory / "certificates"
        make_certificates(self.certificates)
        self.certificates.chmod(0o755)
        if self._as_nobody:
            for path in self.certificates.iterdir():
                shutil.chown(path, "nobody", "nogroup")
        (self.port,) = free_ports(1)
        self._guard: subprocess.Popen[bytes] | None = None
        made = self._prepare_postgresql() if engine == "postgresql" else self._prepare_mariadb(directory)
        self.url, self._argv = made
        self.start()

    def _prepare_postgresql(self) -> tuple[str, list[str]]:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) + [
            Path(path).parent for path in [shutil.which("postgres")] if path
        ]
        if not found:
            missing("a server of the tests' own needs initdb and postgres: apt-get install postgresql")
        programs = found[0]
        if self._primary:
            follow = ("-d", f"host=127.0.0.1 port={self._primary.port} user=n6", "--write-recovery-conf")
            self._call(
                programs / "pg_basebackup", "-D", self._data, *follow, "--checkpoint=fast", "--no-sync"
            )
        else:
            self._call(programs / "initdb", "-D", self._data, "-U", "n6", "-A", "trust", "--no-sync")
            with (self._data / "pg_hba.conf").open("a") as file:
                file.write("host all all all trust\n")
        settings = {
            **{"port": self.port, "listen_addresses": "*", "unix_socket_directories": ""},
            **{"max_connections": 250, "shared_buffers": "16MB", "log_min_messages": "fatal"},
            **{"ssl": "on", "ssl_cert_file": self.certificates / "server.pem"},
            **{"ssl_key_file": self.certificates / "server.key"},
        }
        argv = [str(programs / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return f"postgresql://n6:secret@127.0.0.1:{self.port}/postgres", argv

    def _prepare_mariadb(self, directory: Path) -> tuple[str, list[str]]:
        install, server = (
            shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
            for name in ("mariadb-install-db", "mariadbd")
        )
        if not install or not server:
            missing("a server of the tests' own needs mariadbd: apt-get install mariadb-server")
        data = ("--no-defaults", f"--datadir={self._data}")
        self._call(install, *data, "--skip-test-db", "--auth-root-authentication-method=normal")
        first = directory / "first.sql"
        first.write_text(
            "CREATE DATABASE IF NOT EXISTS n6;\nCREATE USER IF NOT EXISTS n6@'%' IDENTIFIED BY 'secret';\n"
            "GRANT ALL ON *.* TO n6@'%' WITH GRANT OPTION;\n"
        )
        return f"mysql://n6:secret@127.0.0.1:{self.port}/n6", [
            *(server, *data, f"--port={self.port}", "--bind-address=0.0.0.0", "--skip-name-resolve"),
            *(f"--socket={directory}/socket", f"--init-file={first}", "--max-connections=250"),
            f"--ssl-cert={self.certificates}/server.pem",
            f"--ssl-key={self.certificates}/server.key",
            *("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=16M", "--max-allowed-packet=2M"),
        ]

    def _call(self, *argv: str | Path) -> None:
        done = subprocess.run(
            [*self._as_nobody, *argv], cwd="/", capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start it; return when it takes connections."""
        with self._log.open("ab") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", _GUARD, "sh", *self._as_nobody, *self._argv],
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers, f"the server; see {self._log}")

    def _answers(self) -> bool:
        try:
            execute(self.url, "SELECT 1")
        except sa.exc.OperationalError:
            return False
        return True

    def _processes(self) -> list[int]:
        assert self._guard is not None
        found, parents = [], [self._guard.pid]
        while parents:
            parent = parents.pop()
            with suppress(OSError):
                children = [
                    int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
                ]
                found += children
                parents += children
        return found

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL; return when nothing of it is left."""
        if self._guard is None:
            return
        processes = self._processes()
        self.send_signal(signal.SIGKILL)
        self._guard.communicate(timeout=30)
        self._guard = None
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "the end of the server")

    def close(self) -> None:
        """`kill`, and leave nothing."""
        self.kill()
        if self._disk:
            self._as_nobody = ()
            self._call("umount", self.directory)
        self._directory.cleanup()

    def restart(self) -> None:
        """`kill`, then `start`."""
        self.kill()
        self.start()


def answers(url: str) -> bool:
    """Whether somebody listens at `url`."""
    parsed = sa.make_url(url)
    port = parsed.port or {"postgresql": 5432, "mysql": 3306}[parsed.get_backend_name()]
    for _ in range(5):
        with suppress(OSError):
            socket.create_connection((parsed.host or "127.0.0.1", port), timeout=5).close()
            return True
        time.sleep(0.1)
    return False
