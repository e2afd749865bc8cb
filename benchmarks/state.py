"""What a save costs, against pickle + fsync + rename + fsync of the directory written by hand; what a load
costs, against pickle.load.

    python benchmarks/state.py [--most 10000000] [--directory DIR]

The state is a set of ids, as a collector keeps of what it has seen. For each size: medians of several saves
of either kind, in turn, in one process; and the peak memory of a process that saves once, of either kind.
Needs the runtime installed.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from n6_stateful import CollectorWithStateMixin

SIZES = (10, 10_000, 1_000_000, 10_000_000)


class Base:
    """The least that the mixin asks of a base."""

    def __init__(self, **config: str) -> None:
        self.config = config

    def get_source_channel(self) -> str:
        """The channel."""
        return "state"

    def get_source(self, *, source_channel: str) -> str:
        """The source."""
        return f"benchmark.{source_channel}"


class Collector(CollectorWithStateMixin, Base):
    """A state, and no collector around it."""


def make_state(size: int) -> set[str]:
    """A set of `size` ids."""
    return {f"{number:012x}" for number in range(size)}


def by_hand(state: object, directory: Path) -> None:
    """The same durability, without lock, checksum, footer, or the state before."""
    temporary = directory / "by-hand.tmp"
    with temporary.open("wb") as file:
        pickle.dump(state, file, pickle.HIGHEST_PROTOCOL)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(directory / "by-hand")
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def savers(directory: Path) -> dict[str, Callable[[object], None]]:
    """The two ways to save, by name."""
    collector = Collector(cache_dir=str(directory))
    collector.load_state()
    return {"save_state": collector.save_state, "by hand": lambda state: by_hand(state, directory)}


def seconds(size: int, ways: dict[str, Callable[[object], None]]) -> dict[str, float]:
    """Medians of a save of either kind."""
    state = make_state(size)
    rounds = 5 if size >= 1_000_000 else 31
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for count in range(rounds + 1):
        for name, save in ways.items():
            started = time.perf_counter()
            save(state)
            if count:  # the first round warms up
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in taken.items()}


def load_bare(path: Path) -> object:
    """The file read by `pickle.load`."""
    with path.open("rb") as file:
        return pickle.load(file)


def loading(size: int, directory: Path) -> dict[str, tuple[float, float]]:
    """For each kind of state, medians of `load_state` and of `pickle.load`."""
    kinds: dict[str, object] = {
        "strings": make_state(size),
        "strings and a UUID": [make_state(size), uuid.UUID(int=5)],
        "pairs": {(number, str(number)) for number in range(size)},
    }
    found = {}
    for name, state in kinds.items():
        collector = Collector(cache_dir=str(directory / name.replace(" ", "-")))
        collector.load_state()
        collector.save_state(state)
        path = Path(collector.state_store.where)
        ways: list[Callable[[], object]] = [
            collector.load_state,
            partial(load_bare, path),
        ]
        taken: list[list[float]] = [[], []]
        for _ in range(3):
            for way, load in enumerate(ways):
                started = time.perf_counter()
                load()
                taken[way].append(time.perf_counter() - started)
        found[name] = (statistics.median(taken[0]), statistics.median(taken[1]))
    return found


def peak(way: str, size: int, directory: Path) -> int:
    """Peak KiB of a process of its own that makes the state and saves it once."""
    own = tempfile.mkdtemp(dir=directory)  # the lock of the one above is this process's
    argv = [sys.executable, __file__, "--peak", way, "--most", str(size), "--directory", own]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--most", type=int, default=SIZES[-1], help="the largest state (default: 10,000,000 ids)"
    )
    parser.add_argument("--directory", help="where to save (default: a temporary directory)")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.disable()
    if args.peak:
        state = make_state(args.most)
        savers(Path(args.directory))[args.peak](state)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        directory = Path(name)
        print(
            f"{'ids':>12} {'file':>10} {'save_state':>12} {'by hand':>12} {'ratio':>6}   peak memory, ratio"
        )
        ways = savers(directory)
        for size in SIZES:
            if size > args.most:
                break
            taken = seconds(size, ways)
            peaks = {way: peak(way, size, directory) for way in ("save_state", "by hand")}
            print(
                f"{size:12,} {(directory / 'by-hand').stat().st_size / 2**20:6.1f} MiB "
                f"{taken['save_state'] * 1e3:9.1f} ms {taken['by hand'] * 1e3:9.1f} ms "
                f"{taken['save_state'] / taken['by hand']:6.2f}   "
                f"{peaks['save_state'] / 1024:,.0f} / {peaks['by hand'] / 1024:,.0f} MiB = "
                f"{peaks['save_state'] / peaks['by hand']:.2f}"
            )
        print(f"\nloading {min(args.most, 1_000_000):,} of them:")
        for name, (ours, bare) in loading(min(args.most, 1_000_000), directory).items():
            print(f"{name:>20} {ours * 1e3:9.1f} ms {bare * 1e3:9.1f} ms by pickle.load {ours / bare:6.2f}")


if __name__ == "__main__":
    main()
