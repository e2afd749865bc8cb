"""Loads what specs declare from configuration files, and tells every problem at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from n6_stateful.config.converters import CONVERTERS, Converters, convert
from n6_stateful.config.files import ConfigFiles
from n6_stateful.config.masking import masked
from n6_stateful.config.spec import FREE, OptionSpec, parse_specs
from n6_stateful.errors import ConfigError

LOGGER = logging.getLogger(__name__)

LONGEST_SHOWN = 200


class ConfigSection(dict[str, Any]):
    """The options of one section, converted; `name` is the section's."""

    def __init__(self, name: str, options: Mapping[str, Any] = {}) -> None:
        super().__init__(options)
        self.name = name

    def __repr__(self) -> str:
        # Without secrets, for whoever logs it.
        options = ", ".join(f"{option}={masked(option, str(value))}" for option, value in self.items())
        return f"<{type(self).__name__} {self.name}: {options}>"


def load(
    specs: Sequence[str],
    files: ConfigFiles,
    custom_converters: Converters | None = None,
) -> dict[str, ConfigSection]:
    """All sections that `specs` declare, from `files`, converted.

    Args:
        specs: a section that several of them declare is one section; the first declaration of an option
            counts.
        files: where the values are.
        custom_converters: converters by name, beside `CONVERTERS`.

    Raises:
        ConfigError: with every problem of every section: options that are missing, empty, unknown or not
            convertible, and what is wrong in the specs. Secrets in it are masked.
    """
    converters = {**CONVERTERS, **(custom_converters or {})}
    sections = {}
    problems = []
    for name, options in parse_specs(specs).items():
        sections[name], found = _section(name, options, files, converters)
        problems += found
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise ConfigError(f"{count} in the configuration:\n  " + "\n  ".join(problems))
    return sections


def _section(
    name: str, specs: Mapping[str, OptionSpec], files: ConfigFiles, converters: Converters
) -> tuple[ConfigSection, list[str]]:
    section = ConfigSection(name)
    problems = []
    missing = []
    undeclared = [option for option in files.own_options(name) if option not in specs]
    for option, spec in specs.items():
        if option != FREE and spec.default is None and not files.has_option(name, option):
            missing.append(option)
            continue
        for each in undeclared if option == FREE else [option]:
            try:
                section[each] = _option(name, each, spec, files, converters, required=each == option)
            except ValueError as exc:
                problems.append(str(exc))
    if FREE not in specs:
        # Without the value: a misspelt option may be a password all the same.
        problems += [
            f"[{name}] {option}: there is no such option ({files.place(name, option)})"
            + _if_close("; did you mean {}?", option, specs)
            for option in undeclared
        ]
    cutoff = 0.6 if missing else 0.83  # a slip: the others are those of other collectors
    renamed = f"; there is [{{}}]: should it be [{name}]?"
    near = "" if files.has_section(name) else _if_close(renamed, name, files.sections(), cutoff)
    looked_at = f"(looked at {files.looked_at}){near}"
    if near and not missing:
        LOGGER.warning("there is no section [%s] %s", name, looked_at)
    return section, problems + [f"[{name}] {option}: is missing {looked_at}" for option in missing]


def _option(
    section: str, option: str, spec: OptionSpec, files: ConfigFiles, converters: Converters, required: bool
) -> Any:
    """The option's value.

    Raises:
        ValueError: with the problem's text.
    """
    raw, place, value = spec.default or "", f"config_spec, line {spec.line}", None
    in_file = files.has_option(section, option)
    if in_file:
        raw, place = files.raw_value(section, option), files.place(section, option)
    try:
        value = files.value(section, option) if in_file else raw
        if value or not required or spec.default is not None or spec.converter.startswith("list_of_"):
            return convert(spec.converter, value, converters)
        reason = "is empty"
    except Exception as exc:  # a converter may raise anything, and its text may quote the value
        reason = f"not a valid {spec.converter}"
        if value is None:
            reason = str(exc)
        elif raw == value == masked(option, value):  # else a secret may be in it, by %(...)s too
            reason += f": {_shown(str(exc))}"
    raise ValueError(f"[{section}] {option} = {_shown(masked(option, raw))}: {reason} ({place})")


def _shown(text: str) -> str:
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text):,} characters)"


def _if_close(text: str, name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    from difflib import get_close_matches

    by_lowercase = {each.lower(): each for each in names if each != FREE}
    close = get_close_matches(name.lower(), by_lowercase, 1, cutoff)
    return text.format(by_lowercase[close[0]]) if close else ""
