"""A server on this machine that misbehaves as servers on the Internet do."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Feed(ThreadingHTTPServer):
    """Answers a GET of `/WORD` as the method `WORD` of its handler does.

    Attributes:
        requests: the path and the headers of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, str]]] = []

    def url(self, word: str) -> str:
        """Where that answer is."""
        return f"http://127.0.0.1:{self.server_port}/{word}"


@contextmanager
def serving() -> Iterator[Feed]:
    """A feed, for the length of a `with` block."""
    with Feed() as feed:
        thread = threading.Thread(target=feed.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield feed
        finally:
            feed.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Feed
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        word = self.path.strip("/").partition("?")[0]
        self.server.requests.append((word, dict(self.headers)))
        tries = sum(each == word for each, _ in self.server.requests)
        getattr(self, f"answer_{word}")(tries)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_plain(self, tries: int) -> None:
        self.answer(200, b"one record\n")

    def answer_rows(self, tries: int) -> None:
        self.answer(200, b"2026-01-01 00:00:00,one row\n")

    def answer_etag(self, tries: int) -> None:
        tag = '"1"' if tries < 3 else '"2"'
        if self.headers["If-None-Match"] == tag:
            self.answer(304, ETag=tag)
        else:
            self.answer(200, b"version " + tag.encode(), ETag=tag)

    def answer_dated(self, tries: int) -> None:
        date = "Thu, 01 Jan 2026 00:00:00 GMT"
        self.answer(304 if self.headers["If-Modified-Since"] == date else 200, b"dated", Last_Modified=date)

    def answer_missing(self, tries: int) -> None:
        self.answer(404)

    def answer_busy(self, tries: int) -> None:
        self.answer(500 if tries == 1 else 200, b"after all")

    def answer_moved(self, tries: int) -> None:
        self.answer(302, Location="/plain?key=secret")

    def answer_empty(self, tries: int) -> None:
        self.answer(200)

    def answer_gzip(self, tries: int) -> None:
        self.answer(200, gzip.compress(b"unpacked"), Content_Encoding="gzip")

    def answer_charset(self, tries: int) -> None:
        self.answer(200, "zażółć".encode("iso-8859-2"), Content_Type="text/plain; charset=utf-8")
