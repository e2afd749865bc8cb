"""`config_spec` and configuration files, as n6 has them.

A spec is an INI-like text:

    [my_feed]
    source :: str               ; required
    retries = 3 :: int          ; optional, with its default
    headers = {} :: json
    ...                         ; further options are allowed (as str; `... :: int` for another type)

What the files look like is told at `ConfigFiles.read`, what the converters do at `CONVERTERS`. Both follow
n6 (https://n6.readthedocs.io/), but every problem is reported at once, with its file and line.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from n6_stateful.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from typing import Any, NamedTuple

    class OptionSpec(NamedTuple):
        default: str | None
        converter: str

    ConfigDict = dict[str, Any]
else:
    from collections import namedtuple

    OptionSpec = namedtuple("OptionSpec", "default converter")
    ConfigDict = dict

ENVIRONMENT_VARIABLE = "N6_CONFIG"
DEFAULT_PATHS = ("/etc/n6", "~/.n6")
FREE = "..."

_SECTION = re.compile(r"\[(?P<name>[^\]]+)\]")
_OPTION = re.compile(r"(?P<name>\.\.\.|[^\s=:]+)\s*(?:=\s*(?P<default>.*?))?\s*(?:::\s*(?P<converter>\w+))?")
_COMMENT = re.compile(r"(^|\s);.*")
_SECRET_NAME = re.compile(r"passw|secret|token|credential|key(?!file)")
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/\s]*@")


class ConfigSection(ConfigDict):
    """The options of one section, converted; `name` is the section's."""

    def __init__(self, name: str, options: Mapping[str, Any] = {}) -> None:
        super().__init__(options)
        self.name = name


# Specs


def section_names(spec: str) -> list[str]:
    """The names of the sections that `spec` declares, in order.

    Raises:
        ConfigError: a line of the spec is neither a section, an option nor a comment.
    """
    return list(_parse_spec(spec))


def _parse_spec(spec: str) -> dict[str, dict[str, OptionSpec]]:
    sections: dict[str, dict[str, OptionSpec]] = {}
    options: dict[str, OptionSpec] | None = None
    for number, raw in enumerate(spec.splitlines(), 1):
        line = _COMMENT.sub("", raw).strip()
        if not line or line.startswith("#"):
            continue
        option = _OPTION.fullmatch(line)
        if match := _SECTION.fullmatch(line):
            options = sections.setdefault(match["name"], {})
        elif options is not None and option and " :: " not in (option["default"] or ""):
            spec_of_option = OptionSpec(option["default"], option["converter"] or "str")
            options.setdefault(option["name"].lower(), spec_of_option)
        else:
            raise ConfigError(
                f"config_spec, line {number}: {line!r} is neither [section] "
                "nor option [= default] [:: converter]"
            )
    return sections


# Converters


def _bool(value: str) -> bool:
    if value.lower() in ("1", "y", "yes", "t", "true", "on"):
        return True
    if value.lower() in ("0", "n", "no", "f", "false", "off"):
        return False
    raise ValueError("neither yes, true, on, 1 nor no, false, off, 0")


def _date(value: str) -> datetime.date:
    import datetime

    return datetime.date.fromisoformat(value)


def _datetime(value: str) -> datetime.datetime:
    import datetime

    moment = datetime.datetime.fromisoformat(value)
    if moment.tzinfo is None:
        return moment
    return moment.astimezone(datetime.UTC).replace(tzinfo=None)


def _path(value: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ValueError("a path has to begin with / or ~")
    return path


def _json(value: str) -> Any:
    import json

    return json.loads(value)


def _py(value: str) -> Any:
    import ast

    try:
        return ast.literal_eval(value)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as exc:
        raise ValueError("no Python literal") from exc


def _py_namespaces_dict(value: str) -> dict[str, Any]:
    found = _py(value)
    if not isinstance(found, dict) or not _has_string_keys(found):
        raise ValueError("no Python literal of a dict whose keys are strings, at every depth")
    return found


def _has_string_keys(found: dict[Any, Any]) -> bool:
    return all(
        isinstance(key, str) and (not isinstance(value, dict) or _has_string_keys(value))
        for key, value in found.items()
    )


def _importable_dotted_name(value: str) -> Any:
    from pkgutil import resolve_name

    try:
        return resolve_name(value)
    except (ImportError, AttributeError) as exc:
        raise ValueError(f"cannot be imported: {exc}") from exc


CONVERTERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "bytes": str.encode,
    "bool": _bool,
    "int": int,
    "float": float,
    "date": _date,
    "datetime": _datetime,
    "path": _path,
    "json": _json,
    "py": _py,
    "py_namespaces_dict": _py_namespaces_dict,
    "importable_dotted_name": _importable_dotted_name,
}
"""By name; `list_of_NAME` is there for each of them, separated by commas (an empty value is `[]`, a
trailing comma is fine). `bytes` is UTF-8; `date` and `datetime` are ISO 8601, a datetime becomes naive UTC;
`path` is a `pathlib.Path`, with `~` expanded; `py` is any Python literal, `py_namespaces_dict` one of a dict
whose keys are strings, at every depth; `importable_dotted_name` is what `package.module.name` names."""


