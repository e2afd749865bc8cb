"""What turns the text of an option into its value; the names and meanings are n6's."""

from __future__ import annotations

import ast
import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from n6_stateful.duration import seconds

Converters = Mapping[str, Callable[[str], Any]]


def convert(converter: str, value: str, converters: Converters) -> Any:
    """`value` as `converter` reads it: one of `converters`, or `list_of_NAME` for any of them.

    Raises:
        Exception: whatever the converter raises, if it does not convert.
    """
    if converter in converters:
        return converters[converter](value)
    convert_item = converters.get(converter.removeprefix("list_of_"))
    if not convert_item:
        raise ValueError(f"there is no converter {converter!r}")
    items = value.strip().removesuffix(",").split(",") if value.strip(" ,") else []
    return [convert_item(item.strip()) for item in items]


def to_path(value: str) -> Path:
    """An absolute path, with `~` and `~user` expanded.

    Raises:
        ValueError: it is relative, or the user has no home directory.
    """
    try:
        path = Path(value).expanduser()
    except RuntimeError as exc:
        raise ValueError(f"there is no home directory {value.partition('/')[0]}") from exc
    if not path.is_absolute():
        raise ValueError("a path must begin with / or ~")
    return path


def _bool(value: str) -> bool:
    if value.lower() in ("1", "y", "yes", "t", "true", "on"):
        return True
    if value.lower() in ("0", "n", "no", "f", "false", "off"):
        return False
    raise ValueError("must be yes, true, on or 1, or no, false, off or 0")


def _datetime(value: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(value)
    return moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _py_namespaces_dict(value: str) -> dict[str, Any]:
    found = ast.literal_eval(value)
    if not isinstance(found, dict) or not _has_string_keys(found):
        raise ValueError("must be a dict whose keys are strings, at every depth")
    return found


def _has_string_keys(found: dict[Any, Any]) -> bool:
    inner = [value for value in found.values() if isinstance(value, dict)]
    return all(isinstance(key, str) for key in found) and all(map(_has_string_keys, inner))


CONVERTERS: Converters = {
    "str": str,
    "bytes": str.encode,
    "bool": _bool,
    "int": int,
    "float": float,
    "date": datetime.date.fromisoformat,
    "datetime": _datetime,
    "path": to_path,
    "json": json.loads,
    "py": ast.literal_eval,
    "py_namespaces_dict": _py_namespaces_dict,
    "importable_dotted_name": resolve_name,
    "duration": seconds,
}
"""By name; `list_of_NAME` is there for each of them, separated by commas (an empty value is `[]`, a
trailing comma is fine). `bytes` is UTF-8; `date` and `datetime` are ISO 8601, a datetime becomes naive UTC;
`path` is a `pathlib.Path`, with `~` expanded; `py` is any Python literal, `py_namespaces_dict` one of a dict
whose keys are strings, at every depth; `importable_dotted_name` is what `package.module.name` names;
`duration`, which n6 has not, is seconds, of a number with its unit, like `90m`."""
