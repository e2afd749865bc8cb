"""The command line: every option and subcommand in one place."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n6_stateful.collector import AbstractBaseCollector

# Not given to the parsers themselves: a subcommand's own defaults would hide what stands before it.
DEFAULTS: dict[str, Any] = {
    "config": [],
    "log_level": "info",
    "output": None,
    "dry_run": False,
    "with_output": True,
    "handler": "n6_stateful.command.run:run",
}

EPILOG = """\
exit codes:
  0    done, or nothing new
  1    the collector's own code failed, or a command could not do what it was asked for
  2    usage
  69   the broker (or the spool) cannot be reached, or did not take everything
  74   the state cannot be read or written
  75   another run is on its way: try later
  78   configuration
  130  interrupted (143: terminated); nothing was saved that was not delivered
"""


def parse(prog: str, collector_class: type[AbstractBaseCollector], argv: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; `handler` in it names the function to call, as `module:function`.

    Raises:
        SystemExit: 2 for wrong usage, 0 for `--help` and `--version`.
    """
    return _parser(prog, collector_class, argv).parse_args(argv, argparse.Namespace(**DEFAULTS))


def _parser(
    prog: str, collector_class: type[AbstractBaseCollector], argv: Sequence[str]
) -> argparse.ArgumentParser:
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--config",
        action="append",
        metavar="FILE|DIR",
        help="read the configuration here (repeatable; default: $N6_CONFIG, else /etc/n6 and ~/.n6)",
    )
    common.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        help="log what is at least this grave to standard error (default: info)",
    )
    output = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    output.add_argument(
        "--output",
        metavar="URL",
        help="publish there, whatever the configuration says: amqp://..., amqps://... or spool:PATH",
    )
    dry = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    dry.add_argument(
        "--dry-run", action="store_true", help="download and show; publish nothing, save nothing"
    )

    parser = _Parser(
        prog=prog,
        description=f"Run {collector_class.__name__}, a stateful n6 collector. Without a subcommand: run.",
        epilog=EPILOG,
        parents=[common, output, dry],
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="COMMAND", title="subcommands")

    help = "collect and publish what is new"
    add = commands.add_parser("run", parents=[common, output, dry], help=help, description=help)
    add.set_defaults(handler="n6_stateful.command.run:run")
    help = "try configuration, state and output; publish nothing"
    add = commands.add_parser("check", parents=[common, output], help=help, description=help)
    add.set_defaults(handler="n6_stateful.command.check:check")

    state = commands.add_parser("state", help="look at the state, change it")
    spool = commands.add_parser("spool", help="look at the spool, send it on")
    # Each of their parsers takes its time to build, and most runs, cron's, need none of them.
    if "state" in argv:
        _add_state_actions(state, common)
    if "spool" in argv:
        _add_spool_actions(spool, common)
    return parser


def _add_state_actions(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    def add_action(name: str, help: str, function: str | None = None) -> argparse.ArgumentParser:
        action = actions.add_parser(name, parents=[common], help=help, description=help)
        action.set_defaults(handler=f"n6_stateful.command.state:{function or name}", with_output=False)
        return action

    add = add_action("show", "show the state, where it is, and the generations that are kept")
    add.add_argument("--json", action="store_true", help="as JSON")
    add = add_action("reset", "start again from the default state; the old one is kept")
    add.add_argument("--yes", action="store_true", help="do not ask")
    add = add_action("restore", "go back to an earlier generation")
    add.add_argument("generation", nargs="?", metavar="GENERATION", help="as `show` lists it")
    add.add_argument("--yes", action="store_true", help="do not ask")
    add = add_action("export", "write the state to a file")
    add.add_argument("file", metavar="FILE", help="*.json for JSON, else a pickle; - for standard output")
    add = add_action("import", "take over a state from a file, for instance one of n6's", "import_")
    add.add_argument("file", metavar="FILE", help="a pickle, *.json or n6's *.txt; - for standard input")
    add.add_argument("--yes", action="store_true", help="do not ask")
    add_action("edit", "edit the state as JSON in $EDITOR")


def _add_spool_actions(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    output = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    output.add_argument("--output", metavar="URL", help="the spool, as spool:PATH (default: as configured)")

    def add_action(name: str, help: str, function: str | None = None) -> argparse.ArgumentParser:
        action = actions.add_parser(name, parents=[common, output], help=help, description=help)
        action.set_defaults(handler=f"n6_stateful.command.spool:{function or name}")
        return action

    add = add_action("list", "list the messages that wait in the spool", "list_")
    add.add_argument("--json", action="store_true", help="as JSON, one message a line")
    add.add_argument("--limit", type=_count, metavar="N", help="at most N messages")
    add = add_action("show", "write one message's body to standard output, the rest to standard error")
    add.add_argument("message_id", metavar="MESSAGE_ID", help="as `list` shows it; its beginning will do")
    add = add_action("forward", "send the messages on to RabbitMQ, and drop what it has confirmed")
    add.add_argument("--to", metavar="URL", help="amqp://... or amqps://... (default: as configured)")
    add = add_action("drop", "take one message out for good, unsent: one that no broker takes, say")
    add.add_argument("message_id", metavar="MESSAGE_ID", help="as `list` shows it; its beginning will do")
    add.add_argument("--yes", action="store_true", help="do not ask")


class _Parser(argparse.ArgumentParser):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=_Formatter, **kwargs)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Finds the terminal's width without `shutil`, whose import takes longer than the rest of parsing."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("it has to be 1 or more")
    return count


def _columns() -> int:
    with suppress(ValueError, OSError):
        return int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(sys.stdout.fileno()).columns
    return 80


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
