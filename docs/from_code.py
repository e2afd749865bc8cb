"""Reference pages that are made from the code, so that nothing is typed twice.

    python docs/from_code.py            writes them into docs/reference
    python docs/from_code.py --check    only compares; the exit code is 1 if one of them is out of date

They are committed, so that a clone can be read without building anything.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from n6_stateful import BaseCollector, CollectorWithStateMixin, bases
from n6_stateful.broker import OUTPUT_SPEC, RABBITMQ_SPEC
from n6_stateful.command.parser import _tree
from n6_stateful.config import FREE
from n6_stateful.errors import EXIT_CODES
from n6_stateful.health import write_metrics
from n6_stateful.journal import configured_journal
from n6_stateful.message import Message
from tests.house.imports import modules

REFERENCE = Path(__file__).resolve().parent / "reference"
MADE = "<!-- Made by docs/from_code.py; do not edit. -->\n\n"
COMMAND = "n6collector_myfeed"
ABOUT_CONFIGURATION = """\
# Configuration

Every option, its default and its meaning. Options are read from the files named `NN_*.conf` (two digits) in
`/etc/n6` and `~/.n6`, or from `--config`, or from the paths in `N6_CONFIG`; what a later file says wins. An
option without a default is required. A percent sign is written `%%`.

## The collector's own section

It has the options of the class's `config_spec`, and those that its base classes add.
"""
NOTES = {"rabbitmq": "\nn6's own section. It names the broker where `[output]` has no `url`.\n"}
ABOUT_COMMANDS = """\
# Commands

Every subcommand and its options. The command is named after the class, as in n6: `n6collector_myfeed` for
`MyFeedCollector`. Without a subcommand it runs the collector. A method `get_arg_parser` adds arguments of the
collector's own.

The following options, and those of `run`, may stand before the subcommand or behind it. There are also
`--help` and `--version`.
"""
ABOUT_EXIT_CODES = """\
# Exit codes

How a run ends, and every command but `status`, which has the exit codes of a plugin for Nagios.
"""
ABOUT_METRICS = """\
# Metrics

What each run writes into the directory `[monitoring] textfile_dir`, for the textfile collector of
Prometheus' node_exporter. All are gauges with the labels `source` and `collector` (the class). Times are
seconds since the epoch, 0 for never.
"""
ABOUT_MODULES = """\
# Modules

Every module of the runtime, by the first paragraph of its docstring. [Architecture](../architecture.md) draws
how they hang together.
"""
# Every command has these, before or behind its name.
COMMON = ("--config", "--log-level", "--log-format")


class MyFeedCollector(CollectorWithStateMixin, BaseCollector):
    """The collector whose command is shown."""


class Option(NamedTuple):
    """One line of a spec; `default` None means that the option is required."""

    name: str
    default: str | None
    converter: str
    about: str


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def read_spec(spec: str) -> Iterator[tuple[str, list[Option]]]:
    """The sections of `spec` with their options, and what the comments above and behind them say."""
    section, options, above = "", list[Option](), list[str]()
    for line in dedent(spec).splitlines():
        text, _, comment = (part.strip() for part in f" {line}".partition(" ;"))
        if text.startswith("["):
            if section:
                yield section, options
            section, options, above = text.strip("[]"), [], []
        elif text and text != FREE:
            declared, _, converter = text.partition("::")
            name, equals, default = declared.partition("=")
            about = " ".join(filter(None, [*above, comment]))
            shown = default.strip() if equals else None
            options.append(Option(name.strip(), shown, converter.strip() or "str", about))
            above = []
        elif comment:
            above.append(comment)
    yield section, options


def options_table(options: Iterable[Option]) -> str:
    """The options of a section."""
    rows = []
    for name, default, converter, about in options:
        shown = "*required*" if default is None else f"`{default}`" if default else ""
        rows.append([f"`{name}`", shown, f"`{converter}`", about])
    return table(["option", "default", "type", "meaning"], rows)


def configuration() -> str:
    """Every option of every section, and those that each base class adds to the collector's own."""
    parts = [ABOUT_CONFIGURATION]
    for cls in (CollectorWithStateMixin, *(getattr(bases, name) for name in bases.__all__)):
        if spec := isinstance(cls, type) and vars(cls).get("extra_config_options"):
            for _, options in read_spec(f"[collector]\n{dedent(spec)}"):
                parts.append(f"\n### Added by `{cls.__name__}`\n{options_table(options)}")
    shared = [OUTPUT_SPEC, RABBITMQ_SPEC]
    for cls in BaseCollector.__mro__ + CollectorWithStateMixin.__mro__:
        shared += [spec for spec in vars(cls).get("extra_config_specs", ()) if spec not in shared]
    for spec in shared:
        for section, options in read_spec(spec):
            about = NOTES.get(section, "")
            parts.append(f"\n## `[{section}]`\n{about}{options_table(options)}")
    return "".join(parts)


