"""The command line: one tree of parsers, with every option and subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from n6_stateful import __version__
from n6_stateful.collector import AbstractBaseCollector
from n6_stateful.converters import seconds
from n6_stateful.errors import EXIT_CODES

SUBCOMMANDS = ("run", "check", "state", "outbox", "runs", "status")
OF_RUN = ("--output", "--dry-run", "--limit", "--quiet-repeats")  # these may stand before `run`, too


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Hide what follows `://`: after a misspelt option that may be a password."""
        shown, mark, _ = message.partition("://")
        super().error(shown + mark + ("***" if mark else ""))


def _not_empty(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return int(text)


def _duration(text: str) -> int:
    try:
        return seconds(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def parse(prog: str, collector_class: type[AbstractBaseCollector], argv: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; `handler` names the function to call, empty for a group of subcommands, and
    `needed` a method that the collector must have for it.

    Raises:
        SystemExit: 2 for wrong usage, 0 for `--help` and `--version`.
    """
    if not {*SUBCOMMANDS, "-h", "--help", "--version"} & set(argv):
        argv = ["run", *argv]  # an argument of the collector's own may come first
    args = argparse.Namespace(prog=prog, log_level="info", log_format="text", output=None)
    args.dry_run = args.quiet_repeats = args.limit = None
    _tree(prog, collector_class).parse_args(argv, args)
    args.config = [path for depth in range(3) for path in getattr(args, f"config_{depth}", [])]
    for name in OF_RUN:
        if getattr(args, name[2:].replace("-", "_")) and name not in args.takes:
            args.parser.error(f"{name} does not apply to this subcommand")
    if args.handler == "run.run" and args.limit and not args.dry_run:
        args.parser.error("--limit needs --dry-run")
    if args.handler == "outbox.drop" and not (args.id or args.refused or args.all):
        args.parser.error("give an ID, --refused or --all")
    return args


def _tree(prog: str, collector_class: type[AbstractBaseCollector]) -> _Parser:
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())
    parser = _Parser(
        prog=prog,
        description=f"Run {collector_class.__name__}, an n6 collector. Without a subcommand: run.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"%(prog)s: n6-stateful-runtime {__version__}"
    parser.add_argument("--version", action="version", version=version)
    _add_options(parser, 0, OF_RUN)
    commands = parser.add_subparsers(metavar="COMMAND", title="subcommands")
    # Without __init__, which may need the arguments. In n6 it is an instance or a class method.
    own = getattr(collector_class.__new__(collector_class), "get_arg_parser", _Parser)
    leaf = partial(_leaf, commands, own, "")
    leaf("run", "run.run", "collect and deliver what is new", *OF_RUN)
    leaf("check", "run.check", "try configuration, state, output and metrics; publish nothing", "--output")
    _add_reports(leaf)
    group = _group(commands, "state", "inspect or change the state")
    _add_state(partial(_leaf, group, own, "current_state"))
    group = _group(commands, "outbox", "inspect or deliver the messages that wait")
    _add_outbox(partial(_leaf, group, own, "send"))
    return parser


def _add_options(parser: _Parser, depth: int, names: Sequence[str]) -> None:
    """Add options without defaults, so that a subparser overwrites nothing that stands before it."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    help = "read the configuration here (repeatable; default: $N6_CONFIG, else /etc/n6 and ~/.n6)"
    add("--config", action="append", type=_not_empty, dest=f"config_{depth}", metavar="FILE|DIR", help=help)
    add("--log-level", choices=["debug", "info", "warning", "error"], help="(default: info)")
    add("--log-format", choices=["text", "json"], help="JSON: one object a line (default: text)")
    if "--output" in names:
        help = "deliver there, whatever the configuration says: amqp://..., amqps://... or outbox:"
        add("--output", type=_not_empty, metavar="URL", help=help)
    if "--dry-run" in names:
        add("--dry-run", action="store_true", help="download and show; publish nothing, save nothing")
    if "--limit" in names:
        add("--limit", type=_count, metavar="N", help="show at most N messages (of a dry run)")
    if "--quiet-repeats" in names:
        help = "print errors and warnings when the outcome of runs changes, then once a day (for cron)"
        add("--quiet-repeats", action="store_true", help=help)
    if "--json" in names:
        parser.add_argument("--json", action="store_true", help="as JSON")
    if "--yes" in names:
        parser.add_argument("--yes", action="store_true", help="do not ask")


def _group(commands: Any, name: str, help: str) -> Any:
    parser = commands.add_parser(name, help=help, description=help)
    _add_options(parser, 1, ())
    parser.set_defaults(handler="", takes=(), parser=parser)
    return parser.add_subparsers(metavar="ACTION", title="actions")


def _leaf(
    commands: Any, own: Callable[[], Any], needed: str, name: str, handler: str, help: str, *options: str
) -> Any:
    """Add a subcommand, and return its `add_argument`. `own` makes a parser of the collector's arguments."""
    parent = own()
    for action in parent._actions if name != "run" else ():  # elsewhere none of them is required
        action.required = False
        action.nargs = action.nargs if action.option_strings else action.nargs or "?"
    parser = commands.add_parser(
        name, help=help, description=help, parents=[parent], conflict_handler="resolve"
    )
    _add_options(parser, 2, options)
    parser.set_defaults(handler=handler, needed=needed, takes=options, parser=parser)
    return parser.add_argument


def _add_reports(leaf: Any) -> None:
    add = leaf("runs", "runs.runs", "list what the runs did, the newest first", "--json")
    add("--last", type=_count, metavar="N", help="the last N of them")
    add("--since", type=_duration, metavar="DURATION", help="not those before: 90m, 7d, ...")
    add("--plot", type=Path, metavar="FILE", help="draw them into FILE (.svg, .png, .pdf)")
    help = "report health to a monitoring system: one line, exit code 0, 1, 2 or 3"
    add = partial(leaf("status", "runs.status", help), type=_duration, metavar="DURATION")
    add("--warning", help="if the last good run was earlier, or a run or a message takes longer")
    add("--critical", help="for the same reasons; both depend on [monitoring] expect_every")
    add("--no-data", help="warn if nothing new has come for so long (default: 7d)")


def _add_state(leaf: Any) -> None:
    leaf("show", "state.show", "show the state, and the generations that are kept", "--json")
    leaf("reset", "state.reset", "begin again with the default state", "--yes")
    add = leaf("restore", "state.restore", "go back to the state of an earlier run", "--yes")
    add("number", nargs="?", type=_count, metavar="NUMBER", help="of a generation (default: the one before)")
    add = leaf("rewind", "state.rewind", "collect again from a time or a cursor on", "--yes")
    add("to", type=_not_empty, metavar="TIME|CURSOR", help="as in the state, or ISO 8601")
    add = leaf("forget", "state.forget", "collect one item again", "--yes")
    add("key", type=_not_empty, metavar="KEY", help="what item_key() returns for the item")
    add = leaf("export", "state.export", "write the state to a file")
    add("file", metavar="FILE", help="*.json for JSON, else a pickle; - for standard output")
    add = leaf("import", "state.import_", "replace the state by that of a file", "--yes")
    add("file", metavar="FILE", help="a pickle, *.json or n6's *.txt; - for standard input")
    leaf("edit", "state.edit", "edit the state as JSON in $EDITOR")
    add = leaf("schema", "state.schema", "print the SQL that makes the tables of a journal")
    add("engine", nargs="?", metavar="ENGINE", help="postgresql or mysql (default: that of [journal] url)")


def _add_outbox(leaf: Any) -> None:
    leaf("list", "outbox.list_", "list the messages that wait", "--json", "--limit")
    add = leaf("show", "outbox.show", "print the body of a message, and the rest to standard error")
    add("id", type=_count, metavar="ID", help="as `outbox list` shows it")
    add = leaf("deliver", "outbox.deliver", "deliver what waits", "--output")
    help = "amqp://... or amqps://... (default: as configured)"
    add("--to", type=_not_empty, metavar="URL", dest="output", default=argparse.SUPPRESS, help=help)
    add = leaf("drop", "outbox.drop", "remove messages for good, undelivered", "--yes")
    add("id", nargs="?", type=_count, metavar="ID", help="as `outbox list` shows it")
    add("--refused", action="store_true", help="all that the broker has refused")
    add("--all", action="store_true", help="all of them")
