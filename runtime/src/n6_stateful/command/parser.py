"""The command line: one tree of parsers, with every option and subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from n6_stateful import __version__
from n6_stateful.collector import AbstractBaseCollector
from n6_stateful.config import seconds
from n6_stateful.errors import EXIT_CODES


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Hide what follows `://`: after a misspelt option that may be a password."""
        shown, mark, _ = message.partition("://")
        super().error(shown + mark + ("***" if mark else ""))


def _text(value: str) -> str:
    if not value.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return int(text)


CONFIG_HELP = "read the configuration here (repeatable; default: $N6_CONFIG, else /etc/n6 and ~/.n6)"
QUIET_HELP = "print errors and warnings when the outcome of runs changes, then once a day (for cron)"
SWITCH: dict[str, Any] = {"action": "store_true"}
DURATION: dict[str, Any] = {"type": seconds, "metavar": "DURATION"}
COUNT: dict[str, Any] = {"type": _count, "metavar": "N"}
URL: dict[str, Any] = {"type": _text, "metavar": "URL"}
# By its name, the meaning of each argument, and how it is parsed.
ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "--config": (CONFIG_HELP, {"action": "append", "type": _text, "metavar": "FILE|DIR"}),
    "--log-level": ("least severity (default: info)", {"choices": ["debug", "info", "warning", "error"]}),
    "--log-format": ("of the log; JSON is one object a line", {"choices": ["text", "json"]}),
    "--output": ("deliver there, whatever the configuration says: amqp://..., amqps://... or outbox:", URL),
    "--dry-run": ("download and show; publish nothing, save nothing", SWITCH),
    "--limit": ("show at most N messages (of a dry run)", COUNT),
    "--quiet-repeats": (QUIET_HELP, SWITCH),
    "--json": ("as JSON", SWITCH),
    "--yes": ("do not ask", SWITCH),
    "--last": ("the last N of them", COUNT),
    "--since": ("not those before: 90m, 7d, ...", DURATION),
    "--plot": ("draw them into FILE (.svg, .png, .pdf)", {"type": Path, "metavar": "FILE"}),
    "--warning": ("age of the last good run (default: 2 x expect_every, else 2h)", DURATION),
    "--critical": ("the same (default: 6 x expect_every, else 6h)", DURATION),
    "--no-data": ("age of the last new data, for WARNING (default: 7d)", DURATION),
    "number": ("of a generation (default: the one before)", {"nargs": "?", "type": _count}),
    "to": ("a time (as in the state, or ISO 8601), or a cursor", {"type": _text}),
    "key": ("what item_key() returns for the item", {"type": _text}),
    "file": ("*.json for JSON, else a pickle; - for standard input or output", {}),
    "engine": ("postgresql or mysql (default: that of [journal] url)", {"nargs": "?"}),
    "id": ("of a message, as `outbox list` shows it", {"type": _count}),
    "ids": ("of messages, as `outbox list` shows them", {"type": _count, "nargs": "*"}),
    "--to": ("(default: as configured)", URL | {"dest": "output"}),
    "--refused": ("all that the broker has refused", SWITCH),
    "--all": ("all of them", SWITCH),
}
COMMON = ("--config", "--log-level", "--log-format")
OF_RUN = ("--output", "--dry-run", "--limit", "--quiet-repeats")  # these may stand before `run`, too
# By its words, the function of each subcommand, what it does, and its arguments.
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("runs.run", "collect and deliver what is new", *OF_RUN),
    "check": ("runs.check", "try configuration, state, output and metrics; publish nothing", "--output"),
    "runs": ("runs.runs", "list what the runs did, newest first", "--last", "--since", "--json", "--plot"),
    "status": ("runs.status", "report health: one line, exit 0 to 3", "--warning", "--critical", "--no-data"),
    "state": ("", "inspect or change the state"),
    "state show": ("state.show", "show the state, and the generations that are kept", "--json"),
    "state reset": ("state.reset", "begin again with the default state", "--yes"),
    "state restore": ("state.restore", "go back to the state of an earlier run", "number", "--yes"),
    "state rewind": ("state.rewind", "collect again from a time or a cursor on", "to", "--yes"),
    "state forget": ("state.forget", "collect one item again", "key", "--yes"),
    "state export": ("state.export", "write the state to a file", "file"),
    "state import": ("state.import_", "replace the state by that of a file", "file", "--yes"),
    "state edit": ("state.edit", "edit the state as JSON in $EDITOR"),
    "state schema": ("state.schema", "print the SQL that makes the tables of a journal", "engine"),
    "outbox": ("", "inspect or deliver the messages that wait"),
    "outbox list": ("outbox.list_", "list the messages that wait", "--json", "--limit"),
    "outbox show": ("outbox.show", "print the body of a message, and the rest to standard error", "id"),
    "outbox deliver": ("outbox.deliver", "deliver what waits", "--to", "--output"),
    "outbox drop": ("outbox.drop", "remove for good, undelivered", "ids", "--refused", "--all", "--yes"),
}


