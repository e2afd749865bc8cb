"""A collector for the tests of records: what it does is what its source says.

Run as a program it is the collector's console command.
"""

from __future__ import annotations

import time
from typing import Any

from n6_stateful import BaseCollector, CollectorWithStateMixin, NothingNew

BODY = b"192.0.2.7 is a part of what was published"


class WatchedCollector(CollectorWithStateMixin, BaseCollector):
    """Each line of the feed is what to do: `publish`, `fail` or `wait`; an empty feed has nothing new."""

    type = "stream"
    config_spec = """
        [watched]
        source :: str
        cache_dir :: path
        feed :: path
    """

    def run(self) -> None:
        """As the guide has it."""
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)

    def make_default_state(self) -> dict[str, Any]:
        """What the guide remembers."""
        return {"last_utc": ""}

    def start_publishing(self) -> None:
        """Do what the feed says."""
        steps = self.config["feed"].read_text().split()
        if not steps:
            raise NothingNew
        for number, step in enumerate(steps):
            if step == "fail":
                raise ValueError(f"cannot parse {BODY!r}")
            if step == "wait":
                self.config["feed"].with_name("waiting").touch()
                while True:
                    time.sleep(0.01)
            self.publish_output(*self.get_output_components(number=number))
        self.state["last_utc"] = "2026-01-02 03:04:05"
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        """The channel."""
        return "lines"

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        """The body."""
        return BODY


if __name__ == "__main__":
    WatchedCollector.run_script()
