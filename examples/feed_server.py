"""Serves a feed file over HTTP on this machine, as a source on the web would: with Last-Modified and 304.

python examples/feed_server.py FILE [PORT]
"""

from __future__ import annotations

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
        faults: what to do wrong, one for each of the next requests: an HTTP status, or `"cut"` to end the
            connection in the middle of the body.
    """

    daemon_threads = True

    def __init__(self, file: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.file = file
        self.faults: list[int | str] = []

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
        modified = formatdate(self.server.file.stat().st_mtime, usegmt=True)
        if self.headers["If-Modified-Since"] == modified:
            self.send_response(304)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", modified)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


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
        endless.serve_forever()
