"""A collector's console command, for stories that need processes: its run waits until its gate is opened.

python -m tests.stories.program [arguments of the command]
"""

from __future__ import annotations

from pathlib import Path

from tests.stories.shapes import SPEC, GuideCollector


class GatedCollector(GuideCollector):
    config_spec = SPEC + "gate :: path"

    def start_publishing(self) -> None:
        gate: Path = self.config["gate"]
        print("collecting", flush=True)
        with gate.open("rb") as fifo:  # blocks until it is opened for writing, and read to its end
            fifo.read()
        super().start_publishing()


if __name__ == "__main__":
    GatedCollector.run_script()
