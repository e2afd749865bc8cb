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
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from n6_stateful.errors import ConfigError

if TYPE_CHECKING:
    import datetime

LOGGER = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "N6_CONFIG"
DEFAULT_PATHS = ("/etc/n6", "~/.n6")
FREE = "..."
LONGEST_SHOWN = 200

_SECTION = re.compile(r"\[(?P<name>[^\]]+)\]")
_OPTION = re.compile(
    r"(?P<name>\.\.\.|[^\s=:]+)\s*(?:(?:=|:(?!:))\s*(?P<default>.*?))?\s*(?:::\s*(?P<converter>\w+))?"
)
_COMMENT = re.compile(r"(^|\s);.*")
_NUMBERED = re.compile(r"[0-9][0-9]_.*\.conf")

# These rather hide too much than too little; only an error needs them, and compiles them.
_HIDDEN_NAME = r"passw|passph|secret|token|credential|key(?!file)"
_HIDDEN_INSIDE = rf"((?:{_HIDDEN_NAME}|authori[sz]ation|cookie)[\w-]*[\"']?\s*[=:]).+"
_URL_LOGIN = r"(://[^:@]*:|^[^\s:\"'{]*:(?!//)|://).*@"


class OptionSpec(NamedTuple):
    """What a spec says of one option; `default` None means that it is required."""

    default: str | None
    converter: str
    line: int


class ConfigSection(dict[str, Any]):
    """The options of one section, converted; `name` is the section's."""

    def __init__(self, name: str, options: Mapping[str, Any] = {}) -> None:
        super().__init__(options)
        self.name = name

    def __repr__(self) -> str:
        # Without secrets, for whoever logs it.
        options = ", ".join(f"{option}={masked(option, str(value))}" for option, value in self.items())
        return f"<{type(self).__name__} {self.name}: {options}>"


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
    problems = []
    for number, raw in enumerate(spec.splitlines(), 1):
        line = _without_comment(raw)
        if not line:
            continue
        option = _OPTION.fullmatch(line)
        if match := _SECTION.fullmatch(line):
            options = sections.setdefault(match["name"], {})
        elif options is not None and option and _is_sound(option["name"], option["default"]):
            spec_of_option = OptionSpec(option["default"], option["converter"] or "str", number)
            options.setdefault(option["name"].lower(), spec_of_option)
        else:
            problems.append(
                f"config_spec, line {number}: {line!r} is neither [section] "
                "nor option [= default] [:: converter]"
            )
    if problems:
        raise ConfigError("\n".join(problems))
    return sections


def _is_sound(name: str, default: str | None) -> bool:
    return default is None or (name != FREE and " :: " not in default)


def _without_comment(line: str) -> str:
    content = _COMMENT.sub("", line).strip()
    return "" if content.startswith("#") else content


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


# Files


def config_files(paths: Sequence[str] = ()) -> list[Path]:
    """The configuration files to read, in order; what a later one says wins.

    Args:
        paths: files or directories; if empty, those in the environment variable `N6_CONFIG` (separated
            as in `PATH`); if that is empty too, `/etc/n6` and `~/.n6`, as far as they exist.

    Of a directory and its sub-folders the files named `NN_*.conf` (two digits) count, sorted by their
    whole path, as n6 has them. The log warns of what cannot be looked into, and of directories that
    others may write to.

    Raises:
        ConfigError: a path that was asked for is not there, or cannot be looked into.
    """
    asked = _asked_for(paths)
    files: list[Path] = []
    for path in _places(paths):
        try:
            files += _numbered_files(path) if stat.S_ISDIR(path.stat().st_mode) else [path]
        except OSError as exc:
            if asked:
                raise ConfigError(f"{path}: no configuration can be read there: {exc.strerror}") from exc
            if not isinstance(exc, FileNotFoundError):
                _warn_of_unread(path, exc)
    return files


def _asked_for(paths: Sequence[str]) -> list[str]:
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep)
    return list(paths) or [path for path in from_environment if path]


def _places(paths: Sequence[str]) -> list[Path]:
    return [_expanded(path) for path in _asked_for(paths) or DEFAULT_PATHS]


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a user without a home, as in some containers
        return Path(path)


def _numbered_files(directory: Path) -> list[Path]:
    def skip(exc: OSError) -> None:
        if Path(exc.filename) == directory:
            raise exc
        _warn_of_unread(exc.filename, exc)

    files: list[Path] = []
    for folder, _, names in os.walk(directory, onerror=skip):
        _warn_if_others_may_write(folder, Path(folder).stat().st_mode)
        files += [Path(folder, name) for name in names if _NUMBERED.fullmatch(name)]
    return sorted(files, key=str)


