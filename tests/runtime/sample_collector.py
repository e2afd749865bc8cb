"""A collector for tests: its source is a text file, each line a record; the file may grow.

Run as a program it is the collector's console command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n6_stateful import BaseCollector, CollectorWithStateMixin, NothingNew


class SampleCollector(CollectorWithStateMixin, BaseCollector):
    type = "stream"
    config_spec = """
        [sample]
        source :: str
        cache_dir :: path
        url :: path
    """

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
        self.state["taken"] = len(lines)
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "lines"

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        return processed_data["line"]


if __name__ == "__main__":
    SampleCollector.run_script()