def _convert(name: str, value: str, converters: Mapping[str, Callable[[str], Any]]) -> Any:
    if name in converters:
        return converters[name](value)
    items = value.strip().removesuffix(",")
    item = converters[name.removeprefix("list_of_")]
    return [item(each.strip()) for each in items.split(",")] if items.strip() else []


def _is_converter(name: str, converters: Mapping[str, Callable[[str], Any]]) -> bool:
    return name in converters or (name.startswith("list_of_") and name[len("list_of_") :] in converters)


# Files


def config_files(paths: Sequence[str] = ()) -> list[Path]:
    """The configuration files to read, in order; what a later one says wins.

    Args:
        paths: files or directories; if empty, those in the environment variable `N6_CONFIG` (separated
            as in `PATH`); if that is empty too, `/etc/n6` and `~/.n6`, as far as they exist.

    Of a directory and its sub-folders the files named `NN_*.conf` (two digits) count, sorted.

    Raises:
        ConfigError: a path that was asked for is not there.
    """
    asked = list(paths) or [
        each for each in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep) if each
    ]
    files: list[Path] = []
    for path in map(Path, asked or DEFAULT_PATHS):
        path = path.expanduser()
        if path.is_dir():
            files += sorted(path.rglob("[0-9][0-9]_*.conf"), key=lambda file: file.name)
        elif asked and not path.exists():
            raise ConfigError(f"{path}: there is no such configuration file or directory")
        elif path.exists():
            files.append(path)
    return files


class ConfigFiles:
    """What the configuration files say: raw values, and where each stands."""

    def __init__(self, texts: Iterable[tuple[str, str]], looked_at: str) -> None:
        self.looked_at = looked_at
        self._texts = list(texts)
        self._parser = _new_parser(configparser.BasicInterpolation())
        for name, text in self._texts:
            _read_into(self._parser, text, name)

    @classmethod
    def read(cls, paths: Sequence[str] = ()) -> ConfigFiles:
        """Read the files that `config_files(paths)` finds.

        They are UTF-8; `[Section]` names are case-sensitive, option names are not; `%(option)s` stands for
        the value of another option of the section and `%%` for a percent sign; ` ;` after white space
        begins a comment, `#` only at the start of a line; an indented line continues a value; what is said
        twice counts as said last.

        Raises:
            ConfigError: a file cannot be read or parsed.
        """
        files = config_files(paths)
        looked_at = ", ".join(map(str, files or paths)) or " and ".join(DEFAULT_PATHS)
        return cls([(str(file), _text(file)) for file in files], looked_at)

    @classmethod
    def from_text(cls, text: str, name: str = "<text>") -> ConfigFiles:
        """The same for a text that is in no file."""
        return cls([(name, text)], name)

    def has_section(self, name: str) -> bool:
        """Whether a file has the section."""
        return self._parser.has_section(name)

    def has_option(self, section: str, option: str) -> bool:
        """Whether a file has the option in the section."""
        return self._parser.has_option(section, option)

    def options(self, section: str) -> list[str]:
        """The names of the section's options, lowercase; empty if there is no such section."""
        if not self.has_section(section):
            return []
        inherited = self._parser.defaults()
        return [option for option in self._parser.options(section) if option not in inherited]

    def value(self, section: str, option: str) -> str:
        """The value, with `%(...)s` replaced.

        Raises:
            ValueError: it cannot be replaced.
        """
        try:
            return self._parser.get(section, option)
        except configparser.InterpolationMissingOptionError as exc:
            raise ValueError(f"%({exc.reference})s names no option of this section") from exc
        except configparser.InterpolationDepthError as exc:
            raise ValueError("%(...)s goes in a circle") from exc
        except configparser.InterpolationError as exc:
            raise ValueError("a percent sign is written %% here (a single one begins %(option)s)") from exc

    def raw_value(self, section: str, option: str) -> str:
        """The value as it is written."""
        return self._parser.get(section, option, raw=True)

    def place(self, section: str, option: str) -> str:
        """`file:line` of the place that the value comes from."""
        for name, text in reversed(self._texts):
            parser = _new_parser(None)
            _read_into(parser, text, name)
            if parser.has_section(section) and option in parser[section]:
                return f"{name}:{_line_of(text, section, option)}"
        return self.looked_at