def _warn_of_unread(path: object, exc: OSError) -> None:
    LOGGER.warning("%s: is not looked into for configuration: %s", path, exc.strerror)


def _warn_if_others_may_write(path: object, mode: int) -> None:
    # Whoever writes a configuration tells the collector what to fetch, and where to send it. Of pipes and
    # devices (`--config /dev/stdin`) the mode says nothing.
    if mode & stat.S_IWOTH and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        LOGGER.warning("%s: others may write to it; mend it with: chmod o-w %s", path, path)


class ConfigFiles:
    """What the configuration files say: raw values, and where each stands."""

    def __init__(self, texts: Iterable[tuple[str, str]], looked_at: str) -> None:
        self.looked_at = looked_at
        self._texts = list(texts)
        self._parser = configparser.ConfigParser(strict=False, inline_comment_prefixes=(";",))
        for name, text in self._texts:
            _read_into(self._parser, text, name)

    @classmethod
    def read(cls, paths: Sequence[str] = ()) -> ConfigFiles:
        """Read the files that `config_files(paths)` finds.

        They are UTF-8; `[Section]` names are case-sensitive, option names are not; `%(option)s` stands for
        the value of another option of the section and `%%` for a percent sign; ` ;` after white space
        begins a comment, `#` only at the start of a line; an indented line continues a value; what is said
        twice counts as said last. The log warns of a file that others may write to.

        Raises:
            ConfigError: a file cannot be read or parsed.
        """
        files = config_files(paths)
        looked_at = " and ".join(_with_count(place, files) for place in _places(paths))
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

    def sections(self) -> list[str]:
        """The names of all sections."""
        return self._parser.sections()

    def options(self, section: str) -> list[str]:
        """The names of the section's own options, lowercase; empty if there is no such section."""
        names = self._parser.options(section) if self.has_section(section) else []
        inherited = self._parser.defaults()
        return [name for name in names if name not in inherited or self._place_in(section, name)]

    def value(self, section: str, option: str) -> str:
        """The value, with `%(...)s` replaced.

        Raises:
            ValueError: it cannot be replaced.
        """
        try:
            return self._parser.get(section, option)
        except configparser.InterpolationMissingOptionError as exc:
            # Not which one: in a password it may be a part of that.
            raise ValueError("a %(...)s in it names no option of this section") from exc
        except configparser.InterpolationDepthError as exc:
            raise ValueError("%(...)s goes in a circle") from exc
        except configparser.InterpolationError as exc:
            raise ValueError("a percent sign is written %% here (a single one begins %(option)s)") from exc

    def raw_value(self, section: str, option: str) -> str:
        """The value as it is written."""
        return self._parser.get(section, option, raw=True)

    def place(self, section: str, option: str) -> str:
        """`file:line` of the place that the value comes from."""
        own = self._place_in(section, option)
        return own or self._place_in(configparser.DEFAULTSECT, option) or self.looked_at

    def _place_in(self, section: str, option: str) -> str:
        for name, text in reversed(self._texts):
            if line := _line_of(text, section, option):
                return f"{name}:{line}"
        return ""


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


def _with_count(place: Path, files: Sequence[Path]) -> str:
    if place in files:
        return str(place)
    count = sum(place in file.parents for file in files)
    return f"{place} ({count or 'no'} file{'s' if count > 1 else ''} named NN_*.conf)"


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8-sig") as opened:
            _warn_if_others_may_write(file, os.fstat(opened.fileno()).st_mode)
            return opened.read()
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"{file}:{line}: is not UTF-8") from exc
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror}") from exc


