"""Serves a feed file over HTTP on this machine, as a source on the web would: with ETag, Last-Modified, 304.

    python examples/feed_server.py FILE [PORT]

The feed grows when the file does.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FeedServer(ThreadingHTTPServer):
    """Answers every GET with the file as it is at that moment.

    Attributes:
        faults: what to do wrong, one for each of the next requests: an HTTP status, `"cut"` to end the
            connection in the middle of the body, or `"cut unannounced"` to do so without having told the
            body's length.
        answers: the status of each answer so far.
    """

    daemon_threads = True

    def __init__(self, file: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.file = file
        self.faults: list[int | str] = []
        self.answers: list[int] = []

    @property
    def url(self) -> str:
        """Where the feed is."""
        return f"http://127.0.0.1:{self.server_port}/{self.file.name}"


class _Handler(BaseHTTPRequestHandler):
    server: FeedServer

    def do_GET(self) -> None:
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        body = self.server.file.read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        unchanged = self.headers["If-None-Match"] == etag
        self.send_response(304 if unchanged else 200)
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", formatdate(self.server.file.stat().st_mtime, usegmt=True))
        if fault != "cut unannounced" and not unchanged:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not unchanged:
            self.wfile.write(body[: len(body) // 2] if fault else body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Remember the status, and say nothing."""
        self.server.answers.append(int(code))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of an error, either: it was asked for."""


@contextmanager
def serving(file: Path) -> Iterator[FeedServer]:
    """A server of `file` for the length of a `with` block."""
    with FeedServer(file) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    with FeedServer(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0) as endless:
        print(endless.url, flush=True)
        try:
            endless.serve_forever()
        except KeyboardInterrupt:
            print()