def _new_parser(interpolation: configparser.Interpolation | None) -> configparser.ConfigParser:
    return configparser.ConfigParser(
        strict=False,
        interpolation=interpolation,
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=(";",),
    )


def _read_into(parser: configparser.ConfigParser, text: str, name: str) -> None:
    # configparser's own messages quote the line, which may hold a password.
    try:
        parser.read_string(text, source=name)
    except configparser.MissingSectionHeaderError as exc:
        raise ConfigError(f"{name}:{exc.lineno}: an option stands before the first [section]") from exc
    except configparser.ParsingError as exc:
        lines = ", ".join(str(number) for number, _ in exc.errors)
        raise ConfigError(f"{name}:{lines}: neither [section], option = value nor a comment") from exc
    except configparser.Error as exc:
        raise ConfigError(f"{name}: cannot be parsed ({type(exc).__name__})") from exc


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{file}: is not UTF-8 (byte {exc.start})") from exc
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror}") from exc


def _line_of(text: str, section: str, option: str) -> int:
    current, found = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[([^\]]+)\]", line):
            current = match[1]
        elif current == section and re.match(rf"{re.escape(option)}\s*[=:]", line.strip(), re.IGNORECASE):
            found = number
    return found


# Both together


def load(
    specs: Sequence[str],
    files: ConfigFiles,
    custom_converters: Mapping[str, Callable[[str], Any]] | None = None,
) -> dict[str, ConfigSection]:
    """All sections that `specs` declare, from `files`, converted.

    Args:
        specs: a section that several of them declare is one section; the first declaration of an option
            counts.
        files: where the values are.
        custom_converters: converters by name, beside `CONVERTERS`.

    Raises:
        ConfigError: with every problem of every section: options that are missing, unknown or not
            convertible. Secrets in it are masked.
    """
    converters = {**CONVERTERS, **(custom_converters or {})}
    declared: dict[str, dict[str, OptionSpec]] = {}
    for spec in specs:
        for name, options in _parse_spec(spec).items():
            merged = declared.setdefault(name, {})
            for option, option_spec in options.items():
                merged.setdefault(option, option_spec)
    problems: list[str] = []
    sections = {
        name: _section(name, options, files, converters, problems) for name, options in declared.items()
    }
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise ConfigError(f"{count} in the configuration:\n  " + "\n  ".join(problems))
    return sections


def _section(
    name: str,
    options: Mapping[str, OptionSpec],
    files: ConfigFiles,
    converters: Mapping[str, Callable[[str], Any]],
    problems: list[str],
) -> ConfigSection:
    section = ConfigSection(name)
    missing = []
    for option, spec in options.items():
        if not _is_converter(spec.converter, converters):
            raise ConfigError(f"config_spec, [{name}] {option}: there is no converter {spec.converter!r}")
        if option == FREE:
            continue
        if files.has_option(name, option):
            _take(section, option, spec.converter, files, converters, problems)
        elif spec.default is None:
            missing.append(option)
        else:
            section[option] = _convert(spec.converter, spec.default, converters)
    for option in files.options(name):
        if option in options:
            continue
        if FREE in options:
            _take(section, option, options[FREE].converter, files, converters, problems)
        else:
            problems.append(
                f"[{name}] {option}: there is no such option ({files.place(name, option)})"
                + _did_you_mean(option, options)
            )
    if missing and not files.has_section(name):
        lines = "".join(f"\n      {option} = ..." for option in missing)
        problems.append(
            f"[{name}]: the section is missing (looked at {files.looked_at}); write\n      [{name}]{lines}"
        )
    else:
        problems += [f"[{name}] {option}: is missing (looked at {files.looked_at})" for option in missing]
    return section


def _take(
    section: ConfigSection,
    option: str,
    converter: str,
    files: ConfigFiles,
    converters: Mapping[str, Callable[[str], Any]],
    problems: list[str],
) -> None:
    raw = files.raw_value(section.name, option)
    shown = masked(option, raw)
    try:
        value = files.value(section.name, option)
    except ValueError as exc:
        reason = str(exc)
    else:
        try:
            section[option] = _convert(converter, value, converters)
            return
        except Exception as exc:  # a converter may raise anything, and its text may quote the value
            detail = str(exc) if shown == raw else "the value is not shown, it may hold a secret"
            reason = f"no {converter}: {detail}"
    problems.append(f"[{section.name}] {option} = {shown}: {reason} ({files.place(section.name, option)})")


def masked(option: str, value: str) -> str:
    """`value` as it may be shown: `***` for a secret, or for the password in a URL."""
    if _SECRET_NAME.search(option):
        return "***"
    return _URL_PASSWORD.sub(r"\1:***@", value)


def _did_you_mean(option: str, options: Iterable[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(option, [each for each in options if each != FREE], 1)
    return f"; did you mean {close[0]}?" if close else ""
