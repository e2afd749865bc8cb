"""What a person and a scheduler are told of an error."""

from __future__ import annotations

import errno
import ftplib
import http.client
import imaplib
import logging
import poplib
import smtplib
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from email.message import Message

import httpx
import pytest
import requests

from n6_stateful.command.failures import failure_of
from n6_stateful.errors import (
    EXIT_CODES,
    BusyError,
    ConfigError,
    N6StatefulError,
    PublishError,
    SourceError,
    StateError,
    StateLockedError,
    Terminated,
)

REFUSED = "http://127.0.0.1:9/feed?key=hunter2"


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that gives one answer, whatever it is asked, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


class TestSource:
    """Errors of the network and of the server."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda: requests.get(REFUSED, timeout=9),
            lambda: requests.get("127.0.0.1/no-scheme?key=hunter2", timeout=9),
            lambda: httpx.get(REFUSED),
            lambda: httpx.get("http://127.0.0.1:x/?key=hunter2"),
            lambda: urllib.request.urlopen(REFUSED),
            lambda: http.client.HTTPConnection("127.0.0.1", 9).request("GET", "/"),
            lambda: ftplib.FTP("no-such-host.invalid"),  # noqa: S321
            lambda: socket.create_connection(("127.0.0.1", 9)),
            lambda: socket.getaddrinfo("no-such-host.invalid", 80),
        ],
    )
    def test_unreachable(self, call: Callable[[], object]) -> None:
        """Nobody listens, or there is no such host."""
        failure = failure_of(raised(call))
        assert failure.exit_code == SourceError.exit_code
        assert failure.text.startswith("the source failed: ")
        assert "hunter2" not in failure.text
        assert "\n" not in failure.text

    @pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"])
    @pytest.mark.parametrize("client", ["requests", "httpx", "urllib", "http.client"])
    def test_wrong_answer(self, client: str, answer: bytes) -> None:
        """A server that hangs up, talks nonsense, or says no."""

        def call() -> None:
            if client == "requests":
                requests.get(f"http://{place}/?key=hunter2", timeout=9).raise_for_status()
            elif client == "httpx":
                httpx.get(f"http://{place}/?key=hunter2").raise_for_status()
            elif client == "urllib":
                try:
                    urllib.request.urlopen(f"http://{place}/?key=hunter2")
                except urllib.error.HTTPError as exc:
                    exc.close()
                    raise
            else:
                with closing(http.client.HTTPConnection(place)) as connection:
                    connection.request("GET", "/?key=hunter2")
                    with connection.getresponse() as response:
                        raise http.client.HTTPException(f"{response.status} of http://{place}/?key=hunter2")

        with answering(answer) as place:
            failure = failure_of(raised(call))
        assert failure.exit_code == 66
        assert "hunter2" not in failure.text

    @pytest.mark.parametrize(
        "exc",
        [
            ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
            BrokenPipeError(errno.EPIPE, "Broken pipe"),
            TimeoutError("timed out"),
            OSError(errno.ENETUNREACH, "Network is unreachable"),
            OSError(errno.EHOSTUNREACH, "No route to host"),
            ssl.SSLCertVerificationError("certificate verify failed"),
            ftplib.error_perm("550 no such file"),  # noqa: S321
            imaplib.IMAP4.error("LOGIN failed"),
            poplib.error_proto("-ERR"),
            smtplib.SMTPServerDisconnected("gone"),
            urllib.error.ContentTooShortError("short", ("", Message())),
        ],
    )
    def test_standard_library(self, exc: BaseException) -> None:
        """What the standard library raises for networks and servers."""
        assert failure_of(exc).exit_code == 66

    def test_traceback(self, caplog: pytest.LogCaptureFixture) -> None:
        """The traceback is there for whoever asks for it."""
        caplog.set_level(logging.DEBUG)
        failure_of(raised(lambda: socket.create_connection(("127.0.0.1", 9))))
        (record,) = caplog.records
        assert record.levelno == logging.DEBUG
        assert record.exc_info


class TestOwnCode:
    """Errors that the collector's author has to mend."""

    @pytest.mark.parametrize(
        "exc",
        [
            NameError("x"),
            FileNotFoundError(errno.ENOENT, "No such file", "/feed"),
            PermissionError(errno.EACCES, "Permission denied", "/feed"),
            OSError(errno.ENOSPC, "No space left on device"),
            ValueError("x"),
            EOFError(),
            SystemExit(0),
            SystemExit("text"),
        ],
    )
    def test_told(self, exc: BaseException, caplog: pytest.LogCaptureFixture) -> None:
        """They end with 1, and with the traceback as an error in the log."""
        failure = failure_of(exc)
        assert failure.exit_code == 1
        assert "the collector's own code" in failure.text
        assert [record.levelno for record in caplog.records] == [logging.ERROR]


class TestOurs:
    """Errors that the package raises on purpose."""

    def test_in_table(self) -> None:
        """Each has an exit code that the table explains."""
        for cls in (
            N6StatefulError,
            ConfigError,
            SourceError,
            StateError,
            StateLockedError,
            BusyError,
            PublishError,
        ):
            assert cls.exit_code in EXIT_CODES
        assert failure_of(Terminated()).exit_code == 143
        assert failure_of(KeyboardInterrupt()).exit_code == 130

    def test_masked(self) -> None:
        """A collector's own SourceError may quote a URL."""
        failure = failure_of(SourceError("https://feed.example/x?key=hunter2: an empty answer"))
        assert failure == (66, "https://feed.example/x?***: an empty answer")

    def test_unknown(self) -> None:
        """What no collector raises goes on."""
        with pytest.raises(GeneratorExit):
            failure_of(GeneratorExit())
