"""How long it takes to import the runtime, and to run a collector without a broker, against bare Python.

    python benchmarks/cold_start.py [--runs 21]

Prints medians of whole processes and their ratios, all measured in one sitting, in turn (A B C A B C ...), so
that a machine whose speed drifts favours nobody. Needs the runtime installed. A run that publishes to
RabbitMQ is a case of benchmarks/delivery.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.one_message import collector, whole_process

BARE = "Python, logging, configparser, pickle, sqlite3"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=21, help="counted runs of each (default: 21)")
    runs = parser.parse_args().runs

    with tempfile.TemporaryDirectory() as directory:
        programs = {
            BARE: [sys.executable, "-c", "import logging, configparser, pickle, sqlite3"],
            "import n6_stateful": [sys.executable, "-c", "import n6_stateful"],
            "collector, one message into the outbox": collector(Path(directory), "outbox:"),
        }
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for count in range(runs + 1):
            for name, argv in programs.items():
                figures = whole_process(argv)
                if count:  # the first round warms up
                    measured[name].append(figures)

    print(f"medians of {runs} whole processes, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    print(f"{'':45} {'wall ms':>8} {'CPU ms':>8} {'ratio':>7}")
    yardstick = statistics.median(wall for wall, _ in measured[BARE])
    for name, rows in measured.items():
        wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:45} {wall * 1e3:8.1f} {cpu * 1e3:8.1f} {wall / yardstick:7.2f}")


if __name__ == "__main__":
    main()
