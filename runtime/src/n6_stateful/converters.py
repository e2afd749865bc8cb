"""Converters from the text of an option to its value; names and meanings are n6's."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Converters = Mapping[str, Callable[[str], Any]]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def convert(converter: str, value: str, converters: Converters) -> Any:
    """`value` converted by one of `converters`, or by `list_of_NAME` for any of them.

    Raises:
        Exception: whatever the converter raises for a value that it does not accept.
    """
    if converter in converters:
        return converters[converter](value)
    convert_item = converters.get(converter.removeprefix("list_of_"))
    if not convert_item:
        raise ValueError(f"there is no converter {converter!r}")
    items = value.strip().removesuffix(",").split(",") if value.strip(" ,") else []
    return [convert_item(item.strip()) for item in items]


def seconds(text: str) -> int:
    """The seconds of a duration: a number with its unit, or 0.

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
    for part in parts:  # grows by the dicts inside
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
whose keys are strings, at every depth; `importable_dotted_name` is the object that `package.module.name`
names; `download_timeout` is a number of seconds or a pair of them, as requests takes it; `duration`, which n6
does not have, is a number with its unit, like `90m`, and becomes seconds."""