def parse(prog: str, collector_class: type[AbstractBaseCollector], argv: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; `handler` names the function to call, empty for a group of subcommands.

    Raises:
        SystemExit: 2 for wrong usage, 0 for `--help` and `--version`.
    """
    if not {*COMMANDS, "-h", "--help", "--version"} & set(argv):
        argv = ["run", *argv]  # an argument of the collector's own may come first
    args = argparse.Namespace(prog=prog, log_level="info", log_format="text", output=None)
    args.dry_run = args.quiet_repeats = args.limit = None
    _tree(prog, collector_class).parse_args(argv, args)
    if args.version:
        print(f"{prog}: {_own_version(collector_class)}n6-stateful-runtime {__version__}")
        raise SystemExit(0)
    args.config = [path for depth in range(3) for path in getattr(args, f"config_{depth}", [])]
    for name in OF_RUN:
        if getattr(args, name[2:].replace("-", "_")) and name not in args.takes:
            args.parser.error(f"{name} does not apply to this subcommand")
    if args.handler == "runs.run" and args.limit and not args.dry_run:
        args.parser.error("--limit needs --dry-run")
    return args


def _own_version(collector_class: type[AbstractBaseCollector]) -> str:
    """What is installed under the name of the collector's package, if there is such a distribution."""
    from importlib import metadata  # slow, and rarely needed

    package = collector_class.__module__.partition(".")[0]
    try:
        return f"{package} {metadata.version(package)}, "
    except metadata.PackageNotFoundError:
        return ""


def _tree(prog: str, collector_class: type[AbstractBaseCollector]) -> _Parser:
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())
    parser = _Parser(
        prog=prog,
        description=f"Run {collector_class.__name__}, an n6 collector. Without a subcommand: run.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", **SWITCH, help="show the versions")
    _add(parser, 0, OF_RUN)
    groups: dict[str, Any] = {"": parser.add_subparsers(metavar="COMMAND", title="subcommands")}
    # Without __init__, which may need the arguments. In n6 it is an instance or a class method.
    get_own = getattr(collector_class.__new__(collector_class), "get_arg_parser", None)
    for words, (handler, help, *names) in COMMANDS.items():
        group, _, name = words.rpartition(" ")
        own = [get_own()] if get_own and handler else []
        for action in own[0]._actions if own and name != "run" else ():  # only a run requires them
            action.required = False
            action.nargs = action.nargs if action.option_strings else action.nargs or "?"
        how = {"help": help, "description": help, "parents": own, "conflict_handler": "resolve"}
        leaf = groups[group].add_parser(name, **how)
        _add(leaf, 2 if handler else 1, names)
        leaf.set_defaults(handler=handler, takes=names, parser=leaf)
        if not handler:
            groups[name] = leaf.add_subparsers(metavar="ACTION", title="actions")
    return parser


def _add(parser: _Parser, depth: int, names: Sequence[str]) -> None:
    """Add arguments; those that may stand before a subcommand, too, without defaults, so that its parser
    overwrites nothing."""
    for name in (*COMMON, *names):
        help, how = ARGUMENTS[name]
        kwargs = how | {"help": help}
        if name in (*COMMON, *OF_RUN, "--to"):
            kwargs["default"] = argparse.SUPPRESS
        if name == "--config":  # it adds up
            kwargs["dest"] = f"config_{depth}"
        parser.add_argument(name, **kwargs)
