"""A finished collector of an RSS feed of defacements: the newest dozens of items, in no order to rely on.

Each item becomes a message of its own, in JSON, and is identified by its `<guid>`.
"""

from __future__ import annotations

from n6_stateful.bases import BaseFeedCollector


class DefacementsCollector(BaseFeedCollector):
    source_channel = "defacements"
    config_spec = """
        [defacements]
        source :: str
        cache_dir :: path
    """


if __name__ == "__main__":
    DefacementsCollector.run_script()
