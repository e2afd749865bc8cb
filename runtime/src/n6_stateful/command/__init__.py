"""The console command of a collector: what `MyCollector.run_script()` does, and how it ends.

`parser` has every option and subcommand. A subcommand is a function that takes the collector and the parsed
arguments, and returns the exit code; what it raises becomes one clear line and an exit code here.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from n6_stateful import settings
from n6_stateful.collector import AbstractBaseCollector
from n6_stateful.command.parser import parse
from n6_stateful.errors import INTERRUPTED, N6StatefulError, SourceError, StateError, Terminated
from n6_stateful.health import printable
from n6_stateful.interruption import signals_raise
from n6_stateful.masking import masked_url_text

LOGGER = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MOST_HELD = 10_000  # lines of a log that --quiet-repeats holds back; with more, all of them are written
# Methods of a collector, by the group of subcommands, or the one, that needs them.
NEEDED = {"state": "current_state", "outbox": "send", "state.forget": "without_item"}
LONGEST_SHOWN = 500
NEXT = "the next run goes on from the last saved state"

# Where the exceptions of the standard library's and of well-known clients are defined; by name, so that
# nothing needs to be imported.
CLIENTS = "ftplib http imaplib poplib smtplib socket ssl urllib xmlrpc"
CLIENTS += " aiohttp botocore httpx paramiko pycurl requests urllib3"
# For these Python has no class of its own.
NETWORK_NUMBERS = (errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH)


def command_name(collector_class: type[AbstractBaseCollector]) -> str:
    """n6's name for a collector's command: `n6collector_` and the class name, lowercase, without
    `collector`."""
    return "n6collector_" + collector_class.__name__.lower().replace("collector", "")


def main(collector_class: type[AbstractBaseCollector], argv: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        collector_class: the collector; gets the parsed arguments as `cmdline_args`, those of its own
            (`get_arg_parser`) among them.
        argv: the arguments; None means those of the process.

    Returns:
        The exit code: one of `n6_stateful.errors.EXIT_CODES`. The error was printed on standard error.
    """
    args = parse(command_name(collector_class), collector_class, sys.argv[1:] if argv is None else argv)
    if not args.handler:
        args.parser.print_help()
        return 2
    _set_up_log(args)
    outer = settings.current()  # a test's; it stays where the command line is silent
    paths, output = tuple(args.config) or outer.config_paths, args.output or outer.output
    asked = settings.Settings(paths, output, "--output" in args.takes, bool(args.dry_run))
    try:
        with settings.use(asked), signals_raise():
            return _handled(collector_class, args)
    except BaseException as exc:
        if isinstance(exc, BrokenPipeError) and _stdout_is_closed():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing more is written there
            return 0
        return report(args, *failure_of(exc, is_run=args.handler == "runs.run"))


