"""The databases that answer on this machine, what an administrator does there, and a proxy that breaks the
line to them."""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest

ENGINES = ("postgresql", "mariadb")
URLS = {
    "postgresql": os.environ.get("N6_STATEFUL_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres"),
    "mariadb": os.environ.get("N6_STATEFUL_MARIADB", "mysql://root@127.0.0.1:3306/mysql"),
}
SESSIONS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid()",
    "mariadb": "SELECT id FROM information_schema.processlist WHERE db = DATABASE() "
    "AND id <> CONNECTION_ID()",
}
END_SESSION = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}


def missing(problem: str) -> NoReturn:
    """Skip, or fail where N6_STATEFUL_REQUIRE_DATABASES is set, as in CI."""
    if os.environ.get("N6_STATEFUL_REQUIRE_DATABASES"):
        pytest.fail(problem)
    pytest.skip(problem)


def connect(url: str) -> Any:
    """A connection that commits by itself."""
    parts = urlsplit(url)
    login: dict[str, Any] = {"host": parts.hostname, "user": parts.username, "port": parts.port}
    login |= {"password": parts.password or ""}
    if parts.scheme == "postgresql":
        return psycopg.connect(autocommit=True, dbname=parts.path[1:], connect_timeout=5, **login)
    return pymysql.connect(autocommit=True, database=parts.path[1:], connect_timeout=5, **login)


def execute(url: str, *statements: str) -> list[Any]:
    """Execute them over a connection of their own; the rows of the last one."""
    connection = connect(url)
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def end_sessions(url: str) -> None:
    """End every session in the database of `url` but this one; return when they are gone."""
    engine = "postgresql" if url.startswith("postgresql") else "mariadb"
    while sessions := execute(url, SESSIONS[engine]):
        for (session,) in sessions:
            with suppress(pymysql.Error):  # it has ended by itself
                execute(url, END_SESSION[engine].format(session))


def administrator(engine: str) -> str:
    """A URL whose user may make databases and users; skips where no server answers."""
    try:
        execute(URLS[engine], "SELECT 1")
    except (psycopg.Error, pymysql.Error) as exc:
        missing(f"no {engine} answers ({exc}): start one, or set N6_STATEFUL_{engine.upper()}=URL")
    return URLS[engine]


class Proxy:
    """Forwards connections to the database at `url`, and breaks one when a client says `marker`.

    Args:
        how: `lose` what was said and reset the connection; lose the `answer` and reset it; or be `deaf` to
            what is said from there on, and leave the connection open.
    """

    def __init__(self, url: str, marker: bytes, how: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{port}")
        self._marker, self._how = marker, how
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                state = {"broken": False}
                for pump in (self._to_server, self._to_client):
                    self._threads.append(threading.Thread(target=pump, args=(client, server, state)))
                    self._threads[-1].start()

    def _to_server(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                if self._marker in data:
                    state["broken"] = True
                    if self._how == "lose":
                        return _reset(client)
                if not state["broken"] or self._how == "answer":
                    server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)
        return None

    def _to_client(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if state["broken"]:
                    return _reset(client)
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        return None


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
