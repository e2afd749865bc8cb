"""The console command of a collector: what `MyCollector.run_script()` does.

`parser` has every option and subcommand. A subcommand is a function that takes the collector and the parsed
arguments, and returns the exit code.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from pkgutil import resolve_name
from typing import Any

from n6_stateful import settings
from n6_stateful.collector import AbstractBaseCollector
from n6_stateful.command.failures import failure_of, report
from n6_stateful.command.parser import parse
from n6_stateful.errors import N6StatefulError, StateError
from n6_stateful.interruption import signals_raise
from n6_stateful.masking import masked_url_text

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MOST_HELD = 10_000  # lines of a log that --quiet-repeats holds back; with more, all of them are written


def command_name(collector_class: type[AbstractBaseCollector]) -> str:
    """n6's name for a collector's command: `n6collector_` and the class name, lowercase, without
    `collector`."""
    return "n6collector_" + collector_class.__name__.lower().replace("collector", "")


def main(collector_class: type[AbstractBaseCollector], argv: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        collector_class: the collector; gets the parsed arguments as `cmdline_args`, if it has arguments of
            its own (`get_arg_parser`).
        argv: the arguments; None means those of the process.

    Returns:
        The exit code: one of `n6_stateful.errors.EXIT_CODES`. The error was printed on standard error.
    """
    args = parse(command_name(collector_class), collector_class, sys.argv[1:] if argv is None else argv)
    if not args.handler:
        args.parser.print_help()
        return 2
    _set_up_log(args)
    try:
        with settings.use(_settings(args)), signals_raise():
            return _handled(collector_class, args)
    except BaseException as exc:
        if isinstance(exc, BrokenPipeError) and _silence_closed_stdout():
            return 0
        return report(args, failure_of(exc))


def _handled(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    if hasattr(collector_class, "get_arg_parser"):
        collector_class.cmdline_args = args  # type: ignore[attr-defined]
    collector: Any = collector_class(**collector_class.get_script_init_kwargs())
    if args.needed and not hasattr(collector, args.needed):
        raise N6StatefulError(f"{collector_class.__name__} has no {args.needed}(), which this command needs")
    try:
        code: int = resolve_name(f"n6_stateful.command.{args.handler}")(collector, args)
        print(end="", flush=True)
        return code
    except OSError as exc:  # of a run, the collector's own code raised it
        if args.handler == "run.run" or isinstance(exc, BrokenPipeError):
            raise
        where = exc.filename or "standard output"
        raise StateError(f"{where}: {exc.strerror}; nothing was changed") from exc
    finally:
        if "journal" in vars(collector):  # it was needed
            collector.journal.unlock()


def _silence_closed_stdout() -> bool:
    """Whether nobody reads standard output any more; if so, nothing more is written there."""
    poll = select.poll()
    poll.register(1, 0)  # an error is reported all the same
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return True


class MaskingFormatter(logging.Formatter):
    """Hides the secrets in the URLs that libraries log and tracebacks quote."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines."""
        return masked_url_text(super().format(record))


class JsonFormatter(logging.Formatter):
    """`--log-format json`: one object a line, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry = {"timestamp": datetime.fromtimestamp(record.created, UTC).isoformat()}
        entry |= {
            name: getattr(record, name) for name in ("levelname", "name", "exit_code") if name in vars(record)
        }
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


def _settings(args: Namespace) -> settings.Settings:
    """What the command line says; where it is silent, the settings before (a test's) stay."""
    outer = settings.current()
    return outer._replace(
        config_paths=tuple(args.config) or outer.config_paths,
        output=args.output or outer.output,
        with_output="--output" in args.takes,
        dry_run=bool(args.dry_run),
        limit=args.limit,
    )
