"""What the shapes have in common: they load and save their state themselves."""

from __future__ import annotations

import json
from typing import Any

from n6_stateful.bases.base import BaseCollector, StatefulCollectorMixin
from n6_stateful.errors import StateError


class StatefulBaseCollector(StatefulCollectorMixin, BaseCollector):
    """A collector that manages its state itself: what `start_publishing` changes in `state` is saved once
    everything has arrived."""

    def get_state_keys(self) -> frozenset[str]:
        """What every state of it has, as it is a dict."""
        return frozenset()

    def check_state(self, state: Any) -> None:
        """Raise `StateError` if it is not a state of this shape."""
        missing = self.get_state_keys() - (state.keys() if isinstance(state, dict) else set())
        if missing:
            raise StateError(
                f"the state has no {' and no '.join(sorted(missing))}, so it is not one of a "
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
    by itself, which JSON can) is written as its escape.

    >>> default_body({"b": 1, "a": "ż"})
    b'{"a":"\\xc5\\xbc","b":1}'
    """
    if isinstance(record, bytes):
        return record
    if isinstance(record, str):
        return record.encode(errors="backslashreplace")
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a character, which JSON can hold, escaped
        return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
