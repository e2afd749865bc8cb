"""What the shapes have in common: they load and save their state themselves."""

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
    """A collector that manages its state itself: what `start_publishing` changes in `state` is saved at the
    end of the run.

    Attributes:
        state_keys: the keys that each of its states has.
        left_out: how many rows or items of this run were left out, or failed.
    """

    state_keys: tuple[str, ...] = ()
    left_out = 0
    _is_loaded = False

    def check_state(self, state: Any) -> None:
        """Raise `StateError` if it is not a state of this shape."""
        missing = [key for key in self.state_keys if not isinstance(state, dict) or key not in state]
        if missing:
            text = f"the state has no {' and no '.join(missing)}, so it is not one of a {type(self).__name__}"
            raise StateError(f"{text}: `state edit` or `state import` a better one, or `state reset`")

    def run(self) -> None:
        """Load the state, publish, and save the state."""
        self._is_loaded, self.left_out = False, 0
        self._left_out.clear()
        self.state = self.load_state()
        self._is_loaded = True
        super().run()
        self.save_state(self.state)

    def load_state(self) -> Any:
        """As in the base class; once `run` has loaded it, `state`."""
        return self.state if self._is_loaded else super().load_state()

    @cached_property
    def _left_out(self) -> dict[str, list[str]]:
        return {}

    def leave_out(self, what: str, example: str) -> None:
        """Count a row or an item that is not published.

        Args:
            what: what such ones are called, and why they are left out.
            example: what it looks like, for the log.
        """
        self.left_out += 1
        examples = self._left_out.setdefault(what, [])
        examples.append(example if len(examples) < EXAMPLES else "...")

    def warn_of_left_out(self, all_of_them: str = "") -> None:
        """Log what was left out.

        Raises:
            SourceError: `all_of_them` is given, and says what that means.
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
    """What a hook of the collector returned, if it is of one of these kinds.

    Raises:
        CollectorError: it is not.
    """
    if not isinstance(value, kinds):
        raise CollectorError(f"{hook} must return {kinds[0].__name__}, not {type(value).__name__}")
    return value


def default_body(record: Any) -> bytes:
    """A record as a message's body: bytes as they are, text as UTF-8, anything else as JSON.

    The same record gives the same bytes, whatever the order of its keys. What UTF-8 cannot hold (a surrogate
    by itself, which JSON can) is written as its escape.

    >>> default_body({"b": 1, "a": "ż"})
    b'{"a":"\\xc5\\xbc","b":1}'
    """
    if isinstance(record, bytes):
        return record
    if not isinstance(record, str):
        record = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return record.encode(errors="backslashreplace")  # type: ignore[no-any-return]
