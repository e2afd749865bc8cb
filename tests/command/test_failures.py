"""Which exit code an exception ends a command with."""

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
import urllib.error
import urllib.request
from collections.abc import Callable

import httpx
import pytest
import requests

from n6_stateful import errors
from n6_stateful.command.failures import failure_of

NOBODY = "http://127.0.0.1:9/feed?key=hunter2"


class TestNetwork:
    """66: the network, or the server."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda: requests.get(NOBODY, timeout=9),
            lambda: requests.get("127.0.0.1/no-scheme?key=hunter2", timeout=9),
            lambda: httpx.get(NOBODY),
            lambda: httpx.get("http://127.0.0.1:x/?key=hunter2"),
            lambda: urllib.request.urlopen(NOBODY),
            lambda: http.client.HTTPConnection("127.0.0.1", 9).request("GET", "/"),
            lambda: socket.getaddrinfo("no-such-host.invalid", 80),
        ],
    )
    def test_clients(self, call: Callable[[], object]) -> None:
        """What well-known clients raise is the source's failure, in one line without secrets."""
        with pytest.raises(Exception) as caught:
            call()
        failure = failure_of(caught.value)
        assert (failure.exit_code, failure.text[:19]) == (66, "the source failed: ")
        assert "hunter2" not in failure.text
        assert "\n" not in failure.text

    @pytest.mark.parametrize(
        "exc",
        [
            ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
            TimeoutError("timed out"),
            OSError(errno.EHOSTUNREACH, "No route to host"),
            ssl.SSLCertVerificationError("certificate verify failed"),
            ftplib.error_perm("550 no such file"),  # noqa: S321
            imaplib.IMAP4.error("LOGIN failed"),
            poplib.error_proto("-ERR"),
            smtplib.SMTPServerDisconnected("gone"),
            http.client.IncompleteRead(b""),
            urllib.error.URLError("x"),
        ],
        ids=repr,
    )
    def test_standard_library(self, exc: BaseException) -> None:
        """So is what the standard library raises."""
        assert failure_of(exc).exit_code == 66


class TestOthers:
    """Everything else."""

    @pytest.mark.parametrize(
        "exc",
        [
            NameError("x"),
            FileNotFoundError(errno.ENOENT, "No such file", "/feed"),
            OSError(errno.ENOSPC, "No space left on device"),
            MemoryError(),
            SystemExit(0),
        ],
        ids=repr,
    )
    def test_own_code(self, exc: BaseException, caplog: pytest.LogCaptureFixture) -> None:
        """The author has to fix the rest: 1, never 0, with the traceback as an error in the log."""
        failure = failure_of(exc)
        assert (failure.exit_code, failure.text[:24]) == (1, "the collector's own code")
        assert [record.levelno for record in caplog.records] == [logging.ERROR]

    def test_ours(self) -> None:
        """Each error of the package has an exit code that the table explains."""
        classes = [cls for cls in vars(errors).values() if hasattr(cls, "exit_code")]
        codes = {cls.__name__: failure_of(cls("x")).exit_code for cls in classes}
        assert set(codes.values()) <= set(errors.EXIT_CODES)
        assert (codes["SourceError"], codes["PublishError"], codes["StateError"]) == (66, 69, 74)
        assert (codes["StateLockedError"], codes["ConfigError"], codes["Terminated"]) == (75, 78, 143)

    def test_unknown(self) -> None:
        """What no collector raises goes on."""
        with pytest.raises(GeneratorExit):
            failure_of(GeneratorExit())
