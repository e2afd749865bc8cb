"""A finished collector of an RSS feed of defacements: the newest dozens of items, in no order to rely on.

Each `<item>` goes out as a message of its own, once, told from others by its `<guid>`.
"""

from __future__ import annotations

from xml.etree import ElementTree

from n6_stateful.bases import BaseDownloadingCollector, BaseSeenItemsCollector


class DefacementsCollector(BaseDownloadingCollector, BaseSeenItemsCollector):
    source_channel = "defacements"
    config_spec = """
        [defacements]
        source :: str
        cache_dir :: path
        url :: str
    """

    def obtain_items(self) -> list[ElementTree.Element]:
        feed = ElementTree.fromstring(self.download(self.config["url"]))  # noqa: S314 - expat bounds entities
        return feed.findall("channel/item")

    def item_key(self, item: ElementTree.Element) -> str:
        return item.findtext("guid", "") or item.findtext("link", "")

    def item_body(self, item: ElementTree.Element) -> bytes:
        return ElementTree.tostring(item)


if __name__ == "__main__":
    DefacementsCollector.run_script()
