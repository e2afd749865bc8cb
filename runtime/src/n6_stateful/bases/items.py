"""Things without an order, which come, change and go: an RSS feed, a manifest, lines of a list."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from math import inf
from struct import Struct
from typing import Any

from n6_stateful.bases.shape import StatefulBaseCollector, default_body
from n6_stateful.errors import NothingNew, SourceError

LOGGER = logging.getLogger(__name__)

# A mark is 16 bytes: which thing it is, and in which version. The digests are keyed with a secret of the
# state, so that nobody who writes into a feed can make two things share a mark.
KEY_SIZE, VERSION_SIZE = 10, 6
_MARKS = Struct(f"{KEY_SIZE + VERSION_SIZE}s")
HOUR = 3600


class BaseSeenItemsCollector(StatefulBaseCollector):
    """Publishes each thing once, and again when its version changes.

    To be written: `obtain_items` and `item_key`; perhaps `item_version` and `item_body`.

    The state holds a mark of 16 bytes for each thing, in the order of when the source showed it last:
    `{"secret": bytes, "seen": {hours since 1970: marks, one after the other}}`. What the source has not shown
    for `forget_after` is forgotten.
    """

    raw_type = "stream"
    extra_config_options = """
        ; how long a thing that is gone is remembered, so that it is not new when it returns, like 12h or 30d
        forget_after = 30d :: duration
    """

    def obtain_items(self) -> Iterable[Any]:
        """Everything that the source shows now, in the order in which it is to be published. An item may
        change once the next one is asked for: its message is made by then."""
        raise NotImplementedError(f"{type(self).__name__}.obtain_items() is not written yet")

    def item_key(self, item: Any) -> str:
        """What tells one thing from another, for as long as it exists: an id, a link."""
        raise NotImplementedError(f"{type(self).__name__}.item_key() is not written yet")

    def item_version(self, item: Any) -> str | None:
        """What changes when the thing does, such as a time or a revision; it is published again then."""
        return ""

    def item_body(self, item: Any) -> bytes:
        """The message's body: bytes as they are, text as UTF-8, anything else as JSON."""
        return default_body(item)

    def hour(self) -> int:
        """The hours since 1970."""
        return int(time.time()) // HOUR

    def get_state_keys(self) -> frozenset[str]:
        """What `make_default_state` has."""
        return frozenset(("secret", "seen"))

    def make_default_state(self) -> dict[str, Any]:
        """Nothing was seen yet."""
        return {"secret": os.urandom(16), "seen": {}}

    def start_publishing(self) -> None:
        """Publish what was not seen before, and remember what the source shows now."""
        hours: float = -(-self.config["forget_after"] // HOUR)
        now = self.hour()
        # When each was shown last; None is now.
        seen: dict[bytes, int | None] = {
            mark: hour for hour, marks in self.state["seen"].items() for (mark,) in _MARKS.iter_unpack(marks)
        }
        changed: set[bytes] = set()
        new, odd = [], []
        mark_of = self._make_marker()
        try:
            for item in self.obtain_items():
                mark = mark_of(item)
                if mark is None:
                    odd.append(f"{item!r:.200}")
                    continue
                if mark not in seen:
                    new.append(self.get_output_components(item=item))
                    changed.add(mark[:KEY_SIZE])
                seen[mark] = None
        except NothingNew:
            if not new:
                raise
            hours = inf  # what is not shown may be there all the same
        kept: dict[int, list[bytes]] = {now: [mark for mark, hour in seen.items() if hour is None]}
        if odd:
            text = f"items without a key: {len(odd):,}; the first is {odd[0]}"
            if not kept[now]:
                raise SourceError(f"{text}; item_key() has to return a str; nothing was published")
            LOGGER.warning("%s; left out", text)
        for each in new:  # once all could be read: what an error leaves unsaved comes again at each run
            self.publish_output(*each)
        if len(kept[now]) < len(seen):
            for mark, hour in seen.items():
                if hour is not None and hour >= now - hours and mark[:KEY_SIZE] not in changed:
                    kept.setdefault(hour, []).append(mark)
        self.state["seen"] = {hour: b"".join(marks) for hour, marks in kept.items() if marks}
        self.inner_stop()

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        """`item_body`."""
        return self.item_body(processed_data["item"])

    def _make_marker(self) -> Callable[[Any], bytes | None]:
        secret = self.state["secret"]
        begun = blake2b(digest_size=KEY_SIZE, key=secret)
        unversioned = blake2b(digest_size=VERSION_SIZE, key=secret).digest()

        copy, item_key, item_version = begun.copy, self.item_key, self.item_version
        surrogates = "surrogatepass"  # JSON can hold them

        def mark_of(item: Any) -> bytes | None:
            name, version = item_key(item), item_version(item) or ""
            if not isinstance(name, str) or not name:
                return None
            key = copy()
            key.update(name.encode("utf-8", surrogates))
            if not version:
                return key.digest() + unversioned
            revision = version.encode("utf-8", surrogates)
            return key.digest() + blake2b(revision, digest_size=VERSION_SIZE, key=secret).digest()

        return mark_of
