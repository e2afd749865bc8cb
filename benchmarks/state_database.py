"""What a run's lock, load and save cost in a database, beside the file store and the server's round trip.

    python benchmarks/state_database.py [URL ...]

By default the servers of the tests: N6_STATEFUL_POSTGRESQL and N6_STATEFUL_MARIADB. The rows in the table of
that database are called `benchmark`, and deleted. Connecting is not counted. `driver` is the part of
`database` that the statements spend in the driver and the server, and `its trip` the driver's own round trip:
no client can be faster than these. Needs the runtime with `[sql]`.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sqlalchemy as sa

from n6_stateful.state.database import DatabaseStore
from n6_stateful.state.file import FileStore
from n6_stateful.state.store import StateStore
from tests.database.servers import URLS

ROUNDS = 50
COLUMNS = ("file", "database", "round trip", "driver", "its trip")


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


def in_driver(store: DatabaseStore) -> list[float]:
    """A list that grows by how long each statement of the store takes in the driver and the server."""
    taken: list[float] = []

    def before(*args: object) -> None:
        taken.append(-time.perf_counter())

    def after(*args: object) -> None:
        taken[-1] += time.perf_counter()

    sa.event.listen(store._database, "before_cursor_execute", before)
    sa.event.listen(store._database, "after_cursor_execute", after)
    return taken


def measure(url: str) -> dict[str, float]:
    """Medians, in milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in COLUMNS}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(1, ROUNDS + 1):
            file = FileStore(Path(directory, "state.pickle"))
            database = DatabaseStore(url, "benchmark", "benchmark")
            inside = in_driver(database)
            taken["round trip"] += [seconds(database._sql, "SELECT 1") for _ in range(5)][1:]
            taken["its trip"] += inside[1:]
            inside.clear()
            taken["file"].append(seconds(run, file, number))
            taken["database"].append(seconds(run, database, number))
            taken["driver"].append(sum(inside))
            file.unlock()
            database.unlock()
    DatabaseStore(url, "benchmark", "benchmark")._sql("DELETE FROM n6_state WHERE name = %(name)s")
    return {name: statistics.median(each) * 1e3 for name, each in taken.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("urls", nargs="*", metavar="URL", default=list(URLS.values()))
    print(f"medians of {ROUNDS} runs, Python {sys.version.split()[0]}")
    print(" " * 12 + "".join(f"{name:>11}" for name in COLUMNS))
    for url in parser.parse_args().urls:
        cells = "".join(f"{each:8.2f} ms" for each in measure(url).values())
        print(f"{urlsplit(url).scheme:12}{cells}")


if __name__ == "__main__":
    main()
