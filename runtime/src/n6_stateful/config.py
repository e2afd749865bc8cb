"""`config_spec` and configuration files, as in n6 (https://n6.readthedocs.io/).

A spec is an INI-like text that declares sections and options:

    [my_feed]
    source :: str               ; required
    retries = 3 :: int          ; optional, with its default
    headers = {} :: json
    ...                         ; further options are allowed (as str; `... :: int` for another type)
"""

from __future__ import annotations

import configparser
import datetime
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from n6_stateful.errors import ConfigError
from n6_stateful.masking import is_secret_name, masked
from n6_stateful.masking import masked_url_text as masked_url_text

LOGGER = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "N6_CONFIG"
DEFAULT_PATHS = ("/etc/n6", "~/.n6")
FREE = "..."

_NUMBERED = re.compile(r"[0-9][0-9]_.*\.conf")
_INLINE_COMMENT = re.compile(r"\s*([^#;=:\s][^=:]*?)\s*[=:].*?\s;(.*)")
_SECTION = re.compile(r"\[(?P<name>[^\]]+)\]")
_OPTION = re.compile(
    r"(?P<name>[^\s=:]+)\s*(?:(?:=|:(?!:))\s*(?P<default>((?! :: ).)*?))?\s*(?:::\s*(?P<converter>\w+))?"
)
_COMMENT = re.compile(r"^#.*|(^|\s);.*")


def config_files(paths: Sequence[str] = ()) -> list[Path]:
    """The configuration files to read, in order; later ones win.

    Args:
        paths: files or directories; if empty, those in the environment variable `N6_CONFIG` (separated
            as in `PATH`); if that is empty too, `/etc/n6` and `~/.n6`, if they exist.

    In a directory and its sub-folders the files named `NN_*.conf` (two digits) count, sorted by their whole
    path, as in n6. The log warns about folders that cannot be searched or that others may write to.

    Raises:
        ConfigError: a path that was named does not exist or cannot be searched.
    """
    places, are_named = _places(paths)
    files: list[Path] = []
    for place in places:
        numbered, errors = list[Path](), list[OSError]()
        for folder, _, names in os.walk(place, onerror=errors.append):
            _warn_if_others_may_write(Path(folder))
            numbered += [Path(folder, name) for name in names if _NUMBERED.fullmatch(name)]
        for exc in errors:
            if isinstance(exc, NotADirectoryError):
                numbered.append(place)
            elif are_named and Path(exc.filename) == place:
                raise ConfigError(f"{place}: cannot be read: {exc.strerror}") from exc
            elif not isinstance(exc, FileNotFoundError):
                LOGGER.warning("%s: cannot be searched for configuration: %s", exc.filename, exc.strerror)
        files += sorted(numbered, key=str)
    return files


def _places(paths: Sequence[str]) -> tuple[list[Path], bool]:
    """The files and directories to read, and whether they were named explicitly."""
    named = paths or [path for path in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep) if path]
    # Unlike Path.expanduser, this accepts a user without a home, as in some containers.
    return [Path(os.path.expanduser(path)) for path in named or DEFAULT_PATHS], bool(named)  # noqa: PTH111


def _warn_if_others_may_write(path: Path) -> None:
    # The configuration decides what is fetched and where it is sent. Ignore the mode of pipes and devices
    # (`--config /dev/stdin`).
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        LOGGER.warning("%s: others may write to it; fix it with: chmod o-w %s", path, path)


def _text(file: Path) -> str:
    try:
        _warn_if_others_may_write(file)
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file}: cannot be read: {getattr(exc, 'strerror', 'it is not UTF-8')}") from exc


