"""`config_spec`: which sections and options a collector has.

A spec is an INI-like text:

    [my_feed]
    source :: str               ; required
    retries = 3 :: int          ; optional, with its default
    headers = {} :: json
    ...                         ; further options are allowed (as str; `... :: int` for another type)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from n6_stateful.errors import ConfigError

FREE = "..."

_SECTION = re.compile(r"\[(?P<name>[^\]]+)\]")
_OPTION = re.compile(
    r"(?P<name>\.\.\.|[^\s=:]+)\s*(?:(?:=|:(?!:))\s*(?P<default>.*?))?\s*(?:::\s*(?P<converter>\w+))?"
)
_COMMENT = re.compile(r"^#.*|(^|\s);.*")


class OptionSpec(NamedTuple):
    """What a spec says of one option; `default` None means that it is required."""

    default: str | None
    converter: str
    line: int


def section_names(spec: str) -> list[str]:
    """The names of the sections that `spec` declares, in order.

    Raises:
        ConfigError: a line of the spec is not a section, an option or a comment.
    """
    return list(parse_specs([spec]))


def parse_specs(specs: Iterable[str]) -> dict[str, dict[str, OptionSpec]]:
    """The options of each section, by their lowercase names.

    A section that several specs declare is one section; the first declaration of an option counts.

    Raises:
        ConfigError: a line is not a section, an option or a comment.
    """
    sections: dict[str, dict[str, OptionSpec]] = {}
    problems = []
    for spec in specs:
        options: dict[str, OptionSpec] | None = None
        for number, raw in enumerate(spec.splitlines(), 1):
            line = _COMMENT.sub("", raw.strip()).strip()
            option = _OPTION.fullmatch(line)
            if section := _SECTION.fullmatch(line):
                options = sections.setdefault(section["name"], {})
            elif options is not None and option and _is_sound(option["name"], option["default"]):
                parsed = OptionSpec(option["default"], option["converter"] or "str", number)
                options.setdefault(option["name"].lower(), parsed)
            elif line:
                problems.append(
                    f"config_spec, line {number}: {line!r} is not a [section] "
                    "or option [= default] [:: converter]"
                )
    if problems:
        raise ConfigError("\n".join(problems))
    return sections


def _is_sound(name: str, default: str | None) -> bool:
    return default is None or (name != FREE and " :: " not in default)