def subcommands(
    parser: argparse.ArgumentParser, name: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every subcommand that does something, with its parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for word, inner in group.choices.items():
            yield from subcommands(inner, f"{name} {word}".strip())
    if not groups:
        yield name, parser


def shown(action: argparse.Action) -> str:
    """An option or argument as it is typed."""
    metavar = str(action.metavar or "|".join(map(str, action.choices or ())))
    if action.option_strings:
        return " ".join(filter(None, (action.option_strings[-1], metavar)))
    return {"?": f"[{action.dest}]", "*": f"[{action.dest} ...]"}.get(str(action.nargs), action.dest)


def arguments_table(actions: Iterable[argparse.Action]) -> str:
    """What a command takes."""
    return table(["argument", "meaning"], [[f"`{shown(action)}`", action.help or ""] for action in actions])


def command() -> str:
    """Every subcommand, with its options."""
    tree = _tree(COMMAND, MyFeedCollector)
    common = [action for action in tree._actions if set(COMMON) & set(action.option_strings)]
    parts = [ABOUT_COMMANDS, arguments_table(common)]
    for name, parser in subcommands(tree):
        own = [action for action in parser._actions if not {*COMMON, "--help"} & set(action.option_strings)]
        arguments = "".join(f" {shown(action)}" for action in own if not action.option_strings)
        about = (parser.description or "").strip()
        parts.append(f"\n## `{name}{arguments}`\n\n{about[:1].upper()}{about[1:]}.\n")
        if own:
            parts.append(arguments_table(own))
    return "".join(parts)


def exit_codes() -> str:
    """What a scheduler can go by."""
    rows = [[str(code), meaning] for code, meaning in EXIT_CODES.items()]
    return ABOUT_EXIT_CODES + table(["exit code", "meaning"], rows)


def metrics() -> str:
    """What is written for Prometheus, by what is written after a run that has left a message waiting."""
    with TemporaryDirectory() as directory:
        journal = configured_journal({}, Path(directory, "source.MyFeedCollector.sqlite"))
        journal.put(Message("raw", "source", b"body", {"message_id": "1"}))
        journal.commit()
        journal.put_run(0, {"end": 1, "exit_code": 0, "outcome": "ok"})
        write_metrics(Path(directory), journal)
        journal.unlock()
        text = Path(directory, "n6_source.MyFeedCollector.prom").read_text()
    rows = [[f"`{name}`", about] for name, about in re.findall(r"^# HELP (\w+) (.*)$", text, re.MULTILINE)]
    return ABOUT_METRICS + table(["metric", "meaning"], rows)


def module_list() -> str:
    """What each module is for."""
    rows = []
    for name, path in modules().items():
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        about = " ".join(docstring.partition("\n\n")[0].split())
        rows.append([f"`{name.removeprefix('n6_stateful.')}`", about])
    return ABOUT_MODULES + table(["module", "what it is for"], rows)


def main(argv: Sequence[str]) -> int:
    """Write the pages, or compare them; 1 if one of them is out of date."""
    pages = {
        "command.md": command(),
        "configuration.md": configuration(),
        "exit-codes.md": exit_codes(),
        "metrics.md": metrics(),
        "modules.md": module_list(),
    }
    stale = {name: MADE + text for name, text in pages.items() if not _is(REFERENCE / name, MADE + text)}
    if "--check" in argv:
        for name in stale:
            print(f"docs/reference/{name} is out of date: python docs/from_code.py")
        return 1 if stale else 0
    for name, text in stale.items():
        (REFERENCE / name).write_text(text)
    return 0


def _is(path: Path, contents: str) -> bool:
    return path.exists() and path.read_text() == contents


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
