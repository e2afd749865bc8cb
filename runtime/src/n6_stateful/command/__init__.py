"""The console command of a collector: what `MyCollector.run_script()` does.

Each subcommand is a function in a module of this package, imported only when it is called. A function
takes the collector class and the parsed arguments, and returns the exit code.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from n6_stateful import settings
from n6_stateful.errors import N6StatefulError, Terminated

if TYPE_CHECKING:
    from argparse import Namespace
    from types import FrameType

    from n6_stateful.collector import AbstractBaseCollector

LOGGER = logging.getLogger("n6_stateful")
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
INTERRUPTED = 130


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
        The exit code: 0, or the one of the error that was printed on standard error.
    """
    from n6_stateful.command.parser import parse

    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal has no letters for must not end a command that only shows it.
        sys.stdout.reconfigure(errors="backslashreplace")
    args = parse(command_name(collector_class), collector_class, sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=args.log_level.upper(), format=LOG_FORMAT)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _call(collector_class, args)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def _call(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    module, _, function = args.handler.partition(":")
    try:
        with settings.use(_settings(args)):
            handler = getattr(import_module(module), function)
            code: int = handler(collector_class, args)
            sys.stdout.flush()
            return code
    except N6StatefulError as exc:
        return _fail(collector_class, str(exc), exc.exit_code)
    except KeyboardInterrupt:
        return _fail(collector_class, "interrupted: nothing was saved that was not delivered", INTERRUPTED)
    except Terminated as exc:
        return _fail(
            collector_class, "terminated by SIGTERM: nothing was saved that was not delivered", exc.exit_code
        )
    except BrokenPipeError:
        # Whoever read our output has gone; let the interpreter's own flush at exit find nothing to do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        LOGGER.exception("the collector's own code failed")
        return _fail(
            collector_class, "the collector's own code failed (see the traceback); the state was not saved", 1
        )


def _settings(args: Namespace) -> settings.Settings:
    """What the command line says; where it is silent, what was in force (a test's wishes) stays."""
    outer = settings.current()
    return settings.Settings(
        config_paths=tuple(args.config) or outer.config_paths,
        output=args.output or outer.output,
        with_output=args.with_output,
        dry_run=args.dry_run,
    )


def _fail(collector_class: type[AbstractBaseCollector], text: str, code: int) -> int:
    sys.stdout.flush()
    print(f"{command_name(collector_class)}: error: {text}", file=sys.stderr)
    return code
