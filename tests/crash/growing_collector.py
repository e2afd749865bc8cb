"""A collector for tests: its source is a file of lines that grows; it may save in the middle of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n6_stateful import BaseCollector, CollectorWithStateMixin, NothingNew


class GrowingCollector(CollectorWithStateMixin, BaseCollector):
    type = "stream"
    config_spec = """
        [growing]
        source :: str
        cache_dir :: path
        url :: path
        exchange :: str
        save_every :: int  ; so many messages; 0: once, at the end
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_queue = {"exchange": self.config["exchange"], "exchange_type": "topic"}

    def make_default_state(self) -> dict[str, Any]:
        return {"taken": 0}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)

    def start_publishing(self) -> None:
        lines = Path(self.config["url"]).read_bytes().splitlines()
        new = lines[self.state["taken"] :]
        if not new:
            raise NothingNew
        for line in new:
            self.publish_output(*self.get_output_components(line=line))
            self.state["taken"] += 1
            if self.config["save_every"] and not self.state["taken"] % self.config["save_every"]:
                self.save_state(self.state)
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "lines"

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        return processed_data["line"]


if __name__ == "__main__":
    GrowingCollector.run_script()
