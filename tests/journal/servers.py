"""The databases that answer on this machine, what an administrator does there, and a proxy that breaks the
line to them."""

from __future__ import annotations

import os
import select
import socket
import socketserver
import struct
import threading
from contextlib import closing, suppress
from typing import Any
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


def execute(url: str, *statements: str) -> list[Any]:
    """Execute them over a connection of their own, each by itself; the rows of the last one."""
    parts = urlsplit(url)
    login: dict[str, Any] = {"host": parts.hostname, "port": parts.port, "user": parts.username}
    login |= {"password": parts.password or "", "connect_timeout": 5, "autocommit": True}
    if parts.scheme == "postgresql":
        connection: Any = psycopg.connect(dbname=parts.path[1:], **login)
    else:
        connection = pymysql.connect(database=parts.path[1:], **login)
    with closing(connection), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def end_sessions(url: str) -> None:
    """End every session in the database of `url` but this one; return when they are gone."""
    engine = "postgresql" if url.startswith("postgresql") else "mariadb"
    while sessions := execute(url, SESSIONS[engine]):
        for (session,) in sessions:
            with suppress(pymysql.Error):  # it has ended by itself
                execute(url, END_SESSION[engine].format(session))


def administrator(engine: str) -> str:
    """A URL whose user may make databases and users; where no server answers, the test is skipped, or fails
    if N6_STATEFUL_REQUIRE_DATABASES is set, as in CI."""
    try:
        execute(URLS[engine], "SELECT 1")
    except (psycopg.Error, pymysql.Error) as exc:
        complain = pytest.fail if os.environ.get("N6_STATEFUL_REQUIRE_DATABASES") else pytest.skip
        complain(f"no {engine} answers ({exc}): start one, or set N6_STATEFUL_{engine.upper()}=URL")
    return URLS[engine]


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards connections to the database at `url`, and breaks one when a client says `marker`.

    Args:
        how: `lose` what was said and reset the connection; lose the `answer` and reset it; or be `deaf` to
            what is said from there on, and leave the connection open.
    """

    daemon_threads = True

    def __init__(self, url: str, marker: bytes, how: str) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        parts, (host, port) = urlsplit(url), self.socket.getsockname()
        self._server, self._marker, self._how = (parts.hostname, parts.port), marker, how
        self.url = url.replace(f"{parts.hostname}:{parts.port}", f"{host}:{port}")

    def __enter__(self) -> Proxy:
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def finish_request(self, client: Any, _: object) -> None:
        is_broken = False
        with suppress(OSError), socket.create_connection(self._server) as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(1 << 20)
                    is_broken |= source is client and self._marker in data
                    if not data:
                        return
                    if is_broken and (self._how == "lose" or source is server):
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        client.close()
                        return
                    if source is server:
                        client.sendall(data)
                    elif not is_broken or self._how == "answer":
                        server.sendall(data)
