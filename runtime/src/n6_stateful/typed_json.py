"""Plain data as JSON, and back: what JSON has no word for is written as `{"$type": value}`."""

from __future__ import annotations

import base64
import datetime
import decimal
from typing import TYPE_CHECKING, Any, NoReturn

from n6_stateful.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

_TO: dict[type, tuple[str, Callable[[Any, Callable[[Any], Any]], Any]]] = {
    set: ("$set", lambda value, deeper: [deeper(item) for item in _sorted(value)]),
    frozenset: ("$frozenset", lambda value, deeper: [deeper(item) for item in _sorted(value)]),
    tuple: ("$tuple", lambda value, deeper: [deeper(item) for item in value]),
    bytes: ("$bytes", lambda value, deeper: base64.b64encode(value).decode()),
    datetime.datetime: ("$datetime", lambda value, deeper: value.isoformat()),
    datetime.date: ("$date", lambda value, deeper: value.isoformat()),
    decimal.Decimal: ("$decimal", lambda value, deeper: str(value)),
}
_FROM: dict[str, Callable[[Any], Any]] = {
    "$set": lambda value: {load(item) for item in value},
    "$frozenset": lambda value: frozenset(load(item) for item in value),
    "$tuple": lambda value: tuple(load(item) for item in value),
    "$bytes": lambda value: base64.b64decode(value, validate=True),
    "$datetime": datetime.datetime.fromisoformat,
    "$date": datetime.date.fromisoformat,
    "$decimal": decimal.Decimal,
    "$dict": lambda value: {load(key): load(item) for key, item in value},
}


def dump(state: Any, *, to_look_at: bool = False) -> Any:
    """`state` in the words of JSON.

    Args:
        state: plain data.
        to_look_at: write what has no form here as `{"$repr": text}`, which `load` does not read.

    Raises:
        StateError: it holds something that is neither plain data nor one of the types above, or itself.
    """
    try:
        return _dump(state, _repr if to_look_at else _no_form)
    except RecursionError as exc:
        raise StateError("the state is too deep for JSON, or holds itself") from exc


def _dump(state: Any, other: Callable[[Any], Any]) -> Any:
    def deeper(item: Any) -> Any:
        return _dump(item, other)

    kind = type(state)
    if state is None or kind in (bool, int, float, str):
        return state
    if kind is list:
        return [deeper(item) for item in state]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in state):
            return {key: deeper(item) for key, item in state.items()}
        return {"$dict": [[deeper(key), deeper(item)] for key, item in state.items()]}
    # Of another zone than these only the offset of that moment would be left.
    zone = state.tzinfo if kind is datetime.datetime else None
    if kind in _TO and isinstance(zone, (type(None), datetime.timezone)):
        name, convert = _TO[kind]
        return {name: convert(state, deeper)}
    return other(state)


def load(found: Any) -> Any:
    """The state that `dump` made `found` of.

    Raises:
        ValueError: nothing that `dump` makes.
    """
    if isinstance(found, list):
        return [load(item) for item in found]
    if not isinstance(found, dict):
        return found
    marks = [key for key in found if key.startswith("$")]
    if not marks:
        return {key: load(item) for key, item in found.items()}
    if len(found) > 1 or marks[0] not in _FROM:
        raise ValueError(f"{marks[0]!r} cannot stand there; known are {', '.join(_FROM)}")
    try:
        return _FROM[marks[0]](found[marks[0]])
    except TypeError as exc:
        raise ValueError(f"{marks[0]!r}: {exc}") from exc


def _repr(state: Any) -> dict[str, str]:
    return {"$repr": repr(state)}


def _no_form(state: Any) -> NoReturn:
    kind = type(getattr(state, "tzinfo", None) or state)
    raise StateError(
        f"the state holds a {kind.__module__}.{kind.__qualname__}, for which JSON has no form here"
    )


def _sorted(items: Any) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return list(items)
