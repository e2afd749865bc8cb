"""States as JSON, and back: what JSON has no notation for is written as `{"$type": value}`.

`{"$set": [1, 2]}`, `{"$tuple": []}`, `{"$bytes": "AP8="}` (base64), `{"$datetime": "2026-01-02T03:04:05"}`;
`{"$dict": [[key, value], ...]}` if a key is not a string. The other marks are the types in `FORMS`.
"""

from __future__ import annotations

import datetime
import ipaddress
from base64 import b64decode, b64encode
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from time import struct_time
from typing import Any
from uuid import UUID

from n6_stateful.errors import StateError

FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (list, dict, set, int, float, str)} | {"": None}
FACTORY_NAMES = {factory: name for name, factory in FACTORIES.items()}


def _pairs(value: Any) -> list[list[Any]]:
    return [list(pair) for pair in value.items()]


def _sorted(items: Any) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return list(items)


def _iso(value: Any) -> Any:
    return [value.isoformat(), value.fold] if value.fold else value.isoformat()


def _from_iso(kind: Any, written: Any) -> Any:
    text, fold = (written, 0) if isinstance(written, str) else written
    return kind.fromisoformat(text).replace(fold=fold)


def _parts(value: datetime.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


# For each type: what it is written as, made of types that can be written, and how it is read.
FORMS: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    set: (_sorted, set),
    frozenset: (_sorted, frozenset),
    tuple: (list, tuple),
    dict: (_pairs, dict),
    bytes: (lambda value: b64encode(value).decode(), lambda text: b64decode(text, validate=True)),
    bytearray: (
        lambda value: b64encode(value).decode(),
        lambda text: bytearray(b64decode(text, validate=True)),
    ),
    OrderedDict: (_pairs, OrderedDict),
    Counter: (_pairs, lambda pairs: Counter(dict(pairs))),
    deque: (lambda value: [list(value), value.maxlen], lambda parts: deque(*parts)),
    defaultdict: (
        lambda value: [FACTORY_NAMES[value.default_factory], _pairs(value)],
        lambda parts: defaultdict(FACTORIES[parts[0]], parts[1]),
    ),
    datetime.datetime: (_iso, partial(_from_iso, datetime.datetime)),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: (_iso, partial(_from_iso, datetime.time)),
    datetime.timedelta: (_parts, lambda parts: datetime.timedelta(*parts)),
    datetime.timezone: (lambda value: value.utcoffset(None), datetime.timezone),
    struct_time: (list, struct_time),
    **{kind: (str, kind) for kind in (complex, Decimal, Fraction, UUID)},
    **{kind: (str, kind) for name, kind in vars(ipaddress).items() if name[:3] == "IPv" and name[4] in "AIN"},
}
MARKS = {kind: f"${kind.__name__.lower()}" for kind in FORMS}
_READ = {MARKS[kind]: read for kind, (_, read) in FORMS.items()}


def dump(state: Any, *, show: bool = False) -> Any:
    """`state` as the module `json` can write it.

    Args:
        state: plain data.
        show: write what has no notation as `{"$repr": text}`, which `load` does not read.

    Raises:
        StateError: the state holds something without a notation here, or holds itself.
    """
    try:
        return _dump(state, show)
    except RecursionError as exc:
        raise StateError("the state is too deep for JSON, or holds itself") from exc


def _dump(state: Any, show: bool) -> Any:
    kind = type(state)
    if state is None or kind in (bool, int, float, str):
        return state
    if kind is list:
        return [_dump(item, show) for item in state]
    if kind is dict and all(type(key) is str and key[:1] != "$" for key in state):
        return {key: _dump(item, show) for key, item in state.items()}
    try:
        written = FORMS[kind][0](state)
    except LookupError:
        if show:
            return {"$repr": repr(state)}
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise StateError(f"the state holds a {name}, which JSON cannot express") from None
    return {MARKS[kind]: _dump(written, show)}


def load(written: Any) -> Any:
    """The state that `dump` has written.

    Raises:
        ValueError: `dump` cannot have written it.
    """
    if isinstance(written, list):
        return [load(item) for item in written]
    if not isinstance(written, dict):
        return written
    marks = [key for key in written if key.startswith("$")]
    if not marks:
        return {key: load(item) for key, item in written.items()}
    if len(written) > 1 or marks[0] not in _READ:
        raise ValueError(f"{marks[0]!r} is not expected there; the marks are {', '.join(_READ)}")
    try:
        return _READ[marks[0]](load(written[marks[0]]))
    except (TypeError, ArithmeticError, AttributeError, LookupError) as exc:
        raise ValueError(f"{marks[0]!r}: {exc}") from exc
