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

import pytest
import requests

from n6_stateful import errors
from n6_stateful.command import failure_of

OF_A_SOURCE = [
    requests.ConnectTimeout("GET https://u:hunter2@h/?key=hunter2\nfailed"), TimeoutError("timed out"),
    OSError(errno.EHOSTUNREACH, "No route"), http.client.IncompleteRead(b""), urllib.error.URLError("gone"),
    socket.gaierror(-2, "not known"), ssl.SSLError("verify failed"), ftplib.Error("550"),  # noqa: S321
    imaplib.IMAP4.error("LOGIN failed"), poplib.error_proto("-ERR"), smtplib.SMTPServerDisconnected("gone"),
]  # fmt: skip
OF_THE_CODE = [
    NameError("x"), FileNotFoundError(errno.ENOENT, "No such file", "/feed"), MemoryError(), SystemExit(0),
    OSError(errno.ENOSPC, "No space left on device"),
]  # fmt: skip


@pytest.mark.parametrize("exc", OF_A_SOURCE, ids=repr)
def test_source(exc: BaseException) -> None:
    """Exceptions of well-known clients are failures of the source, 66, in one line without secrets."""
    code, text = failure_of(exc)
    assert (code, text[:19], "hunter2" in text, "\n" in text) == (66, "the source failed: ", False, False)


@pytest.mark.parametrize("exc", OF_THE_CODE, ids=repr)
def test_code(exc: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """The author has to fix the rest: 1, with the traceback in the log."""
    code, text = failure_of(exc)
    assert (code, text[:24]) == (1, "the collector's own code")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_ours() -> None:
    """Each error of the package has an exit code that the table explains; what nobody raises goes on."""
    classes = [cls for cls in vars(errors).values() if hasattr(cls, "exit_code")]
    assert {failure_of(cls("x"))[0] for cls in classes} == {1, 66, 69, 74, 75, 78, 143} < {*errors.EXIT_CODES}
    with pytest.raises(GeneratorExit):
        failure_of(GeneratorExit())
