"""The common base of the shapes, which load and save their state themselves."""

from __future__ import annotations

import json
import logging
from functools import cached_property
from typing import Any, SupportsBytes, TypeVar

from n6_stateful.bases.base import BaseCollector, StatefulCollectorMixin
from n6_stateful.errors import CollectorError, SourceError, StateError

LOGGER = logging.getLogger(__name__)
EXAMPLES = 5
BODY = (bytes, bytearray, memoryview, SupportsBytes)
T = TypeVar("T")


class StatefulBaseCollector(StatefulCollectorMixin, BaseCollector):
    """A collector that manages its state itself: it saves `state`, as changed by `start_publishing`, at the
    end of the run.

    Attributes:
        state_keys: the keys that every state must have.
        left_out: how many rows or items this run left out, or failed to obtain.
    """

    state_keys: tuple[str, ...] = ()
    left_out = 0
    _is_loaded = False

    def check_state(self, state: Any) -> None:
        """Raise `StateError` if `state` is not a state of this shape."""
        missing = [key for key in self.state_keys if not isinstance(state, dict) or key not in state]
        if missing:
            text = f"the state has no {' and no '.join(missing)}, so it is not one of a {type(self).__name__}"
            raise StateError(f"{text}: fix it with `state edit`, `state import` or `state reset`")

    def run(self) -> None:
        """Load the state, publish, and save the state."""
        self._is_loaded, self.left_out = False, 0
        self._left_out.clear()
        self.state = self.load_state()
        self._is_loaded = True
        super().run()
        self.save_state(self.state)

    def load_state(self) -> Any:
        """As in the base class; returns `state` once `run` has loaded it."""
        return self.state if self._is_loaded else super().load_state()

    @cached_property
    def _left_out(self) -> dict[str, list[str]]:
        return {}

    def leave_out(self, what: str, example: str) -> None:
        """Count a row or an item that is not published.

        Args:
            what: the kind of row or item, and why it is left out; texts in the log are grouped by it.
            example: the row or item itself, for the log.
        """
        self.left_out += 1
        examples = self._left_out.setdefault(what, [])
        examples.append(example if len(examples) < EXAMPLES else "...")

    def warn_of_left_out(self, all_of_them: str = "") -> None:
        """Log what was left out.

        Raises:
            SourceError: `all_of_them` is given, a text that explains what it means if nothing was usable.
        """
        texts = [
            f"{what}: {len(examples):,} ({'; '.join(examples[:EXAMPLES])})"
            for what, examples in self._left_out.items()
        ]
        if texts and all_of_them:
            raise SourceError(f"{'; '.join(texts)}; {all_of_them}; nothing was published")
        for text in texts:
            LOGGER.warning("%s", text)


def checked(hook: str, value: T, *kinds: type) -> T:
    """Return `value`, which one of the collector's hooks has returned.

    Raises:
        CollectorError: it has none of these types.
    """
    if not isinstance(value, kinds):
        raise CollectorError(f"{hook} must return {kinds[0].__name__}, not {type(value).__name__}")
    return value


def default_body(record: Any) -> bytes:
    """A record as a message's body: bytes as they are, text as UTF-8, anything else as JSON.

    Equal records give equal bytes, whatever the order of their keys. A lone surrogate, which UTF-8 cannot
    encode, is written as an escape.

    >>> default_body({"b": 1, "a": "ż"})
    b'{"a":"\\xc5\\xbc","b":1}'
    """
    if isinstance(record, bytes):
        return record
    if not isinstance(record, str):
        record = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return record.encode(errors="backslashreplace")  # type: ignore[no-any-return]
