"""A server for tests that says, byte by byte, whatever a test wants, right or wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Say = Callable[[bytes, socket.socket], None]


class Server:
    """Accepts connections, and gives each request to what `says` has for its path.

    Attributes:
        says: by path (without the query): bytes to send, or a function that gets the request and the socket.
        requests: the requests so far, head and body.
    """

    def __init__(self) -> None:
        self.says: dict[str, bytes | Say] = {}
        self.requests: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def url(self, path: str = "/feed", host: str = "127.0.0.1") -> str:
        """The URL of `path` here."""
        return f"http://{host}:{self.port}{path}"

    def end(self) -> None:
        """Answer no more."""
        self._ended.set()
        self._socket.close()

    def wait(self, seconds: float) -> bool:
        """Wait as long as that; whether the server has ended meanwhile."""
        return self._ended.wait(seconds)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (part := connection.recv(65536)):
                    return
                head += part
            self.requests.append(head)
            path = head.split(b" ", 2)[1].partition(b"?")[0].decode()
            say = self.says[path]
            if callable(say):
                say(head, connection)
            else:
                connection.sendall(say)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            while connection.recv(65536):
                pass


@contextmanager
def serving() -> Iterator[Server]:
    """A server for the length of a `with` block."""
    server = Server()
    try:
        yield server
    finally:
        server.end()


def answer(body: bytes = b"", *headers: str, status: str = "200 OK", length: int | None = -1) -> bytes:
    """An answer as it goes over the wire.

    Args:
        body: what follows the headers.
        headers: lines, without their ends.
        status: code and reason.
        length: for Content-Length; -1 for that of the body, None for no such header.
    """
    lines = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(body: bytes, *headers: str, size: int = 7, whole: bool = True) -> bytes:
    """An answer with `Transfer-Encoding: chunked`; not `whole`: without the last chunk."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return answer(
        coded + (b"0\r\n\r\n" if whole else b""), "Transfer-Encoding: chunked", *headers, length=None
    )
