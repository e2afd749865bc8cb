"""A TCP proxy in front of a database, which breaks the network at will."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

import sqlalchemy as sa


class Proxy:
    """Forwards connections to the database at `url`.

    Attributes:
        url: the proxy's.
        turns: how often a client has spoken after the server, connecting included: the round trips.
        connections: how many there were.
        takes_new_ones: whether a connection that is made from here on is forwarded; else nobody answers it.
    """

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        port = parsed.port or {"postgresql": 5432, "mysql": 3306}[parsed.get_backend_name()]
        self._server = (parsed.host or "", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=300)
        here = parsed.set(host="127.0.0.1", port=self._listener.getsockname()[1])
        self.url = here.render_as_string(hide_password=False)
        self.turns = 0
        self.connections = 0
        self.takes_new_ones = True
        self._marker: tuple[bytes, str] | None = None
        self._is_down = threading.Event()
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(10)

    def at(self, marker: bytes, how: str) -> None:
        """Break the connection in which a client next says something with `marker` in it.

        Args:
            marker: bytes of a statement.
            how: `lose` what was said, or the `answer` to it, and reset the connection; `swallow` what was
                said, or be `deaf` to the answer, and leave the connection open.
        """
        self._marker = marker, how

    def cut(self) -> None:
        """Reset every connection."""
        while self._sockets:
            _reset(self._sockets.pop())

    def go_down(self) -> None:
        """Drop everything from here on, and say so to nobody."""
        self._is_down.set()

    def come_back(self) -> None:
        """Forward new connections; what was dropped stays lost."""
        self._is_down.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self.turns += 1
                self._sockets.append(client)
                if self._is_down.is_set() or not self.takes_new_ones:
                    continue
                try:
                    server = socket.create_connection(self._server)
                except OSError:  # it was killed
                    _reset(client)
                    continue
                self._sockets.append(server)
                connection = _Connection(client, server)
                for pump in (self._to_server, self._to_client):
                    threading.Thread(target=pump, args=(connection,), daemon=True).start()

    def _to_server(self, connection: _Connection) -> None:
        with suppress(OSError):
            while data := connection.client.recv(1 << 20):
                if not connection.client_spoke:
                    self.turns += 1
                    connection.client_spoke = True
                if self._is_down.is_set():
                    connection.is_dead = True
                if self._marker and self._marker[0] in data:
                    how, self._marker = self._marker[1], None
                    connection.is_deaf = True
                    if how == "lose":
                        connection.reset()
                        return
                    if how == "swallow":
                        connection.is_dead = True
                    connection.answered = how == "answer"
                if not connection.is_dead:
                    connection.server.sendall(data)
            # As a server would see it whose client has gone: by a FIN, unless the line is dead.
            if not connection.is_dead and not self._is_down.is_set():
                connection.server.shutdown(socket.SHUT_WR)

    def _to_client(self, connection: _Connection) -> None:
        with suppress(OSError):
            while data := connection.server.recv(1 << 20):
                connection.client_spoke = False
                if connection.answered:
                    connection.reset()
                    return
                if self._is_down.is_set():
                    connection.is_dead = True
                if not connection.is_deaf and not connection.is_dead:
                    connection.client.sendall(data)
            if not connection.is_deaf and not connection.is_dead:
                connection.client.shutdown(socket.SHUT_WR)


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.client_spoke = False
        self.is_dead = False
        self.is_deaf = False
        self.answered = False

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)  # lets the thread that reads go
    connection.close()