def _handled(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    collector_class.cmdline_args = args  # type: ignore[attr-defined]
    collector: Any = collector_class(**collector_class.get_script_init_kwargs())
    module, _, function = args.handler.partition(".")
    for needed in (NEEDED.get(module), NEEDED.get(args.handler)):
        if needed and not hasattr(collector, needed):
            name = collector_class.__name__
            raise N6StatefulError(f"{name} has no {needed}(), which this command needs; nothing was changed")
    try:
        handle = getattr(import_module(f"n6_stateful.command.{module}"), function)
        code: int = handle(collector, args)
        print(end="", flush=True)
        return code
    finally:
        if "journal" in vars(collector):  # it was needed
            collector.journal.unlock()


def failure_of(exc: BaseException, *, is_run: bool = True) -> tuple[int, str]:
    """The exit code and the text for `exc`. The log gets the traceback: as an error if the collector's own
    code must be fixed, else at level DEBUG.

    Args:
        exc: what ended the command.
        is_run: whether the collector's own code can have raised an OSError.

    Raises:
        BaseException: `exc` itself, if a collector does not raise such things.
    """
    level, code = logging.DEBUG, getattr(exc, "exit_code", 1)
    if isinstance(exc, N6StatefulError):
        text = masked_url_text(str(exc))
    elif isinstance(exc, KeyboardInterrupt):
        code, text = INTERRUPTED, f"interrupted; {NEXT}"
    elif isinstance(exc, Terminated):
        text = f"terminated by SIGTERM; {NEXT}"
    elif isinstance(exc, OSError) and not is_run:
        where = exc.filename or "standard output"
        code, text = StateError.exit_code, f"{where}: {exc.strerror}; nothing was changed"
    elif _is_network_error(exc):
        shown = " ".join(masked_url_text(str(exc)).split())[:LONGEST_SHOWN]
        code, text = SourceError.exit_code, f"the source failed: {type(exc).__name__}: {shown}; {NEXT}"
    elif isinstance(exc, Exception | SystemExit):  # its text may quote what was downloaded
        level = logging.ERROR
        how = f"called sys.exit({exc.code!r})" if isinstance(exc, SystemExit) else "failed"
        code, text = 1, f"the collector's own code {how} ({type(exc).__name__}, see the traceback); {NEXT}"
    else:
        raise exc
    LOGGER.log(level, "exit code %d comes from this:", code, exc_info=exc)
    return code, text


def _is_network_error(exc: BaseException) -> bool:
    is_clients = {cls.__module__.partition(".")[0] for cls in type(exc).__mro__} & set(CLIENTS.split())
    is_known = isinstance(exc, ConnectionError | TimeoutError)
    return bool(is_clients) or is_known or (type(exc) is OSError and exc.errno in NETWORK_NUMBERS)


def report(args: Namespace, code: int, text: str) -> int:
    """Print the failure, or log it if the log is JSON; return the exit code."""
    text = "\n".join(map(printable, text.split("\n")))
    if args.handler == "runs.status":  # a monitoring system reads one line of standard output
        print("UNKNOWN -", " ".join(text.split()).replace("|", "/"))
        return 3
    if args.log_format == "json":
        LOGGER.error(text, extra={"exit_code": code})
    else:
        print(f"{args.prog}: error: {text}", file=sys.stderr)
    return code


def confirm(args: Namespace, question: str) -> None:
    """Return if `--yes` was given, or whoever is at the terminal agrees.

    Raises:
        N6StatefulError: otherwise.
    """
    if not args.yes and not sys.stdin.isatty():
        raise N6StatefulError(f"nothing was changed; give --yes, as there is no terminal to ask: {question}")
    if not args.yes and input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise N6StatefulError("nothing was changed")


def _stdout_is_closed() -> bool:
    """Whether nobody reads standard output any more, which a broken connection does not mean."""
    poll = select.poll()
    poll.register(1, 0)  # an error is reported all the same
    return bool(poll.poll(0))


class MaskingFormatter(logging.Formatter):
    """Hides the secrets in the URLs that libraries log and tracebacks quote."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines."""
        return masked_url_text(super().format(record))


class JsonFormatter(logging.Formatter):
    """`--log-format json`: one object a line, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = vars(record)
        entry = {"timestamp": datetime.fromtimestamp(record.created, UTC).isoformat()}
        entry |= {name: fields[name] for name in ("levelname", "name", "exit_code") if name in fields}
        entry["message"] = masked_url_text(record.getMessage())
        if record.exc_info:
            entry["exc_info"] = masked_url_text(self.formatException(record.exc_info))
        return json.dumps(entry)


def _set_up_log(args: Namespace) -> None:
    """Log to standard error, unless something else has been set up; with `--quiet-repeats` into
    `args.held_log`, which writes there when it is flushed."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if args.log_format == "json" else MaskingFormatter(LOG_FORMAT))
    if args.quiet_repeats:
        from logging.handlers import MemoryHandler

        handler = args.held_log = MemoryHandler(MOST_HELD, flushLevel=logging.CRITICAL + 1, target=handler)
    logging.basicConfig(level=args.log_level.upper(), handlers=[handler])