def _line_of(text: str, section: str, option: str) -> int:
    """The line where the option's last value begins, by configparser's own rules; 0 if it has none."""
    found = indent = 0
    current, in_option = "", False
    for number, line in enumerate(text.split("\n"), 1):
        content = _without_comment(line)
        level = len(line) - len(line.lstrip())
        if not content or (in_option and level > indent):  # nothing, or a value that goes on
            continue
        indent = level
        if match := configparser.ConfigParser.SECTCRE.match(content):
            current, in_option = match["header"], False
        elif match := configparser.ConfigParser.OPTCRE.match(content):
            in_option = True
            if current == section and match["option"].rstrip().lower() == option:
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
            convertible, and what is wrong in the specs. Secrets in it are masked.
    """
    declared: dict[str, dict[str, OptionSpec]] = {}
    for spec in specs:
        for name, options in _parse_spec(spec).items():
            merged = declared.setdefault(name, {})
            for option, option_spec in options.items():
                merged.setdefault(option, option_spec)
    loading = _Loading(files, {**CONVERTERS, **(custom_converters or {})})
    sections = {name: loading.section(name, options) for name, options in declared.items()}
    if problems := loading.problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise ConfigError(f"{count} in the configuration:\n  " + "\n  ".join(problems))
    return sections


class _Loading:
    """One `load`: what it takes values from, and the problems met on the way."""

    def __init__(self, files: ConfigFiles, converters: Mapping[str, Callable[[str], Any]]) -> None:
        self._files = files
        self._converters = converters
        self.problems: list[str] = []

    def section(self, name: str, options: Mapping[str, OptionSpec]) -> ConfigSection:
        section = ConfigSection(name)
        missing = []
        undeclared = [option for option in self._files.options(name) if option not in options]
        for option, spec in options.items():
            if spec.converter.removeprefix("list_of_") not in self._converters:
                self.problems.append(
                    f"config_spec, line {spec.line}: [{name}] {option}: there is no converter "
                    f"{spec.converter!r}{_did_you_mean(spec.converter, self._converters)}"
                )
            elif option == FREE:
                for free in undeclared:
                    self._take(section, free, spec)
            elif spec.default is None and not self._files.has_option(name, option):
                missing.append(option)
            else:
                self._take(section, option, spec)
        if FREE not in options:
            # Without the value: a misspelt option may be a password all the same.
            self.problems += [
                f"[{name}] {option}: there is no such option ({self._files.place(name, option)})"
                + _did_you_mean(option, options)
                for option in undeclared
            ]
        if missing:
            self._tell_missing(name, missing)
        return section

    def _tell_missing(self, name: str, missing: Iterable[str]) -> None:
        looked_at = f"looked at {self._files.looked_at}"
        if self._files.has_section(name):
            self.problems += [f"[{name}] {option}: is missing ({looked_at})" for option in missing]
            return
        near = _did_you_mean(name, self._files.sections())
        lines = "".join(f"\n      {option} = ..." for option in missing)
        self.problems.append(
            f"[{name}]: the section is missing ({looked_at}){near}\n    write:\n      [{name}]{lines}"
        )

    def _take(self, section: ConfigSection, option: str, spec: OptionSpec) -> None:
        value = raw = spec.default or ""
        place = f"config_spec, line {spec.line}"
        if self._files.has_option(section.name, option):
            raw = self._files.raw_value(section.name, option)
            place = ""
        try:
            if not place:
                value = self._files.value(section.name, option)
        except ValueError as exc:
            reason = str(exc)
        else:
            try:
                section[option] = self._convert(spec.converter, value)
                return
            except Exception as exc:  # a converter may raise anything, and its text may quote the value
                reason = f"no {spec.converter}"
                if raw == value == masked(option, value):  # else a secret may be in it, by %(...)s too
                    reason += f": {_shown(str(exc))}"
        place = place or self._files.place(section.name, option)
        self.problems.append(f"[{section.name}] {option} = {_shown(masked(option, raw))}: {reason} ({place})")

    def _convert(self, name: str, value: str) -> Any:
        if name in self._converters:
            return self._converters[name](value)
        convert = self._converters[name.removeprefix("list_of_")]
        items = value.strip().removesuffix(",")
        return [convert(item.strip()) for item in items.split(",")] if items.strip() else []


def masked(option: str, value: str) -> str:
    """`value` as it may be shown: `***` for a secret, for the password in a URL (or the user, if there
    is no password: it may be a token), and for what follows a word like `token=` inside it."""
    if re.search(_HIDDEN_NAME, option, re.IGNORECASE):
        return "***"
    inside = re.search(_HIDDEN_INSIDE, value, re.IGNORECASE | re.DOTALL)
    login = re.search(_URL_LOGIN, value, re.DOTALL)
    if inside:
        return value[: min(match.end(1) for match in (inside, login) if match)] + "***"
    return re.sub(_URL_LOGIN, r"\1***@", value, flags=re.DOTALL)


def _shown(text: str) -> str:
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text):,} characters)"


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches

    by_lowercase = {each.lower(): each for each in names if each != FREE}
    close = get_close_matches(name.lower(), by_lowercase, 1)
    return f"; did you mean {by_lowercase[close[0]]}?" if close else ""
