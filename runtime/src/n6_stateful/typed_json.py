"""Plain data as JSON, and back: what JSON has no word for is written as `{"$type": value}`."""

from __future__ import annotations

import base64
import datetime
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

from n6_stateful.errors import StateError


def _pairs(value: Any) -> list[list[Any]]:
    return [list(pair) for pair in value.items()]


def _sorted(items: Any) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return list(items)


def _b64(value: Any) -> str:
    return base64.b64encode(value).decode()


def _from_b64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _bounds(value: Any) -> list[Any]:
    return [value.start, value.stop, value.step]


def _arguments(value: Any) -> list[Any]:
    return list(value.__reduce__()[1])


def _time(value: Any) -> Any:
    zone = value.tzinfo
    if not value.fold and (zone is None or (type(zone) is datetime.timezone and len(_arguments(zone)) == 1)):
        return value.isoformat()
    return [value.replace(tzinfo=None, fold=0).isoformat(), zone, value.fold]


def _from_time(kind: Any, found: Any) -> Any:
    text, zone, fold = (found, None, 0) if isinstance(found, str) else found
    made = kind.fromisoformat(text)
    return made.replace(tzinfo=zone or made.tzinfo, fold=fold)


def _from_text(name: str, text: str) -> Any:
    module, _, kind = name.rpartition(".")
    return getattr(import_module(module), kind)(text)


_AS_TEXT = """
    decimal.Decimal fractions.Fraction builtins.complex uuid.UUID zoneinfo.ZoneInfo
    ipaddress.IPv4Address ipaddress.IPv4Interface ipaddress.IPv4Network
    ipaddress.IPv6Address ipaddress.IPv6Interface ipaddress.IPv6Network
    pathlib.PosixPath pathlib.PurePosixPath pathlib.PureWindowsPath
"""
_FACTORIES = {kind.__name__: kind for kind in (list, dict, set, int, float, str)} | {"": None}
_FACTORY_NAMES = {kind: name for name, kind in _FACTORIES.items()}

# For each type: what it is written as, made of types that have a form, and how it is made of that again.
_FORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "builtins.set": (_sorted, set),
    "builtins.frozenset": (_sorted, frozenset),
    "builtins.tuple": (list, tuple),
    "builtins.dict": (_pairs, dict),
    "builtins.bytes": (_b64, _from_b64),
    "builtins.bytearray": (_b64, lambda text: bytearray(_from_b64(text))),
    "builtins.range": (_bounds, lambda found: range(*found)),
    "builtins.slice": (_bounds, lambda found: slice(*found)),
    "collections.OrderedDict": (_pairs, OrderedDict),
    "collections.Counter": (_pairs, lambda pairs: Counter(dict(pairs))),
    "collections.deque": (lambda value: [list(value), value.maxlen], lambda found: deque(*found)),
    "collections.defaultdict": (
        lambda value: [_FACTORY_NAMES[value.default_factory], _pairs(value)],
        lambda found: defaultdict(_FACTORIES[found[0]], found[1]),
    ),
    "datetime.datetime": (_time, partial(_from_time, datetime.datetime)),
    "datetime.time": (_time, partial(_from_time, datetime.time)),
    "datetime.date": (str, datetime.date.fromisoformat),
    "datetime.timedelta": (_arguments, lambda found: datetime.timedelta(*found)),
    "datetime.timezone": (_arguments, lambda found: datetime.timezone(*found)),
    **{name: (str, partial(_from_text, name)) for name in _AS_TEXT.split()},
}
_FROM = {f"${name.rpartition('.')[2].lower()}": load for name, (_, load) in _FORMS.items()}


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
    kind = type(state)
    if state is None or kind in (bool, int, float, str):
        return state
    if kind is list:
        return [_dump(item, other) for item in state]
    if kind is dict and all(type(key) is str and not key.startswith("$") for key in state):
        return {key: _dump(item, other) for key, item in state.items()}
    name = f"{kind.__module__.removesuffix('._local')}.{kind.__qualname__}"
    try:
        written = _FORMS[name][0](state)
    except KeyError:
        return other(state)
    return {f"${kind.__name__.lower()}": _dump(written, other)}


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
        return _FROM[marks[0]](load(found[marks[0]]))
    except (TypeError, ArithmeticError, AttributeError, LookupError) as exc:
        raise ValueError(f"{marks[0]!r}: {exc}") from exc


def _repr(state: Any) -> dict[str, str]:
    return {"$repr": repr(state)}


def _no_form(state: Any) -> NoReturn:
    kind = type(state)
    raise StateError(
        f"the state holds a {kind.__module__}.{kind.__qualname__}, for which JSON has no form here"
    )
