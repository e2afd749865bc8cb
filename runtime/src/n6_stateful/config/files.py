"""Configuration files: which are read, what stands in them, and where."""

from __future__ import annotations

import configparser
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from n6_stateful.config.masking import is_secret_name
from n6_stateful.errors import ConfigError

LOGGER = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "N6_CONFIG"
DEFAULT_PATHS = ("/etc/n6", "~/.n6")
_NUMBERED = re.compile(r"[0-9][0-9]_.*\.conf")
_INLINE_COMMENT = re.compile(r"[^#;\s].*?\s;(.*)")


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
    files: list[Path] = []
    for path in _places(paths):
        try:
            files += _numbered_files(path) if stat.S_ISDIR(path.stat().st_mode) else [path]
        except OSError as exc:
            if _asked_for(paths):
                raise ConfigError(f"{path}: no configuration can be read there: {exc.strerror}") from exc
            if not isinstance(exc, FileNotFoundError):
                LOGGER.warning("%s: is not searched for configuration: %s", path, exc.strerror)
    return files


def _asked_for(paths: Sequence[str]) -> Sequence[str]:
    return paths or [path for path in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep) if path]


def _places(paths: Sequence[str]) -> list[Path]:
    # Unlike Path.expanduser this leaves the path as it is for a user without a home, as in some containers.
    return [Path(os.path.expanduser(path)) for path in _asked_for(paths) or DEFAULT_PATHS]  # noqa: PTH111


def _numbered_files(directory: Path) -> list[Path]:
    def skip(exc: OSError) -> None:
        if Path(exc.filename) == directory:
            raise exc
        LOGGER.warning("%s: is not searched for configuration: %s", exc.filename, exc.strerror)

    files: list[Path] = []
    for folder, _, names in os.walk(directory, onerror=skip):
        _warn_if_others_may_write(folder, Path(folder).stat().st_mode)
        files += [Path(folder, name) for name in names if _NUMBERED.fullmatch(name)]
    return sorted(files, key=str)


def _warn_if_others_may_write(path: object, mode: int) -> None:
    # Whoever writes a configuration tells the collector what to fetch, and where to send it. Of pipes and
    # devices (`--config /dev/stdin`) the mode says nothing.
    if mode & stat.S_IWOTH and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        LOGGER.warning("%s: others may write to it; mend it with: chmod o-w %s", path, path)


class ConfigFiles(configparser.ConfigParser):
    """What the configuration files say, and where it stands.

    Args:
        texts: the files' names and texts, in order.
        looked_at: what a person calls all of them.
    """

    def __init__(self, texts: Iterable[tuple[str, str]], looked_at: str) -> None:
        self.looked_at = looked_at
        self._places: dict[tuple[str, str], str] = {}
        self._section = self._place = self._comment = ""
        super().__init__(strict=False, inline_comment_prefixes=(";",))
        for name, text in texts:
            # Not configparser's own texts, which quote the line: that may be a password.
            try:
                self.read_file(self._lines(name, text), name)
            except configparser.MissingSectionHeaderError as exc:
                raise ConfigError(f"{self._place}: an option stands before the first [section]") from exc
            except configparser.ParsingError as exc:
                lines = ", ".join(str(number) for number, _ in exc.errors)
                raise ConfigError(f"{name}:{lines}: not a [section], an option = value or a comment") from exc
            self._place = ""

    @classmethod
    def from_paths(cls, paths: Sequence[str] = ()) -> ConfigFiles:
        """Read the files that `config_files(paths)` finds.

        They are UTF-8; `[Section]` names are case-sensitive, option names are not; `%(option)s` stands for
        the value of another option of the section and `%%` for a percent sign; ` ;` after white space
        begins a comment, `#` only at the start of a line; an indented line continues a value; what is said
        twice counts as said last. The log warns of a file that others may write to, and of a comment that
        may have been meant as a part of the value.

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

    def own_options(self, section: str) -> list[str]:
        """The section's options that do not just come from `[DEFAULT]`; empty if there is no such section."""
        names = self.options(section) if self.has_section(section) else []
        return [name for name in names if name not in self.defaults() or (section, name) in self._places]

    def value(self, section: str, option: str) -> str:
        """The value, with `%(...)s` replaced.

        Raises:
            ValueError: it cannot be replaced.
        """
        try:
            return self.get(section, option)
        except configparser.InterpolationError as exc:
            # Not its own text, which quotes the value: that may be a password.
            raise ValueError("write %% for a percent sign (%(name)s is another option's value)") from exc

    def raw_value(self, section: str, option: str) -> str:
        """The value as it is written."""
        return self.get(section, option, raw=True)

    def place(self, section: str, option: str) -> str:
        """`file:line` of the place that the value comes from."""
        inherited = self._places.get((self.default_section, option), self.looked_at)
        return self._places.get((section, option), inherited)

    def _lines(self, name: str, text: str) -> Iterator[str]:
        for number, line in enumerate(text.split("\n"), 1):
            self._place = f"{name}:{number}"
            inline = _INLINE_COMMENT.match(line.strip())
            self._comment = inline[1] if inline else ""
            if header := self.SECTCRE.match(line):
                self._section = header["header"]
            yield line + "\n"

    def optionxform(self, optionstr: str) -> str:
        """Called by configparser for each option's name; while it reads, just after the option's line."""
        option = optionstr.lower()
        if self._place:
            self._places[self._section, option] = self._place
            # ` ; a note` is a comment, but `a ;b` may be a password that was cut.
            if self._comment and (is_secret_name(option) or not self._comment[0].isspace()):
                LOGGER.warning(
                    "%s: what follows ' ;' was taken for a comment, not for the value", self._place
                )
        return option


def _with_count(place: Path, files: Sequence[Path]) -> str:
    count = sum(place in file.parents for file in files)
    return str(place) if place in files else f"{place} (files named NN_*.conf: {count})"


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
