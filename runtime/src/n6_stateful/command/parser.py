"""The command line: every option and subcommand in one place."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from n6_stateful.command.check import check
from n6_stateful.command.run import run
from n6_stateful.duration import seconds
from n6_stateful.errors import EXIT_CODES

if TYPE_CHECKING:
    from n6_stateful.collector import AbstractBaseCollector

Handler = Callable[[type["AbstractBaseCollector"], argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Without what follows `://`: behind a misspelt option it may be a password."""
        shown, mark, _ = message.partition("://")
        super().error(shown + mark + ("***" if mark else ""))


def _not_empty(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _count(text: str) -> int:
    count = int(text) if text.isdecimal() else 0
    if count < 1:
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return min(count, sys.maxsize)


def _duration(text: str) -> int:
    try:
        return seconds(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _option(name: str, **kwargs: Any) -> _Parser:
    # Without a default, so that no parser overwrites what another has found.
    parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument(name, **kwargs)
    return parser


# These count wherever they stand on the command line.
CONFIG = _option(
    "--config",
    action="append",
    type=_not_empty,
    metavar="FILE|DIR",
    help="read the configuration here (repeatable; default: $N6_CONFIG, else /etc/n6 and ~/.n6)",
)
LOG_LEVEL = _option(
    "--log-level",
    choices=["debug", "info", "warning", "error"],
    help="minimum severity to log to standard error (default: info)",
)
LOG_FORMAT = _option(
    "--log-format",
    choices=["text", "json"],
    help="how to log: for people, or a JSON object a line (default: text)",
)
OUTPUT = _option(
    "--output",
    type=_not_empty,
    metavar="URL",
    help="the output, whatever the configuration says: amqp://..., amqps://... or spool:PATH",
)
DRY_RUN = _option("--dry-run", action="store_true", help="download and show; publish nothing, save nothing")
DEFAULTS: dict[str, Any] = {
    "config": [],
    "log_level": "info",
    "log_format": "text",
    "output": None,
    "dry_run": False,
}


def parse(prog: str, collector_class: type[AbstractBaseCollector], argv: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; `handler` in it is the function to call.

    Raises:
        SystemExit: 2 for wrong usage, 0 for `--help` and `--version`.
    """
    options = [CONFIG, LOG_LEVEL, LOG_FORMAT, OUTPUT, DRY_RUN]
    args = argparse.Namespace(**DEFAULTS, prog=prog, handler=run, options=options)
    usage = "%(prog)s [OPTION ...] [COMMAND ...]"
    anywhere = _Parser(prog=prog, usage=usage, parents=options, add_help=False, allow_abbrev=False)
    _, rest = anywhere.parse_known_args(argv, args)
    parser = _parser(prog, collector_class, options, rest)
    parser.parse_args(rest, args)
    for name, option in {"--output": OUTPUT, "--dry-run": DRY_RUN}.items():
        if getattr(args, name[2:].replace("-", "_")) and option not in args.options:
            parser.error(f"{name} does not apply to this subcommand")
    return args


def _parser(
    prog: str, collector_class: type[AbstractBaseCollector], options: list[_Parser], argv: Sequence[str]
) -> _Parser:
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())
    parser = _Parser(
        prog=prog,
        description=f"Run {collector_class.__name__}, a stateful n6 collector. Without a subcommand: run.",
        epilog=f"exit codes:\n{codes}",
        parents=options,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="COMMAND", title="subcommands")
    _add(commands, "run", run, "collect and publish what is new", OUTPUT, DRY_RUN)
    _add(commands, "check", check, "try configuration, state, output and metrics; publish nothing", OUTPUT)
    for name, help, add in (
        ("runs", "list what the runs did, the newest first", _add_runs),
        ("status", "tell a monitoring system how it is: one line, exit code 0, 1, 2 or 3", _add_status),
    ):
        if name in argv:
            add(commands, help)
        else:
            commands.add_parser(name, help=help)
    state = commands.add_parser("state", help="look at the state, change it")
    spool = commands.add_parser("spool", help="look at the spool, send it on")
    # Each of their parsers takes its time to build, and most runs, cron's, need none of them.
    if "state" in argv:
        _add_state_actions(state.add_subparsers(metavar="ACTION", required=True))
    if "spool" in argv:
        _add_spool_actions(spool.add_subparsers(metavar="ACTION", required=True))
    return parser


def _add(commands: Any, name: str, handler: Handler, help: str, *options: _Parser) -> _Parser:
    """Add a subcommand that takes these options beside those that every one takes."""
    parents = [CONFIG, LOG_LEVEL, LOG_FORMAT, *options]
    parser: _Parser = commands.add_parser(name, parents=parents, help=help, description=help)
    parser.set_defaults(handler=handler, options=options)
    return parser


def _add_runs(commands: Any, help: str) -> None:
    from n6_stateful.command.runs import runs

    add = _add(commands, "runs", runs, help)
    add.add_argument("--last", type=_count, metavar="N", help="the last N of them")
    add.add_argument("--since", type=_duration, metavar="DURATION", help="not those before: 90m, 7d, ...")
    add.add_argument("--json", action="store_true", help="as JSON, one run a line")
    add.add_argument("--plot", type=Path, metavar="FILE", help="draw them into FILE (.svg, .png, .pdf)")


def _add_status(commands: Any, help: str) -> None:
    from n6_stateful.command.status import status

    add = _add(commands, "status", status, help, OUTPUT)
    for name, default, what in (
        ("--warning", "2h", "WARNING if the last good run was earlier, or a run or a message takes longer"),
        ("--critical", "6h", "CRITICAL for the same reasons"),
        ("--no-data", "7d", "WARNING if nothing new has come for so long"),
    ):
        text = f"{what} (default: {default})"
        add.add_argument(name, type=_duration, metavar="DURATION", default=seconds(default), help=text)


def _add_state_actions(actions: Any) -> None:
    from n6_stateful.command import state

    add = _add(actions, "show", state.show, "show the state, where it is, and the generations that are kept")
    add.add_argument("--json", action="store_true", help="as JSON")
    add = _add(actions, "reset", state.reset, "start again from the default state; the old one is kept")
    add.add_argument("--yes", action="store_true", help="do not ask")
    add = _add(actions, "restore", state.restore, "go back to an earlier generation")
    add.add_argument(
        "generation", nargs="?", metavar="GENERATION", help="its number, or the beginning of its id"
    )
    add.add_argument("--yes", action="store_true", help="do not ask")
    add = _add(actions, "export", state.export, "write the state to a file")
    add.add_argument("file", metavar="FILE", help="*.json for JSON, else a pickle; - for standard output")
    add = _add(actions, "import", state.import_, "take over a state from a file, for instance one of n6's")
    add.add_argument("file", metavar="FILE", help="a pickle, *.json or n6's *.txt; - for standard input")
    add.add_argument("--yes", action="store_true", help="do not ask")
    _add(actions, "edit", state.edit, "edit the state as JSON in $EDITOR")
    add = _add(actions, "schema", state.schema, "print the SQL that makes the table for states in a database")
    engines = ("postgresql", "mysql")
    add.add_argument("engine", nargs="?", choices=engines, help="default: that of [state] url")


def _add_spool_actions(actions: Any) -> None:
    from n6_stateful.command import spool

    an_id = "as `list` shows it; its beginning will do"
    add = _add(actions, "list", spool.list_, "list the messages that wait in the spool", OUTPUT)
    add.add_argument("--json", action="store_true", help="as JSON, one message a line")
    add.add_argument("--limit", type=_count, metavar="N", help="at most N messages")
    help = "write one message's body to standard output, the rest to standard error"
    add = _add(actions, "show", spool.show, help, OUTPUT)
    add.add_argument("message_id", metavar="MESSAGE_ID", help=an_id)
    help = "send the messages on to RabbitMQ, and drop what it has confirmed"
    add = _add(actions, "forward", spool.forward, help, OUTPUT)
    add.add_argument(
        "--to", type=_not_empty, metavar="URL", help="amqp://... or amqps://... (default: as configured)"
    )
    help = "take one message out for good, unsent: one that no broker takes, say"
    add = _add(actions, "drop", spool.drop, help, OUTPUT)
    add.add_argument("message_id", metavar="MESSAGE_ID", help=an_id)
    add.add_argument("--yes", action="store_true", help="do not ask")


class _Version(argparse.Action):
    """`--version`: that of the collector's distribution and that of the runtime."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show the versions and exit")

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        from importlib.metadata import entry_points

        from n6_stateful import __version__

        scripts = entry_points(group="console_scripts", name=parser.prog)
        own = "".join(f"{script.dist.name} {script.dist.version}, " for script in scripts if script.dist)
        print(f"{parser.prog}: {own}n6-stateful-runtime {__version__}")
        parser.exit()
