"""A broker for the tests: the one that answers at N6_STATEFUL_BROKER, read back with py-amqp; and an outbox.

Without one the tests skip; where N6_STATEFUL_REQUIRE_BROKER is set, as in CI, they fail instead.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import amqp
import pytest

from n6_stateful.broker import OUTPUT_SPEC, Broker, configured_broker
from n6_stateful.config import ConfigFiles, load
from n6_stateful.delivery import deliver
from n6_stateful.errors import PublishError
from n6_stateful.journal import DEFAULTS, Journal, configured_journal
from n6_stateful.message import Exchange, Message

URL = os.environ.get("N6_STATEFUL_BROKER", "amqp://guest:guest@127.0.0.1:5672/")
TIMEOUT = 1
SLACK = 4


class Received(NamedTuple):
    """A message as another client library sees it."""

    exchange: str
    routing_key: str
    properties: dict[str, Any]
    body: bytes


class RabbitMQ:
    """An exchange and a queue of a test's own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.exchange = self.queue = f"n6-stateful-test-{uuid.uuid4().hex[:12]}"
        self._connection: Any = None
        self.reconnect()

    def reconnect(self) -> None:
        """Connect, again if the connection was cut."""
        if self._connection is not None:
            self._connection.collect()
        parts = urlsplit(self.url)
        self._connection = amqp.Connection(
            f"{parts.hostname}:{parts.port or 5672}",
            userid=parts.username or "guest",
            password=parts.password or "guest",
            virtual_host=unquote(parts.path[1:]) or "/",
            connect_timeout=10,
        )
        self._connection.connect()
        self.channel = self._connection.channel()

    def bind(self, routing_key: str = "#", **arguments: Any) -> None:
        self.channel.exchange_declare(self.exchange, "topic", durable=True, auto_delete=False)
        self.channel.queue_declare(self.queue, durable=True, auto_delete=False, arguments=arguments)
        self.channel.queue_bind(self.queue, self.exchange, routing_key)

    def receive(self) -> list[Received]:
        received = []
        while message := self.channel.basic_get(self.queue, no_ack=True):
            body = message.body if isinstance(message.body, bytes) else message.body.encode()
            info = message.delivery_info
            received.append(Received(info["exchange"], info["routing_key"], message.properties, body))
        return received

    def bodies(self) -> list[bytes]:
        return [message.body for message in self.receive()]

    def close(self) -> None:
        channel = self._connection.channel()
        channel.queue_delete(self.queue)
        channel.exchange_delete(self.exchange)
        self._connection.close()


def unavailable(problem: str) -> None:
    """Skip the test, or fail in CI."""
    (pytest.fail if os.environ.get("N6_STATEFUL_REQUIRE_BROKER") else pytest.skip)(problem)


@pytest.fixture
def broker() -> Iterator[RabbitMQ]:
    """The broker, with names of the test's own; what is created under them is removed afterwards."""
    try:
        broker = RabbitMQ(URL)
    except OSError as exc:
        unavailable(f"no broker answers ({exc}): `rabbitmq-server -detached`, or set N6_STATEFUL_BROKER")
    yield broker
    broker.close()


def options(url: str = "", **given: object) -> tuple[Broker, dict[str, Any]]:
    """A broker and the section `[output]`, with short timeouts."""
    given = {"connect_timeout": TIMEOUT, "progress_timeout": TIMEOUT, **given}
    text = "".join(f"{name} = {value}\n" for name, value in given.items())
    sections = load([OUTPUT_SPEC], ConfigFiles.from_text(f"[output]\n{text}"))
    broker = configured_broker(sections, url)
    assert broker
    return broker, sections["output"]


class Outbox:
    """The journal of a test's own, and deliveries from it; `seconds`: how long the last one took."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.seconds = 0.0
        self._count = 0

    def put(self, broker: RabbitMQ, *bodies: bytes, **changes: Any) -> list[str]:
        """Put messages into the outbox; their ids. `changes`: properties, `exchange`, `routing_key`."""
        exchange, key = changes.pop("exchange", broker.exchange), changes.pop("routing_key", "a.b")
        ids = []
        for body in bodies:
            self._count += 1
            properties = {"message_id": f"{self._count:032x}", "delivery_mode": 2, **changes}
            self.journal.put(Message(exchange, key, body, properties))
            ids.append(properties["message_id"])
        self.journal.commit()
        return ids

    def deliver(
        self,
        broker: RabbitMQ,
        url: str = "",
        exchanges: Sequence[Exchange] = (),
        show: Any = None,
        **given: object,
    ) -> int:
        """Deliver to the broker, or to a URL that leads there."""
        started = time.monotonic()
        place, section = options(url or broker.url, **given)
        exchanges = exchanges or [Exchange(broker.exchange, "topic")]
        try:
            return deliver(self.journal, place, exchanges, section, show=show)
        finally:
            self.seconds = time.monotonic() - started

    def fail(self, broker: RabbitMQ, url: str = "", **given: Any) -> PublishError:
        """Deliver, and return the error with which it has to end, in time."""
        with pytest.raises(PublishError) as caught:
            self.deliver(broker, url, **given)
        assert f"{urlsplit(url or broker.url).hostname}" in str(caught.value)
        assert f"messages in the outbox: {len(self.waiting()):,}, safe; the next run " in str(caught.value)
        return caught.value

    def waiting(self) -> list[str]:
        return [message.message_id for message in self.journal.waiting()]

    def refused(self) -> dict[str, str]:
        return {message.message_id: message.refused for message in self.journal.waiting() if message.refused}


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    journal = configured_journal({**DEFAULTS, "timeout": 0.2}, tmp_path / "cache" / "source.Class.sqlite")
    journal.lock()
    yield Outbox(journal)
    journal.unlock()
