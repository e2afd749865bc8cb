"""A server for tests that sends, byte by byte, whatever a test wants, right or wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any


class Server(ThreadingTCPServer):
    """Gives each request to what `says` has for its path; for a `with` block.

    Attributes:
        says: by path (without the query): bytes to send, or a function that gets the request and the socket.
        requests: the requests so far, head and body.
        wait: wait as many seconds; whether the server has ended meanwhile.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), BaseRequestHandler)
        self.says: dict[str, bytes | Callable[[bytes, socket.socket], None]] = {}
        self.requests: list[bytes] = []
        self.port = self.server_address[1]
        self._ended = threading.Event()
        self.wait = self._ended.wait
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str = "/feed", host: str = "127.0.0.1") -> str:
        """The URL of `path` here."""
        return f"http://{host}:{self.port}{path}"

    def server_close(self) -> None:
        self._ended.set()
        self.shutdown()
        super().server_close()

    def finish_request(self, connection: Any, client_address: Any) -> None:
        with suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (part := connection.recv(65536)):
                    return
                head += part
            self.requests.append(head)
            say = self.says[head.split(b" ", 2)[1].partition(b"?")[0].decode()]
            if callable(say):
                say(head, connection)
            else:
                connection.sendall(say)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            while connection.recv(65536):
                pass


def answer(body: bytes = b"", *headers: str, status: str = "200 OK", length: int | None = -1) -> bytes:
    """An answer as it goes over the wire: its headers are lines without their ends, its `length`, for
    Content-Length, is -1 for that of the body, None for no such header."""
    lines = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(body: bytes, *headers: str, size: int = 7, whole: bool = True) -> bytes:
    """An answer with `Transfer-Encoding: chunked`; not `whole`: without the last chunk."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    coded += b"0\r\n\r\n" if whole else b""
    return answer(coded, "Transfer-Encoding: chunked", *headers, length=None)
