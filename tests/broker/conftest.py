"""A broker for the tests: the one that answers at N6_STATEFUL_BROKER, read back with py-amqp.

Without one the tests skip; where N6_STATEFUL_REQUIRE_BROKER is set, as in CI, they fail instead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import amqp
import pytest

URL = os.environ.get("N6_STATEFUL_BROKER", "amqp://guest:guest@127.0.0.1:5672/")


class Received(NamedTuple):
    """A message as another client library sees it."""

    exchange: str
    routing_key: str
    properties: dict[str, Any]
    body: bytes


def connected(url: str) -> Any:
    """A connection of py-amqp's."""
    parts = urlsplit(url)
    connection = amqp.Connection(
        f"{parts.hostname}:{parts.port or 5672}",
        userid=parts.username or "guest",
        password=parts.password or "guest",
        virtual_host=unquote(parts.path[1:]) or "/",
        connect_timeout=10,
    )
    connection.connect()
    return connection


class Broker:
    """An exchange and a queue of a test's own."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.exchange = f"{name}-exchange"
        self.queue = f"{name}-queue"
        self._connection: Any = None
        self.reconnect()

    def reconnect(self) -> None:
        """Connect, again if the connection was cut."""
        if self._connection is not None:
            self._connection.collect()
        self._connection = connected(self.url)
        self.channel = self._connection.channel()

    def bind(self, routing_key: str = "#", **arguments: Any) -> None:
        """Make the exchange and the queue, and bind them."""
        self.channel.exchange_declare(self.exchange, "topic", durable=True, auto_delete=False)
        self.channel.queue_declare(self.queue, durable=True, auto_delete=False, arguments=arguments)
        self.channel.queue_bind(self.queue, self.exchange, routing_key)

    def receive(self) -> list[Received]:
        """Take every message out of the queue."""
        found = []
        while message := self.channel.basic_get(self.queue, no_ack=True):
            body = message.body if isinstance(message.body, bytes) else message.body.encode()
            info = message.delivery_info
            found.append(Received(info["exchange"], info["routing_key"], message.properties, body))
        return found

    def on_vhost(self, name: str) -> str:
        """The broker's URL with another virtual host."""
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def close(self) -> None:
        """Take everything away."""
        channel = self._connection.channel()
        channel.queue_delete(self.queue)
        channel.exchange_delete(self.exchange)
        self._connection.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    """The broker, with names of the test's own; what is made under them is taken away again."""
    try:
        broker = Broker(URL, f"n6-stateful-test-{uuid.uuid4().hex[:12]}")
    except OSError as exc:
        problem = (
            f"no broker answers at {urlsplit(URL).hostname}:{urlsplit(URL).port} ({exc}); start one with "
            "`rabbitmq-server -detached`, or set N6_STATEFUL_BROKER=amqp://..."
        )
        if os.environ.get("N6_STATEFUL_REQUIRE_BROKER"):
            pytest.fail(problem)
        pytest.skip(problem)
    yield broker
    broker.close()


class Collecting(NamedTuple):
    """A sample collector on disk, whose source is a file of lines."""

    directory: Path
    config: Path
    feed: Path

    def state_is_saved(self) -> bool:
        """Whether there is a state."""
        return bool(list((self.directory / "cache").glob("*.pickle")))


def make_collecting(directory: Path) -> Collecting:
    """The sample collector's directory, configuration and feed."""
    directory.mkdir(exist_ok=True)
    config = directory / "60_sample.conf"
    config.write_text(
        f"[sample]\nsource = my-provider\ncache_dir = {directory}/cache\nurl = {directory}/feed\n"
        "[output]\nprogress_timeout = 5\nconnect_timeout = 5\n"
    )
    (directory / "feed").write_text("one\ntwo\n")
    return Collecting(directory, config, directory / "feed")


@pytest.fixture
def collecting(tmp_path: Path) -> Collecting:
    """The sample collector, ready to be run."""
    return make_collecting(tmp_path)
