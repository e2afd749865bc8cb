"""Items that appear, change and disappear in any order: a manifest, the lines of a list, a feed's entries."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from math import inf
from typing import Any

from n6_stateful.bases.shape import BODY, StatefulBaseCollector, checked, default_body
from n6_stateful.errors import NothingNew, SourceError, StateError

# A mark is 16 bytes: digests of an item's key and of its version. They are keyed with a secret in the state,
# so that no one who can write into a feed can craft two items with the same mark.
KEY_SIZE, VERSION_SIZE = 10, 6
MARK_SIZE = KEY_SIZE + VERSION_SIZE
HOUR = 3600

WITHOUT_KEY = "items without a key (item_key() must return a str), left out"
SHARED = "items with the same key as another, left out (write item_version(), or a longer key)"
FAILED = "items that could not be obtained; the next run tries them again"


class BaseSeenItemsCollector(StatefulBaseCollector):
    """Publishes each item once, and again when its version changes.

    To be written: `obtain_items` and `item_key`; perhaps `item_version` and `item_body`.

    If `item_body` raises `SourceError`, the other items are published, and the next run tries this one again.
    Of several items with the same key (and version) only the first is published. Both log a WARNING.

    The state holds a mark of 16 bytes for each item, grouped by the hour when the source showed it last:
    `{"secret": bytes, "seen": {hours since 1970: marks, concatenated}}`. An item that the source has not
    shown for `forget_after` is forgotten.
    """

    raw_type = "stream"
    state_keys = "secret", "seen"
    extra_config_options = """
        ; how long to remember an item that has disappeared, so that it is not new when it returns: 12h, 30d
        forget_after = 30d :: duration
    """

    def obtain_items(self) -> Iterable[Any]:
        """Everything that the source shows now, in the order of publication. A generator may reuse an item's
        object for the next one: its message is made by then."""
        raise NotImplementedError(f"{type(self).__name__}.obtain_items() is not written yet")

    def item_key(self, item: Any) -> str:
        """What identifies the item for as long as it exists: an id, a link."""
        raise NotImplementedError(f"{type(self).__name__}.item_key() is not written yet")

    def item_version(self, item: Any) -> str | None:
        """What changes when the item does, such as a time or a revision; it is published again then."""
        return ""

    def item_body(self, item: Any) -> bytes:
        """The message's body: bytes as they are, text as UTF-8, anything else as JSON.

        Raises:
            SourceError: this item cannot be obtained now; the next run tries again.
        """
        return default_body(item)

    def hour(self) -> int:
        """The hours since 1970."""
        return int(time.time()) // HOUR

    def make_default_state(self) -> dict[str, Any]:
        """Nothing was seen yet."""
        return {"secret": os.urandom(16), "seen": {}}

    def without_item(self, state: dict[str, Any], key: str) -> dict[str, Any]:
        """For `state forget`: the state without the item with that key.

        Raises:
            StateError: there is no such item.
        """
        name = key.encode("utf-8", "surrogatepass")
        digest = blake2b(name, digest_size=KEY_SIZE, key=state["secret"]).digest()
        kept = {
            hour: b"".join(mark for mark in marks_in(marks) if mark[:KEY_SIZE] != digest)
            for hour, marks in state["seen"].items()
        }
        if kept == state["seen"]:
            raise StateError(f"the state has no item with the key {key!r}; nothing was changed")
        return {**state, "seen": {hour: marks for hour, marks in kept.items() if marks}}

    def start_publishing(self) -> None:
        """Publish the items that are new or changed, and remember what the source shows now.

        Raises:
            SourceError: no item could be used.
        """
        mark_of = self._marker()
        # The hour when each was last shown; for those shown now, a fingerprint (a float).
        seen: dict[bytes, float] = {
            mark: hour for hour, marks in self.state["seen"].items() for mark in marks_in(marks)
        }
        renewed = set[bytes]()
        now = self.hour()
        since: float = now - -(-self.config["forget_after"] // HOUR)
        try:
            for item in checked("obtain_items()", self.obtain_items(), Iterable):
                mark, fingerprint = mark_of(item), float(hash(repr(item)))
                last = seen.get(mark)
                if not mark:
                    self.leave_out(WITHOUT_KEY, f"{item!r:.200}")
                elif isinstance(last, float):
                    if last != fingerprint:
                        self.leave_out(SHARED, f"{self.item_key(item)!r:.200}")
                elif last is not None or self._is_published(item):
                    seen[mark] = fingerprint
                    if last is None:
                        renewed.add(mark[:KEY_SIZE])
        except NothingNew:
            since = -inf  # an item that was not shown may still exist
        kept = {now: [mark for mark, hour in seen.items() if isinstance(hour, float)]}
        self.warn_of_left_out("no item could be used" if self.left_out and not kept[now] else "")
        for mark, hour in seen.items():
            if isinstance(hour, int) and hour >= since and mark[:KEY_SIZE] not in renewed:
                kept.setdefault(hour, []).append(mark)
        self.state["seen"] = {hour: b"".join(marks) for hour, marks in kept.items() if marks}
        self.inner_stop()

    def _is_published(self, item: Any) -> bool:
        """Publish an item; False if the source could not provide it."""
        try:
            self.publish_output(*self.get_output_components(item=item))
        except SourceError as exc:
            self.leave_out(FAILED, str(exc))
            return False
        return True

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        """`item_body`."""
        return checked("item_body()", self.item_body(processed_data["item"]), *BODY)

    def _marker(self) -> Callable[[Any], bytes]:
        """A function that returns an item's mark, empty if the item has no key."""
        secret, item_key, item_version = self.state["secret"], self.item_key, self.item_version
        begin_key = blake2b(digest_size=KEY_SIZE, key=secret).copy
        unversioned = blake2b(digest_size=VERSION_SIZE, key=secret).digest()

        def mark_of(item: Any) -> bytes:
            key, version = item_key(item), item_version(item)
            if not isinstance(key, str) or not key:
                return b""
            digest = begin_key()
            digest.update(key.encode("utf-8", "surrogatepass"))
            if not version:
                return digest.digest() + unversioned
            revision = checked("item_version()", version, str).encode("utf-8", "surrogatepass")
            return digest.digest() + blake2b(revision, digest_size=VERSION_SIZE, key=secret).digest()

        return mark_of


def marks_in(marks: bytes) -> Iterator[bytes]:
    """Split concatenated marks."""
    return (marks[at : at + MARK_SIZE] for at in range(0, len(marks), MARK_SIZE))
