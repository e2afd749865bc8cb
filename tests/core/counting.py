"""A collector for tests: its source is a list of records; the state counts those it has collected."""

from __future__ import annotations

from typing import Any, ClassVar

from n6_stateful import BaseCollector, CollectorWithStateMixin, NothingNew

CONFIG = """
[counting]
source = provider
cache_dir = {tmp}/cache
"""


class CountingCollector(CollectorWithStateMixin, BaseCollector):
    type = "stream"
    config_spec = """
        [counting]
        source :: str
        cache_dir :: path
    """
    records: ClassVar[list[bytes]] = []
    save_every = 0

    def make_default_state(self) -> dict[str, Any]:
        return {"collected": 0}

    def run(self) -> None:
        self.state = self.load_state()
        self.began_with = self.state["collected"]
        super().run()
        self.save_state(self.state)

    def start_publishing(self) -> None:
        new = self.records[self.state["collected"] :]
        if not new:
            raise NothingNew
        for record in new:
            self.publish_output(*self.get_output_components(record=record))
            self.state["collected"] += 1
            if self.save_every and self.state["collected"] % self.save_every == 0:
                self.save_state(self.state)
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "channel"

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        return processed_data["record"]


def with_records(count: int, **attributes: Any) -> type[CountingCollector]:
    """The class with a source of so many records."""
    records = [b"record %d" % number for number in range(count)]
    members = {"records": records, "__module__": __name__, "__qualname__": "CountingCollector", **attributes}
    return type("CountingCollector", (CountingCollector,), members)