class ConfigFiles(configparser.ConfigParser):
    """The contents of the configuration files.

    Args:
        texts: the files' names and texts, in order.
        looked_at: a label for all of them, for error messages.
    """

    def __init__(self, texts: Iterable[tuple[str, str]], looked_at: str) -> None:
        super().__init__(strict=False, inline_comment_prefixes=(";",))
        self.looked_at = looked_at
        self._files: dict[tuple[str, str], str] = {}
        for name, text in texts:
            # One file alone, to know where each value comes from; here `[DEFAULT]` is an ordinary section.
            own = configparser.RawConfigParser(
                strict=False, inline_comment_prefixes=(";",), default_section=""
            )
            try:
                own.read_string(text, name)
            except configparser.ParsingError as exc:
                # Not the error's own text, which quotes the line: it may contain a password.
                line = getattr(exc, "lineno", None) or exc.errors[0][0]
                raise ConfigError(f"{name}: line {line}: not an option = value in a [section]") from exc
            self.read_string(text, name)
            self._files.update(((part, option), name) for part in own.sections() for option in own[part])
            _warn_about_cut_values(name, text)

    @classmethod
    def from_paths(cls, paths: Sequence[str] = ()) -> ConfigFiles:
        """Read the files listed by `config_files(paths)`.

        They are UTF-8; `[Section]` names are case-sensitive, option names are not; `%(option)s` is
        the value of another option of the section, `%%` a percent sign; ` ;` after white space
        begins a comment, `#` only at the start of a line; an indented line continues a value; of two
        values for one option the last one counts. The log warns about a file that others may write to, and
        about a comment that may have been meant as part of the value.

        Raises:
            ConfigError: a file cannot be read or parsed.
        """
        files = config_files(paths)
        looked_at = f"{' and '.join(map(str, _places(paths)[0]))}; files read: {len(files)}"
        return cls([(str(file), _text(file)) for file in files], looked_at)

    @classmethod
    def from_text(cls, text: str, name: str = "<text>") -> ConfigFiles:
        """Read a text instead of files."""
        return cls([(name, text)], name)

    def own_options(self, section: str) -> list[str]:
        """The section's own options, without those of `[DEFAULT]`; empty if there is no such section."""
        return [option for part, option in self._files if part == section]

    def raw_value(self, section: str, option: str) -> str:
        """The value as written, without interpolation."""
        return self.get(section, option, raw=True)

    def file(self, section: str, option: str) -> str:
        """The name of the file that the value comes from."""
        return self._files.get((section, option)) or self._files[self.default_section, option]


def _warn_about_cut_values(name: str, text: str) -> None:
    # ` ; a note` is a comment, but `a ;b` may be a password that was cut off.
    for line in filter(None, map(_INLINE_COMMENT.match, text.split("\n"))):
        if is_secret_name(line[1]) or line[2][:1].strip():
            LOGGER.warning("%s: %s: the value ends before ' ;', which begins a comment", name, line[1])


class OptionSpec(NamedTuple):
    """An option as declared in a spec; it is required if it has no default."""

    default: str | None
    converter: str


class ConfigSection(dict[str, Any]):
    """The converted options of the section `name`."""

    def __init__(self, name: str, options: Mapping[str, Any] = {}) -> None:
        super().__init__(options)
        self.name = name

    def __repr__(self) -> str:
        # Without secrets, since it may be logged.
        options = ", ".join(f"{option}={masked(option, str(value))}" for option, value in self.items())
        return f"<{type(self).__name__} {self.name}: {options}>"


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
    for spec in specs:
        options: dict[str, OptionSpec] | None = None
        for raw in spec.splitlines():
            line = _COMMENT.sub("", raw.strip()).strip()
            if section := _SECTION.fullmatch(line):
                options = sections.setdefault(section["name"], {})
            elif options is not None and (option := _OPTION.fullmatch(line)):
                declared = OptionSpec(option["default"], option["converter"] or "str")
                options.setdefault(option["name"].lower(), declared)
            elif line:
                raise ConfigError(
                    f"config_spec: {line!r} is not a [section] or name [= default] [:: converter]"
                )
    return sections


def load(
    specs: Sequence[str], files: ConfigFiles, custom_converters: Converters | None = None
) -> dict[str, ConfigSection]:
    """Load all sections that `specs` declare from `files`, and convert their values.

    Args:
        specs: a section that several of them declare is one section; the first declaration of an option
            counts.
        files: the source of the values.
        custom_converters: converters by name, besides `CONVERTERS`.

    Raises:
        ConfigError: options are missing, unknown or not convertible; the text lists every problem, with
            secrets masked.
    """
    converters = {**CONVERTERS, **(custom_converters or {})}
    sections, problems = {}, []
    for name, declared in parse_specs(specs).items():
        section = sections[name] = ConfigSection(name)
        free = declared.pop(FREE, None)
        undeclared = {option: free for option in files.own_options(name) if option not in declared}
        for option, spec in {**declared, **undeclared}.items():
            try:
                section[option] = _value(name, option, spec, files, converters)
            except ValueError as exc:
                problems.append(f"[{name}] {option}{exc}")
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise ConfigError(f"{count} in the configuration:\n  " + "\n  ".join(problems))
    return sections


