"""What the base classes cost, compared with hand-written loops that do the same: rows and items.

    python benchmarks/bases.py [COUNT]

Each measurement is a process of its own, from the file or the keys to the saved state; what it publishes is
thrown away: what the journal costs, `benchmarks/delivery.py` shows. Memory is the peak of the process above
what it had before it read the file, or with the keys, as the system counts it. A first run over items is not
compared: it publishes a message for each.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

from n6_stateful import settings
from n6_stateful.bases import BaseSeenItemsCollector, BaseTimeOrderedRowsCollector

NEW = 1000
ROUNDS = 5
SPEC = "[bench]\nsource = bench\ncache_dir = {}\n"
DECLARED = "[bench]\nsource :: str\ncache_dir :: path\n"


class Bench:
    """What it publishes is thrown away."""

    def publish_output(self, *args: Any) -> str:
        return ""


class Rows(Bench, BaseTimeOrderedRowsCollector):
    source_channel = "rows"
    config_spec = DECLARED
    file = Path()

    def obtain_orig_data(self) -> bytes:
        return self.file.read_bytes()

    def pick_raw_row_time(self, row: str) -> str:
        return row[:19]

    def clean_row_time(self, raw_row_time: str) -> str:
        return raw_row_time


class Items(Bench, BaseSeenItemsCollector):
    source_channel = "items"
    config_spec = DECLARED
    keys: list[str] = []

    def obtain_items(self) -> list[str]:
        return self.keys

    def item_key(self, item: str) -> str:
        return item


def write_rows(count: int, path: Path) -> None:
    """A file of `count` rows of 80 bytes, newest first; tens share their time."""
    begin = datetime(2026, 1, 1)
    with path.open("w") as file:
        for number in reversed(range(count)):
            file.write(f"{begin + timedelta(seconds=number // 10)},{number:059}\n")


def rows_by_hand(file: Path, state: Path) -> None:
    """The rows that are new, oldest first, as n6's rule has it."""
    newest, newest_rows = pickle.loads(state.read_bytes()) if state.exists() else ("", set())
    before, seen = newest, newest_rows
    fresh = []
    for row in file.read_bytes().decode("utf-8", "surrogateescape").split("\n"):
        if not row.strip() or row.startswith("#"):
            continue
        row_time = row[:19]
        if row_time < before or row in seen:
            continue
        if row_time > newest:
            newest, newest_rows = row_time, set()
        if row_time == newest:
            newest_rows.add(row)
        fresh.append((row_time, row))
    fresh.reverse()
    fresh.sort(key=lambda pair: pair[0])
    "\n".join([row for _, row in fresh]).encode("utf-8", "surrogateescape")
    state.write_bytes(pickle.dumps((newest, newest_rows)))


def items_by_hand(keys: list[str], state: Path) -> None:
    """The keys that are new, as a set of digests."""
    seen = pickle.loads(state.read_bytes()) if state.exists() else set()
    shown = {blake2b(key.encode(), digest_size=16).digest() for key in keys}
    _ = shown - seen
    state.write_bytes(pickle.dumps(seen | shown))


def by_class(cls: Any, directory: Path) -> None:
    """A run of the collector."""
    config = directory / "60_bench.conf"
    config.write_text(SPEC.format(directory / "cache"))
    with settings.use(settings.Settings(config_paths=(str(config),), output="amqp://nowhere/")):
        cls().run_handling()


def measure(what: str, count: int, again: bool, directory: Path) -> tuple[float, int]:
    """Seconds, and bytes of memory above what there was before, of one run in this process."""
    Rows.file = directory / "feed"
    numbers = range(count + NEW * again if what.startswith("items") else 0)
    Items.keys = [f"https://feed.example/item/{number}" for number in numbers]
    actions: dict[str, Callable[[], None]] = {
        "rows": lambda: by_class(Rows, directory),
        "rows-by-hand": lambda: rows_by_hand(Rows.file, directory / "state"),
        "items": lambda: by_class(Items, directory),
        "items-by-hand": lambda: items_by_hand(Items.keys, directory / "state"),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    actions[what]()
    seconds = time.perf_counter() - begun
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="The base classes beside loops by hand.")
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        what, again, directory = args.measure
        print(*measure(what, args.count, again == "True", Path(directory)))
        return
    print(f"medians of {ROUNDS} processes each, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for count in sorted({args.count // 100, args.count}):
        for kind in ("rows", "items"):
            compare(kind, count)


def compare(kind: str, count: int) -> None:
    """The lines of one kind: a first run (of rows), and one with a thousand new."""
    measured: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    clients = (f"{kind}-by-hand", kind)
    with tempfile.TemporaryDirectory() as directory:
        for again in (False, True):
            for number in range(ROUNDS if again or kind == "rows" else 1):
                for what in clients:  # they take turns, since a machine's speed drifts
                    first, here = Path(directory) / what, Path(directory) / f"{what}-{again}-{number}"
                    if again:
                        shutil.copytree(first, here)
                    else:
                        here.mkdir()
                    if kind == "rows":
                        write_rows(count + NEW * again, here / "feed")
                    argv = [str(count), "--measure", what, str(again), str(here)]
                    done = subprocess.run(
                        [sys.executable, __file__, *argv], stdout=subprocess.PIPE, text=True, check=True
                    )
                    seconds, memory = map(float, done.stdout.split())
                    measured.setdefault((what, again), []).append((seconds, memory))
                    if first.exists():
                        shutil.rmtree(here)
                    else:
                        here.rename(first)
        (size,) = [path.stat().st_size for path in (Path(directory) / kind).rglob("*.pickle")]
    for again in (False, True) if kind == "rows" else (True,):
        (seconds, memory), (by_hand, memory_by_hand) = (
            map(statistics.median, zip(*measured[what, again], strict=True)) for what in (kind, clients[0])
        )
        print(
            f"{kind:5}  {count:9,}  {'1,000 new' if again else 'first run'}  {seconds:6.2f} s, "
            f"{seconds / by_hand:4.2f} x by hand ({by_hand:.2f} s)  +{memory / 2**20:6.1f} MiB "
            f"({memory_by_hand / 2**20:.1f} by hand)  state {size / 2**20:.1f} MiB"
        )


if __name__ == "__main__":
    main()
