"""What ends a command: an error, as one clear line and an exit code, or an answer to its question."""

from __future__ import annotations

import errno
import logging
import sys
from argparse import Namespace
from traceback import walk_tb
from typing import NamedTuple

from n6_stateful.errors import INTERRUPTED, N6StatefulError, SourceError, Terminated
from n6_stateful.health import printable
from n6_stateful.masking import masked_url_text

LOGGER = logging.getLogger(__name__)

LONGEST_SHOWN = 500
NEXT = "the next run goes on from the last saved state"

# What the standard library and well-known clients raise for a network or a server; by name, so that nothing
# needs to be imported.
NETWORK_ERRORS = frozenset(
    """
    aiohttp.ClientError botocore.BotoCoreError botocore.ClientError builtins.ConnectionError
    builtins.TimeoutError ftplib.Error http.HTTPException httpx.HTTPError httpx.InvalidURL httpx.StreamError
    imaplib.IMAP4.error paramiko.SSHException poplib.error_proto pycurl.error requests.RequestException
    smtplib.SMTPException socket.gaierror socket.herror ssl.SSLError urllib.URLError urllib3.HTTPError
    xmlrpc.Error
    """.split()  # noqa: SIM905 - a list would take a line for each
)
# For these Python has no class of its own.
NETWORK_NUMBERS = (errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH)


class Failure(NamedTuple):
    """Why a command failed."""

    exit_code: int
    text: str


def failure_of(exc: BaseException) -> Failure:
    """The exit code and the text for `exc`. The log gets the traceback: as an error if the collector's own
    code must be fixed, else at level DEBUG.

    Raises:
        BaseException: `exc` itself, if a collector does not raise such things.
    """
    level = logging.DEBUG
    if isinstance(exc, N6StatefulError):
        failure = Failure(exc.exit_code, masked_url_text(str(exc)))
    elif isinstance(exc, KeyboardInterrupt):
        failure = Failure(INTERRUPTED, f"interrupted; {NEXT}")
    elif isinstance(exc, Terminated):
        failure = Failure(exc.exit_code, f"terminated by SIGTERM; {NEXT}")
    elif _is_network_error(exc):
        text = " ".join(masked_url_text(str(exc)).split())[:LONGEST_SHOWN]
        failure = Failure(SourceError.exit_code, f"the source failed: {type(exc).__name__}: {text}; {NEXT}")
    elif isinstance(exc, Exception | SystemExit):
        level = logging.ERROR
        how = f"called sys.exit({exc.code!r})" if isinstance(exc, SystemExit) else "failed"
        failure = Failure(1, f"the collector's own code {how} ({_place(exc)}, see the traceback); {NEXT}")
    else:
        raise exc
    LOGGER.log(level, "exit code %d comes from this:", failure.exit_code, exc_info=exc)
    return failure


def _is_network_error(exc: BaseException) -> bool:
    names = {f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}" for cls in type(exc).__mro__}
    return bool(names & NETWORK_ERRORS) or (type(exc) is OSError and exc.errno in NETWORK_NUMBERS)


def _place(exc: BaseException) -> str:
    """The exception's type, and the last place in the collector's own code. Not its text, which may quote
    what was downloaded."""
    place = ""
    for frame, line in walk_tb(exc.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] not in ("n6_stateful", *sys.stdlib_module_names):
            place = f" in {module}, line {line}"
    return type(exc).__name__ + place


def report(args: Namespace, failure: Failure) -> int:
    """Print the failure, or log it if the log is JSON; return the exit code."""
    text = "\n".join(map(printable, failure.text.split("\n")))
    if args.handler == "runs.status":  # a monitoring system reads one line of standard output
        print("UNKNOWN -", " ".join(text.split()).replace("|", "/"))
        return 3
    if args.log_format == "json":
        LOGGER.error(text, extra={"exit_code": failure.exit_code})
    else:
        print(f"{args.prog}: error: {text}", file=sys.stderr)
    return failure.exit_code


def confirm(args: Namespace, question: str) -> None:
    """Return if `--yes` was given, or whoever is at the terminal agrees.

    Raises:
        N6StatefulError: otherwise.
    """
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise N6StatefulError(
            f"nothing was changed; give --yes, as there is no terminal to ask at: {question}"
        )
    print(question, end=" [y/N] ", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise N6StatefulError("nothing was changed")
