"""Databases for the tests: in the servers that run on this machine, and in servers of the tests' own.

Without a server the tests skip; where N6_STATEFUL_REQUIRE_DATABASES is set, as in CI, they fail instead.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from n6_stateful.state.database import DatabaseStore
from tests.database.servers import (
    ENGINES,
    HOW_TO_START,
    URLS,
    Server,
    answers,
    end_sessions,
    execute,
    missing,
)

MakeStore = Callable[..., DatabaseStore]


@pytest.fixture(params=ENGINES, scope="session")
def engine(request: pytest.FixtureRequest) -> str:
    """The engine's name."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def administrator(engine: str) -> str:
    """A URL whose user may make databases and users."""
    url = URLS[engine]
    if not answers(url):
        missing(f"no {engine} answers at {sa.make_url(url)!r}: {HOW_TO_START[engine]}")
    return url


@pytest.fixture
def url(administrator: str) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    name = f"n6_stateful_{uuid.uuid4().hex[:12]}"
    execute(administrator, f"CREATE DATABASE {name}")
    own = sa.make_url(administrator).set(database=name).render_as_string(hide_password=False)
    yield own
    end_sessions(own)
    execute(administrator, f"DROP DATABASE {name}")


@pytest.fixture
def make_store(url: str) -> Iterator[MakeStore]:
    """Makes stores in the database at `url`, and gives their locks back in the end."""
    made = []

    def make(
        name: str = "a.b.C.pickle", owner: str = "feed.C", url: str = url, timeout: float = 10
    ) -> DatabaseStore:
        made.append(DatabaseStore(url, name, owner, timeout))
        return made[-1]

    yield make
    for store in made:
        store.unlock()


@pytest.fixture
def store(make_store: MakeStore) -> DatabaseStore:
    """A store whose lock is held."""
    store = make_store()
    store.lock()
    return store


@pytest.fixture(scope="session")
def shared_server(engine: str) -> Iterator[Server]:
    """A server of the tests' own, for all of them."""
    server = Server(engine)
    yield server
    server.close()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """A server of the tests' own, which runs and is empty."""
    yield shared_server
    shared_server.restart()
    execute(shared_server.url, "DROP TABLE IF EXISTS n6_state")
