"""What the shapes have in common: they load, save and name their state themselves."""

from __future__ import annotations

import json
from typing import Any

from n6_stateful.collector import BaseCollector
from n6_stateful.errors import CollectorError
from n6_stateful.state.mixin import CollectorWithStateMixin


class ChannelCollector(BaseCollector):
    """A collector whose channel is an attribute, or depends on the record.

    Attributes:
        source_channel: the part of the source after the dot, where it is always the same. Where it depends on
            the record, write `get_source_channel` instead.
    """

    source_channel = ""

    def get_source_channel(self, **processed_data: Any) -> str:
        """`source_channel`; to be written where it depends on the record."""
        if not self.source_channel:
            raise CollectorError(
                f"{type(self).__name__} has no channel: set source_channel, or, where it depends on the "
                "record, write get_source_channel(self, **processed_data)"
            )
        return self.source_channel


class StatefulBaseCollector(CollectorWithStateMixin, ChannelCollector):
    """A collector that manages its state itself: what `start_publishing` changes in `state` is saved once
    everything has arrived."""

    def run(self) -> None:
        """Load the state, publish, and save the state."""
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)

    def get_cache_file_name(self) -> str:
        """The state's name, `<source>.<ClassName>.pickle`; without the channel where that depends on the
        record."""
        source = ".".join(filter(None, (self.config["source"], self.source_channel)))
        return f"{source}.{type(self).__name__}.pickle"


def default_body(record: Any) -> bytes:
    """A record as a message's body: bytes as they are, text as UTF-8, anything else as JSON.

    The same record gives the same bytes, whatever the order of its keys.

    >>> default_body({"b": 1, "a": "ż"})
    b'{"a":"\\xc5\\xbc","b":1}'
    """
    if isinstance(record, bytes):
        return record
    if isinstance(record, str):
        return record.encode()
    return json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
