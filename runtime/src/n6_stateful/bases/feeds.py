"""RSS and Atom: each entry is an item."""

from __future__ import annotations

import io
import re
from typing import Any

from n6_stateful.bases.downloading import BaseDownloadingCollector
from n6_stateful.bases.items import BaseSeenItemsCollector
from n6_stateful.bases.shape import default_body
from n6_stateful.errors import SourceError, needs_extra

FIELDS = ("id", "link", "title", "author", "published", "updated", "summary")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # not allowed in XML


class BaseFeedCollector(BaseDownloadingCollector, BaseSeenItemsCollector):
    """Publishes each entry of the RSS or Atom feed at `url`, and again when one of its fields has changed;
    nothing needs to be written.

    A message is a JSON object with the fields that the entry has: `id`, `link`, `title`, `author`,
    `published`, `updated` and `summary`, as text, unchanged; `content`, `categories` and `enclosures` (URLs),
    as lists of text. HTML is not sanitized; do that before showing it.
    """

    extra_config_options = """
        url :: str  ; where the feed is, http or https
        ; bytes; a larger feed is an error: parsing takes about ten times as much memory
        download_max_size = 33554432 :: int
    """

    def obtain_items(self) -> list[dict[str, Any]]:
        """The entries, each as a dict of its fields.

        Raises:
            SourceError: it is not a feed, or it is cut off.
            ConfigError: feedparser is not installed.
        """
        try:
            import feedparser
        except ImportError as exc:
            raise needs_extra("a feed", "feed", exc) from exc
        data = self.download(self.config["url"])
        if b"\x00" not in data[:4]:  # a NUL means UTF-16
            data = _CONTROL.sub(b"", data)
        # As a stream: feedparser would open a text that looks like a URL or a file name.
        feed = feedparser.parse(io.BytesIO(data), sanitize_html=False, resolve_relative_uris=False)
        if not feed.version:
            raise SourceError(f"this is neither RSS nor Atom: {data[:60]!r}; nothing was published")
        if not re.search(rb"(?i)</(\w+:)?(rss|rdf|feed)\s*>", data[-1000:].replace(b"\x00", b"")):
            raise SourceError("the feed is cut off; nothing was published")
        return [self.entry_fields(entry) for entry in feed.entries]

    def entry_fields(self, entry: Any) -> dict[str, Any]:
        """The published fields of an entry that feedparser has read."""
        get = dict(entry.items()).get  # feedparser's own `get` substitutes other fields for missing ones
        fields = {name: get(name) for name in FIELDS} | {
            "content": [part.get("value") for part in get("content", ())],
            "categories": [tag.get("term") for tag in get("tags", ())],
            "enclosures": [link.get("href") for link in get("links", ()) if link.get("rel") == "enclosure"],
        }
        return {name: value for name, value in fields.items() if value}

    def item_key(self, item: dict[str, Any]) -> str:
        """The entry's id, else its link, else its title."""
        return item.get("id") or item.get("link") or item.get("title") or ""

    def item_version(self, item: dict[str, Any]) -> str:
        """All published fields: any change counts."""
        return default_body(item).decode()
