"""Serves a feed over HTTP on this machine, as a source on the web would: with ETag, Last-Modified, 304.

    python examples/feed_server.py FILE [PORT]

The feed grows when the file does; the files beside it are served, too.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit


class FeedServer(ThreadingHTTPServer):
    """Answers every GET with a file as it is at that moment.

    Attributes:
        file: the feed.
        faults: what to do wrong, one for each of the next requests: an HTTP status, `"cut"` to end the
            connection in the middle of the body, or `""` for nothing.
        answers: the status of each answer so far.
        clock: the time, seconds since the epoch.
    """

    daemon_threads = True

    def __init__(self, file: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.file = file
        self.faults: list[int | str] = []
        self.answers: list[int] = []
        self.clock: Callable[[], float] = time.time

    @property
    def url(self) -> str:
        """Where the feed is."""
        return f"http://127.0.0.1:{self.server_port}/{self.file.name}"

    def answer(self, name: str, parameters: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for the last part of a URL's path and its parameters."""
        file = self.file.with_name(name or "-")
        if not file.is_file():
            return 404, {}, b""
        return 200, {"Last-Modified": formatdate(file.stat().st_mtime, usegmt=True)}, file.read_bytes()


class _Handler(BaseHTTPRequestHandler):
    server: FeedServer

    def do_GET(self) -> None:
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        url = urlsplit(self.path)
        name = url.path.rpartition("/")[2]
        status, headers, body = self.server.answer(name, dict(parse_qsl(url.query)))
        headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
        if self.headers["If-None-Match"] == headers["ETag"]:
            status, body = 304, b""
        else:
            headers["Content-Length"] = str(len(body))
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault else body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The time, for the header `Date`."""
        return formatdate(self.server.clock() if timestamp is None else timestamp, usegmt=True)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Remember the status, without logging."""
        self.server.answers.append(int(code))

    def log_message(self, format: str, *args: object) -> None:
        """Do not log errors, either: they are intended."""


@contextmanager
def serving(file: Path, kind: type[FeedServer] = FeedServer) -> Iterator[FeedServer]:
    """A server of `file` for the length of a `with` block."""
    with kind(file) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def main(kind: type[FeedServer] = FeedServer) -> None:
    """Serve the file that the command line names, until Ctrl+C."""
    with kind(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0) as server:
        print(server.url, flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
