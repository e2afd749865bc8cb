"""A finished collector of a MISP feed: `manifest.json` lists the events, and when each was last changed.

An event becomes a message of its own, and again when its timestamp has changed. Only what is new is
downloaded; an event that cannot be downloaded is tried again in the next run. The format:
https://www.misp-project.org/feeds/
"""

from __future__ import annotations

from typing import Any

from n6_stateful import SourceError
from n6_stateful.bases import BaseDownloadingCollector, BaseSeenItemsCollector


class MispCollector(BaseDownloadingCollector, BaseSeenItemsCollector):
    source_channel = "misp"
    config_spec = """
        [misp]
        source :: str
        cache_dir :: path
        url :: str  ; of the directory that manifest.json is in
    """

    def obtain_items(self) -> list[tuple[str, Any]]:
        manifest = self.download_json(f"{self.config['url']}/manifest.json") or {}  # PHP's empty object is []
        if not isinstance(manifest, dict):
            raise SourceError(f"manifest.json: expected events by their uuids, got {manifest!r:.60}")
        return sorted(manifest.items(), key=lambda item: int(item[1]["timestamp"]))

    def item_key(self, item: tuple[str, Any]) -> str:
        return item[0]

    def item_version(self, item: tuple[str, Any]) -> str:
        return str(item[1]["timestamp"])

    def item_body(self, item: tuple[str, Any]) -> bytes:
        return self.download(f"{self.config['url']}/{item[0]}.json")


if __name__ == "__main__":
    MispCollector.run_script()
