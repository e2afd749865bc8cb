"""A state as JSON, and back: what JSON has no word for is written as `{"$type": value}`."""

from __future__ import annotations

import base64
import datetime

from n6_stateful.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_TO: dict[type, tuple[str, Callable[[Any], Any]]] = {
    set: ("$set", lambda value: [_dump(item) for item in _sorted(value)]),
    frozenset: ("$frozenset", lambda value: [_dump(item) for item in _sorted(value)]),
    tuple: ("$tuple", lambda value: [_dump(item) for item in value]),
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode()),
    datetime.datetime: ("$datetime", lambda value: _datetime(value)),
    datetime.date: ("$date", datetime.date.isoformat),
}
_FROM: dict[str, Callable[[Any], Any]] = {
    "$set": lambda value: {load(item) for item in value},
    "$frozenset": lambda value: frozenset(load(item) for item in value),
    "$tuple": lambda value: tuple(load(item) for item in value),
    "$bytes": lambda value: base64.b64decode(value, validate=True),
    "$datetime": datetime.datetime.fromisoformat,
    "$date": datetime.date.fromisoformat,
    "$dict": lambda value: {load(key): load(item) for key, item in value},
}


def dump(state: Any) -> Any:
    """`state` in the words of JSON.

    Raises:
        StateError: it holds something that is neither plain data nor one of the types above, or itself.
    """
    try:
        return _dump(state)
    except RecursionError as exc:
        raise StateError("the state is too deep for JSON, or holds itself") from exc


def _dump(state: Any) -> Any:
    kind = type(state)
    if state is None or kind in (bool, int, float, str):
        return state
    if kind is list:
        return [_dump(item) for item in state]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in state):
            return {key: _dump(item) for key, item in state.items()}
        return {"$dict": [[_dump(key), _dump(item)] for key, item in state.items()]}
    if kind in _TO:
        name, convert = _TO[kind]
        return {name: convert(state)}
    raise _no_form(kind)


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


def _datetime(value: datetime.datetime) -> str:
    # Of any other zone only the offset of that moment would be left.
    if type(value.tzinfo) not in (type(None), datetime.timezone):
        raise _no_form(type(value.tzinfo))
    return value.isoformat()


def _no_form(kind: type) -> StateError:
    return StateError(
        f"the state holds a {kind.__module__}.{kind.__qualname__}, for which JSON has no form here"
    )


def _sorted(items: Any) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return list(items)
