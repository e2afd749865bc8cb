"""The console command of a collector: what `MyCollector.run_script()` does.

Each subcommand is a function that takes the collector class and the parsed arguments, and returns the exit
code. `parser` knows them all.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from n6_stateful import settings
from n6_stateful.command.failures import Failure, failure_of, tell
from n6_stateful.command.parser import OUTPUT, parse
from n6_stateful.command.run import run
from n6_stateful.command.streams import make_streams_safe
from n6_stateful.config import masked_url_text
from n6_stateful.interruption import signals_raise

if TYPE_CHECKING:
    from argparse import Namespace

    from n6_stateful.collector import AbstractBaseCollector

LOGGER = logging.getLogger(__name__)
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def command_name(collector_class: type[AbstractBaseCollector]) -> str:
    """n6's name for a collector's command: `n6collector_` and the class name, lowercase, without
    `collector`."""
    return "n6collector_" + collector_class.__name__.lower().replace("collector", "")


def main(collector_class: type[AbstractBaseCollector], argv: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        collector_class: the collector.
        argv: the arguments; None means those of the process.

    Returns:
        The exit code: one of `n6_stateful.errors.EXIT_CODES`. The error was printed on standard error.
    """
    stdout = make_streams_safe()
    args = parse(command_name(collector_class), collector_class, sys.argv[1:] if argv is None else argv)
    try:
        set_up_log(args)
        with settings.use(_settings(args)), signals_raise():
            code: int = args.handler(collector_class, args)
    except BaseException as exc:
        return tell(args, failure_of(exc))
    sys.stdout.flush()
    # Whoever reads no further (EPIPE) has what he wanted.
    if stdout and stdout.error and stdout.error.errno != errno.EPIPE:
        failure = Failure(code or 1, f"standard output cannot be written: {stdout.error.strerror}")
        if args.handler is not run or args.dry_run:
            return tell(args, failure)
        LOGGER.warning(failure.text)
    return code


class MaskingFormatter(logging.Formatter):
    """Hides the secrets in the URLs that libraries log and tracebacks quote."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines."""
        return masked_url_text(super().format(record))


def set_up_log(args: Namespace) -> None:
    """Log to standard error, unless something else has been set up."""
    formatter: logging.Formatter = MaskingFormatter(LOG_FORMAT)
    if args.log_format == "json":
        from n6_stateful.command.json_log import MaskingJsonFormatter

        formatter = MaskingJsonFormatter()
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=args.log_level.upper(), handlers=[handler])


def _settings(args: Namespace) -> settings.Settings:
    """What the command line says; where it is silent, what was set before (a test's wishes) stays."""
    outer = settings.current()
    return settings.Settings(
        config_paths=tuple(args.config) or outer.config_paths,
        output=args.output or outer.output,
        with_output=OUTPUT in args.options,
        dry_run=args.dry_run,
    )
