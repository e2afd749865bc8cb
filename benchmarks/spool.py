"""How fast the spool takes messages, against `executemany` in one transaction written by hand.

    python benchmarks/spool.py [--rounds 5]

Messages of 1 KiB with different bodies: given to the spool, and through a collector's run(), which makes
their ids. Every figure is a process of its own; they take turns. The ratios are of time. Needs the runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
PADDING = bytes(1004)


def by_hand(count: int, directory: Path) -> float:
    """The same columns and the same unique id, in one statement."""
    database = sqlite3.connect(directory / "by-hand", isolation_level=None)
    database.execute("PRAGMA synchronous = EXTRA")
    database.execute(
        "CREATE TABLE message (number INTEGER PRIMARY KEY, message_id TEXT UNIQUE, owner TEXT, "
        "generation TEXT, exchange TEXT, routing_key TEXT, properties TEXT, spooled REAL, body BLOB)"
    )

    def rows() -> Iterator[tuple[object, ...]]:
        for number in range(count):
            body = b"%020d" % number + PADDING
            message_id = f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}"
            yield message_id, "o", "g", "raw", "a.b", "{}", time.time(), body

    started = time.perf_counter()
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        "INSERT INTO message (message_id, owner, generation, exchange, routing_key, properties, spooled, "
        "body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        rows(),
    )
    database.execute("COMMIT")
    return time.perf_counter() - started


def spool(count: int, directory: Path) -> float:
    """The spool as an output, given messages."""
    from n6_stateful.message import Exchange, Message
    from n6_stateful.output.spool import Spool

    output = Spool(directory / "spool")
    output.open([Exchange("raw", "topic")], "o", ("g",))
    started = time.perf_counter()
    for number in range(count):
        message_id = f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}"
        properties = {"delivery_mode": 2, "type": "stream", "message_id": message_id}
        output.publish(Message("raw", "a.b", b"%020d" % number + PADDING, properties, "g"))
    output.close()
    return time.perf_counter() - started


def run(count: int, directory: Path) -> float:
    """A collector's run() into a spool, with its message ids."""
    from n6_stateful import QueuedBase
    from n6_stateful.output.spool import Spool

    class Publisher(QueuedBase):
        output_queue = {"exchange": "raw", "exchange_type": "topic"}

        def make_output(self) -> Spool:
            return Spool(directory / "spool")

        def start_publishing(self) -> None:
            for number in range(count):
                self.publish_output("a.b", b"%020d" % number + PADDING, {"type": "stream"})

    publisher = Publisher()
    started = time.perf_counter()
    publisher.run()
    return time.perf_counter() - started


WAYS: dict[str, Callable[[int, Path], float]] = {"by hand": by_hand, "spool": spool, "run()": run}


def one(way: str, count: int) -> dict[str, float]:
    """Seconds and peak MiB of a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", way, str(count)], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each (default: 5)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        with tempfile.TemporaryDirectory() as directory:
            own = WAYS[args.one[0]](int(args.one[1]), Path(directory))
        own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": own, "peak": own_peak}))
        return
    print(f"medians of {args.rounds} processes each, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    print(f"{'messages':>12}" + "".join(f"{way + '/s':>12} {'MiB':>6} {'ratio':>6}" for way in WAYS))
    for count in COUNTS:
        taken: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(args.rounds):
            for way in WAYS:
                taken[way].append(one(way, count))
        medians = {way: statistics.median(each["seconds"] for each in taken[way]) for way in WAYS}
        peak = {way: statistics.median(each["peak"] for each in taken[way]) for way in WAYS}
        print(
            f"{count:12,}"
            + "".join(
                f"{count / medians[way]:12,.0f} {peak[way]:6.1f} {medians[way] / medians['by hand']:6.2f}"
                for way in WAYS
            )
        )


if __name__ == "__main__":
    main()
