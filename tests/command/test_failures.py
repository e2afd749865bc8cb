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
import urllib.request
from collections.abc import Callable

import pytest
import requests

from n6_stateful import errors
from n6_stateful.command import failure_of

NOBODY = "http://127.0.0.1:9/feed?key=hunter2"


@pytest.mark.parametrize(
    "call",
    [
        lambda: requests.get(NOBODY, timeout=9),
        lambda: urllib.request.urlopen(NOBODY),
        lambda: http.client.HTTPConnection("127.0.0.1", 9).request("GET", "/"),
        lambda: socket.getaddrinfo("no-such-host.invalid", 80),
    ],
)
def test_clients(call: Callable[[], object]) -> None:
    """What well-known clients raise is the source's failure, 66, in one line without secrets."""
    with pytest.raises(Exception) as caught:
        call()
    code, text = failure_of(caught.value)
    assert (code, text[:19]) == (66, "the source failed: ")
    assert ("hunter2" in text, "\n" in text) == (False, False)


@pytest.mark.parametrize(
    ("code", "exc"),
    [
        (66, ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")),
        (66, TimeoutError("timed out")),
        (66, OSError(errno.EHOSTUNREACH, "No route to host")),
        (66, ssl.SSLCertVerificationError("certificate verify failed")),
        (66, ftplib.error_perm("550 no such file")),  # noqa: S321
        (66, imaplib.IMAP4.error("LOGIN failed")),
        (66, poplib.error_proto("-ERR")),
        (66, smtplib.SMTPServerDisconnected("gone")),
        (66, http.client.IncompleteRead(b"")),
        (1, NameError("x")),
        (1, FileNotFoundError(errno.ENOENT, "No such file", "/feed")),
        (1, OSError(errno.ENOSPC, "No space left on device")),
        (1, MemoryError()),
        (1, SystemExit(0)),
    ],
    ids=repr,
)
def test_whose_fault(code: int, exc: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """What the network raises is 66; the author has to fix the rest: 1, with the traceback in the log."""
    exit_code, text = failure_of(exc)
    assert (exit_code, "the collector's own code" in text) == (code, code == 1)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * (code == 1)


def test_ours() -> None:
    """Each error of the package has an exit code that the table explains; what nobody raises goes on."""
    classes = [cls for cls in vars(errors).values() if hasattr(cls, "exit_code")]
    codes = {cls.__name__: failure_of(cls("x"))[0] for cls in classes}
    assert set(codes.values()) <= set(errors.EXIT_CODES)
    assert (codes["SourceError"], codes["PublishError"], codes["StateError"]) == (66, 69, 74)
    assert (codes["StateLockedError"], codes["ConfigError"], codes["Terminated"]) == (75, 78, 143)
    with pytest.raises(GeneratorExit):
        failure_of(GeneratorExit())
