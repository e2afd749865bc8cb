"""What the shapes have in common: they load and save their state themselves."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, ClassVar

from n6_stateful.bases.base import BaseCollector, StatefulCollectorMixin
from n6_stateful.errors import StateError
from n6_stateful.state.store import Generation


class StatefulBaseCollector(StatefulCollectorMixin, BaseCollector):
    """A collector that manages its state itself: what `start_publishing` changes in `state` is saved once
    everything has arrived.

    Attributes:
        state_keys: what every state of it has, as it is a dict.
    """

    state_keys: ClassVar[frozenset[str]] = frozenset()

    def read_state(self, generation: Generation | None = None) -> tuple[Any, Generation]:
        """As in the mixin; `StateError`, too, if it is not a state of this shape."""
        state, found = super().read_state(generation)
        self._check_state(state, found.where)
        return state, found

    def save_as_new(self, state: Any, number: int, *, keep_previous: bool = True) -> None:
        """As in the mixin; `StateError`, too, if it is not a state of this shape."""
        self._check_state(state, "it was not saved")
        super().save_as_new(state, number, keep_previous=keep_previous)

    def _check_state(self, state: Any, where: str) -> None:
        missing = self.state_keys - state.keys() if isinstance(state, dict) else self.state_keys
        if missing:
            raise StateError(
                f"{where}: the state has no {' and no '.join(sorted(missing))}, so it is not one of a "
                f"{type(self).__name__}: `state edit` or `state import` a better one, or `state reset`"
            )

    def run(self) -> None:
        """Load the state, publish, and save the state."""
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)


def default_body(record: Any) -> bytes:
    """A record as a message's body: bytes as they are, text as UTF-8, anything else as JSON.

    The same record gives the same bytes, whatever the order of its keys. What UTF-8 cannot hold (a surrogate
    by itself, which JSON can) is written as its escape, or as the byte that it stands for in
    `surrogateescape`.

    >>> default_body({"b": 1, "a": "ż"})
    b'{"a":"\\xc5\\xbc","b":1}'
    """
    if isinstance(record, bytes):
        return record
    if isinstance(record, str):
        with suppress(UnicodeEncodeError):
            return record.encode(errors="surrogateescape")  # as Answer.text has what is not text
        return record.encode(errors="backslashreplace")
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a character, which JSON can hold, escaped
        return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
