"""The download, from a server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import stamina
from n6_stateful.testing import CollectorHarness, MakeCollectorHarness

from <<cookiecutter.collector_name>>.collector import <<cookiecutter.collector_name|class_name>>

CONFIG = """
[<<cookiecutter.collector_name>>]
source = <<cookiecutter.source_provider>>
cache_dir = /replaced
url = {url}?key=secret
"""


class Server(HTTPServer):
    """Answers each GET with the next of `answers`; 304 if the body is the one the client has."""

    answers: list[tuple[int, bytes]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        tag = f'"{body.decode()}"'
        if status == 200 and self.headers["If-None-Match"] == tag:
            status, body = 304, b""
        self.send_response(status)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Let what is tried again be tried at once."""
    with stamina.set_testing(True, attempts=4):
        yield


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def harness(make_collector_harness: MakeCollectorHarness, server: Server) -> CollectorHarness:
    return make_collector_harness(<<cookiecutter.collector_name|class_name>>, CONFIG.format(url=server.url))


def test_a_page_is_published_once_until_it_changes(server: Server, harness: CollectorHarness) -> None:
    server.answers = [(200, b"old"), (200, b"old"), (200, b"new")]
    assert [harness.run(...).bodies for _ in range(3)] == [[b"old"], [], [b"new"]]


def test_an_error_that_passes_is_tried_again(server: Server, harness: CollectorHarness) -> None:
    server.answers = [(500, b""), (503, b""), (200, b"data")]
    assert harness.run(...).bodies == [b"data"]


def test_an_error_that_stays_is_one_clear_line_and_leaves_the_state(
    server: Server, harness: CollectorHarness
) -> None:
    server.answers = [(404, b"")]
    result = harness.run(...)
    assert (result.exit_code, result.messages, harness.state) == (1, [], None)
    assert "404" in result.text
    assert "secret" not in result.text
