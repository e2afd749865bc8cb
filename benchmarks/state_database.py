"""What a run's lock, load and save cost in a database, beside the file store and the server's round trip.

    python benchmarks/state_database.py postgresql://postgres@127.0.0.1/postgres

Its rows in the table of that database are called `benchmark`, and deleted. Connecting is not counted.
Needs the runtime with `[sql]`.
"""

from __future__ import annotations

import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from n6_stateful.state.database import DatabaseStore
from n6_stateful.state.file import FileStore
from n6_stateful.state.store import StateStore

ROUNDS = 50


def seconds(do: Callable[..., object], *args: object) -> float:
    """How long it takes."""
    started = time.perf_counter()
    do(*args)
    return time.perf_counter() - started


def run(store: StateStore, number: int) -> None:
    """What a run asks of its store."""
    store.lock()
    store.prove_writable()
    for generation in store.generations()[:1]:
        store.read(pickle.load, generation)
    store.write(lambda file: pickle.dump({"taken": number}, file), number)


def main(url: str) -> None:
    """Measure, and print a table of medians."""
    taken: dict[str, list[float]] = {"file": [], "database": [], "round trip": []}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(1, ROUNDS + 1):
            file = FileStore(Path(directory, "state.pickle"))
            database = DatabaseStore(url, "benchmark", "benchmark")
            taken["round trip"] += [seconds(database._sql, "SELECT 1") for _ in range(5)][1:]
            taken["file"].append(seconds(run, file, number))
            taken["database"].append(seconds(run, database, number))
            file.unlock()
            database.unlock()
    last = DatabaseStore(url, "benchmark", "benchmark")
    last._sql("DELETE FROM n6_state WHERE name = :name")
    for name, each in taken.items():
        print(f"{name:12} {statistics.median(each) * 1e3:8.2f} ms")


if __name__ == "__main__":
    main(sys.argv[1])