def _value(
    section: str, option: str, spec: OptionSpec | None, files: ConfigFiles, converters: Converters
) -> Any:
    """The option's value; `spec` is None if no spec declares it.

    Raises:
        ValueError: its text follows the option's name in the list of problems.
    """
    is_in_file = files.has_option(section, option)
    source = files.file(section, option) if is_in_file else "config_spec"
    if spec is None:  # do not show the value: a misspelt option may be a password
        raise ValueError(f": there is no such option ({source})")
    if not is_in_file and spec.default is None:
        raise ValueError(f": is missing (looked at {files.looked_at})")
    raw = files.raw_value(section, option) if is_in_file else spec.default or ""
    shown = masked(option, raw)
    try:
        value = files.get(section, option) if is_in_file else raw
        return convert(spec.converter, value, converters)
    except configparser.InterpolationError:
        reason = ": write %% for a percent sign (%(name)s is another option's value)"
    except Exception as exc:  # a converter may raise anything
        # Its text may quote the value, into which `%(...)s` may have put another option's secret.
        reason = f": {exc}" if raw == value == shown else ""
    raise ValueError(f" = {shown!r:.200}: not a valid {spec.converter}{reason:.200} ({source})")


# Converters

Converters = Mapping[str, Callable[[str], Any]]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def convert(converter: str, value: str, converters: Converters) -> Any:
    """`value` converted by one of `converters`, or by `list_of_NAME` for any of them.

    Raises:
        Exception: anything that the converter raises for an invalid value.
    """
    if converter in converters:
        return converters[converter](value)
    convert_item = converters.get(converter.removeprefix("list_of_"))
    if not convert_item:
        raise ValueError(f"there is no converter {converter!r}")
    items = value.strip().removesuffix(",").split(",") if value.strip(" ,") else []
    return [convert_item(item.strip()) for item in items]


def seconds(text: str) -> int:
    """Convert a duration, a number with its unit or 0, to seconds.

    Raises:
        ValueError: the text is not a duration.

    >>> seconds("90m")
    5400
    >>> seconds("0")
    0
    """
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text.strip())
    if match is not None:
        return int(match[1]) * _UNITS[match[2]]
    if text.strip() == "0":
        return 0
    raise ValueError("must be a number of at most six digits with its unit, like 90s, 15m, 2h, 7d or 4w")


def _bool(value: str) -> bool:
    if value.lower() in ("1", "y", "yes", "t", "true", "on"):
        return True
    if value.lower() in ("0", "n", "no", "f", "false", "off"):
        return False
    raise ValueError("must be yes, true, on or 1, or no, false, off or 0")


def _datetime(value: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(value)
    return moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _path(value: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ValueError("a path must begin with / or ~")
    return path


def _literal(value: str) -> Any:
    from ast import literal_eval  # here, since few collectors need it

    return literal_eval(value)


def _importable(value: str) -> Any:
    from pkgutil import resolve_name

    return resolve_name(value)


def _py_namespaces_dict(value: str) -> Any:
    parts = [_literal(value)]
    for part in parts:  # grows by nested dicts
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise ValueError("must be a dict whose keys are strings, at every depth")
        parts += [inner for inner in part.values() if isinstance(inner, dict)]
    return parts[0]


CONVERTERS: Converters = {
    "str": str,
    "bytes": str.encode,
    "bool": _bool,
    "int": int,
    "float": float,
    "date": datetime.date.fromisoformat,
    "datetime": _datetime,
    "path": _path,
    "json": json.loads,
    "py": _literal,
    "py_namespaces_dict": _py_namespaces_dict,
    "importable_dotted_name": _importable,
    "download_timeout": _literal,
    "duration": seconds,
}
"""By name; `list_of_NAME` exists for each of them, separated by commas (an empty value is `[]`, a trailing
comma is fine). `bytes` is UTF-8; `date` and `datetime` are ISO 8601, a datetime becomes naive UTC; `path` is
an absolute `pathlib.Path`, with `~` expanded; `py` is any Python literal, `py_namespaces_dict` a dict literal
whose keys are strings, at every depth; `importable_dotted_name` is the object named
`package.module.name`; `download_timeout` is a number of seconds or a pair of them, as requests takes it;
`duration`, which n6 does not have, is a number with its unit, like `90m`, and becomes seconds."""
