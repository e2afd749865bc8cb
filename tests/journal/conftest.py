"""Journals in all three engines. Those on a server share a database, each test under a name of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from n6_stateful.journal import Journal, configured_journal
from tests.journal.servers import ENGINES, administrator, end_sessions, execute

MakeJournal = Callable[..., Journal]


@pytest.fixture(scope="session")
def make_database() -> Iterator[Callable[[str], str]]:
    """Makes empty databases, and drops them in the end; gives their URLs."""
    made = []

    def make(engine: str) -> str:
        url, name = administrator(engine), f"n6_journal_{uuid.uuid4().hex[:12]}"
        execute(url, f"CREATE DATABASE {name}")
        made.append((url, name))
        return f"{url.rpartition('/')[0]}/{name}"

    yield make
    for url, name in made:
        end_sessions(f"{url.rpartition('/')[0]}/{name}")
        execute(url, f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def shared_database(make_database: Callable[[str], str]) -> Callable[[str], str]:
    """The database that the tests of an engine share, by its URL."""
    return cache(make_database)


@pytest.fixture(params=("sqlite", *ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """The engine's name; tests of fewer engines parametrize it themselves."""
    return str(request.param)


@pytest.fixture
def url(engine: str, shared_database: Callable[[str], str]) -> str:
    """`[journal] url`, empty for SQLite."""
    return "" if engine == "sqlite" else shared_database(engine)


@pytest.fixture
def make_journal(url: str, tmp_path: Path) -> Iterator[MakeJournal]:
    """Makes journals, by default of one and the same collector, and closes them in the end."""
    made: list[Journal] = []
    own = uuid.uuid4().hex[:8]

    def make(name: str = "C", **options: Any) -> Journal:
        path = tmp_path / "cache" / f"source-{own}.channel.{name}.sqlite"
        made.append(configured_journal({"url": url, **options}, path))
        return made[-1]

    yield make
    for journal in made:
        journal.unlock()


@pytest.fixture
def journal(make_journal: MakeJournal) -> Journal:
    """A journal whose lock is held."""
    journal = make_journal()
    journal.lock()
    return journal
