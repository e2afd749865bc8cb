"""Tells where in a state the thing is that does not pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def culprit(state: object, dump: Callable[[object], None], path: str = "state") -> str:
    """The path to the innermost object for which `dump` raises, for instance `state['session'].lock`."""
    for below, item in _items(state, path):
        if not _pickles(item, dump):
            return culprit(item, dump, below) if path.count(".") + path.count("[") < 20 else below
    return f"{path} (a {type(state).__name__})"


def _pickles(item: object, dump: Callable[[object], None]) -> bool:
    try:
        dump(item)
    except Exception:  # whatever a class's __reduce__ raises
        return False
    return True


def _items(state: Any, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield f"{path} key {key!r}", key
            yield f"{path}[{key!r}]", value
    elif isinstance(state, (list, tuple, set, frozenset)):
        for number, item in enumerate(state):
            yield f"{path}[{number}]", item
    for name, value in ({} if isinstance(state, type) else getattr(state, "__dict__", {})).items():
        if not name.startswith("__"):  # what Python itself keeps there, as in members of an Enum
            yield f"{path}.{name}", value
