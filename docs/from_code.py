"""Reference pages that are made from the code, so that nothing is typed twice.

    python -m docs.from_code DIRECTORY

writes `options.md`, `commands.md` and `exit-codes.md` there.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from n6_stateful import BaseCollector, CollectorWithStateMixin, bases
from n6_stateful.command import main
from n6_stateful.config import FREE
from n6_stateful.errors import EXIT_CODES
from n6_stateful.output.choice import OUTPUT_SPEC, RABBITMQ_SPEC

COMMANDS = (
    "",
    "run",
    "check",
    "runs",
    "status",
    "state show",
    "state reset",
    "state restore",
    "state export",
    "state import",
    "state edit",
    "state schema",
    "spool list",
    "spool show",
    "spool forward",
    "spool drop",
)
MADE = "<!-- Made by docs/from_code.py; do not edit. -->\n\n"


class MyFeedCollector(CollectorWithStateMixin, BaseCollector):
    """The collector whose command is shown."""

    type = "stream"
    config_spec = "[my_feed]\nsource :: str\ncache_dir :: path\n"


class Option(NamedTuple):
    """One line of a spec; `default` None means that the option is required."""

    name: str
    default: str | None
    converter: str
    about: str


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
            option = Option(
                name.strip(), default.strip() if equals else None, converter.strip() or "str", about
            )
            options.append(option)
            above = []
        elif comment:
            above.append(comment)
    yield section, options


def table(options: list[Option]) -> str:
    """The options as a table in Markdown."""
    rows = ["| option | default | type | |", "|---|---|---|---|"]
    for name, default, converter, about in options:
        shown = "*required*" if default is None else f"`{default}`" if default else "*empty*"
        rows.append(f"| `{name}` | {shown} | `{converter}` | {about.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def options_page() -> str:
    """Every option of every section, and those that each base class adds to the collector's own."""
    parts = [
        MADE,
        "# Options\n\nConfiguration is read from the files named `NN_*.conf` (two digits) in `/etc/n6` and "
        "`~/.n6`, or from `--config` or `N6_CONFIG`. A collector's own section has the options of its "
        "`config_spec`, and those that its base classes add. A required option has no default.\n",
    ]
    own = [
        (cls.__name__, "[collector]\n" + dedent(vars(cls)["extra_config_options"]))
        for cls in (CollectorWithStateMixin, *(getattr(bases, name) for name in bases.__all__))
        if isinstance(cls, type) and vars(cls).get("extra_config_options")
    ]
    parts.append("\n## The collector's own section\n")
    for name, spec in own:
        for _, options in read_spec(spec):
            parts.append(f"\n### Added by `{name}`\n\n{table(options)}")
    shared = [OUTPUT_SPEC, RABBITMQ_SPEC]
    for cls in BaseCollector.__mro__ + CollectorWithStateMixin.__mro__:
        shared += [spec for spec in vars(cls).get("extra_config_specs", ()) if spec not in shared]
    for spec in shared:
        for section, options in read_spec(spec):
            parts.append(f"\n## `[{section}]`\n\n{table(options)}")
    return "".join(parts)


def help_of(command: str) -> str:
    """What `n6collector_myfeed COMMAND --help` prints."""
    os.environ["COLUMNS"] = "100"
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        main(MyFeedCollector, [*command.split(), "--help"])
    return printed.getvalue()


def commands_page() -> str:
    """The `--help` of each subcommand."""
    parts = [MADE, "# Commands\n\nThe command of a collector is named after its class, as n6 names it.\n"]
    for command in COMMANDS:
        title = f"`{command}`" if command else "The command"
        parts.append(f"\n## {title}\n\n```text\n{help_of(command).rstrip()}\n```\n")
    return "".join(parts)


def exit_codes_page() -> str:
    """What a scheduler can go by."""
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    return f"{MADE}# Exit codes\n\n| exit code | meaning |\n|---|---|\n{rows}"


def write(directory: Path) -> None:
    """Write the pages, and leave those alone that are as they should be."""
    pages = {
        "options.md": options_page(),
        "commands.md": commands_page(),
        "exit-codes.md": exit_codes_page(),
    }
    for name, text in pages.items():
        path = directory / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
