"""A broker that dies or runs full, and TLS: on a node of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from n6_stateful.delivery import try_broker
from n6_stateful.errors import PublishError
from tests.delivery.conftest import Outbox, RabbitMQ, options
from tests.delivery.private_node import Node

LINES = [b"line %d" % number for number in range(3_000)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with closing(Node(tmp_path_factory.mktemp("node"))) as node:
        node.start()
        yield node


@pytest.fixture
def broker(node: Node) -> Iterator[RabbitMQ]:
    broker = RabbitMQ(node.url)
    broker.bind()
    yield broker
    broker.close()


def broken_midway(broker: RabbitMQ, outbox: Outbox, action: Callable[[], object]) -> PublishError:
    """Deliver, and break the broker once it has confirmed something; the error."""
    outbox.put(broker, *LINES)
    once = iter([action])
    error = outbox.fail(broker, show=lambda *figures: next(once, list)())
    assert not outbox.refused()
    return error


def nothing_is_lost(broker: RabbitMQ, outbox: Outbox) -> None:
    """What waits is delivered by the next run; everything is there, in order."""
    broker.reconnect()
    left = len(outbox.waiting())
    assert 0 < left < len(LINES)
    assert outbox.deliver(broker, connect_timeout=30, progress_timeout=30) == left
    assert list(dict.fromkeys(broker.bodies())) == LINES


class TestBroken:
    """What happens to a broker."""

    def test_alarm(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """An alarm ends it within progress_timeout, and its reason is reported."""
        limit = "set_vm_memory_high_watermark"
        try:
            error = broken_midway(broker, outbox, lambda: node.control(limit, "absolute", "1000"))
            assert "(progress_timeout); the broker has an alarm: low on memory; " in str(error)
        finally:
            node.control(limit, "0.9")
        nothing_is_lost(broker, outbox)

    def test_closed_by_an_operator(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """A connection that an operator closes blames no message, and ends with the operator's words."""
        words = "maintenance tonight"
        error = broken_midway(broker, outbox, lambda: node.control("close_all_connections", words))
        assert f"320 CONNECTION_FORCED - {words}" in str(error)
        nothing_is_lost(broker, outbox)

    @pytest.mark.sweep
    def test_killed(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """A broker that is killed ends it at once; what it has confirmed survives."""
        broken_midway(broker, outbox, node.kill)
        assert "Connection refused" in str(outbox.fail(broker))
        node.start()
        nothing_is_lost(broker, outbox)


class TestTLS:
    """`amqps`."""

    def test_delivers(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """Large and small messages travel over TLS, in order."""
        lines = [b"%d" % number * 100_000 for number in range(10)] + [b"short"] * 1_000
        outbox.put(broker, *lines)
        url = f"amqps://guest:guest@localhost:{node.tls_port}/"
        assert outbox.deliver(broker, url, ssl_ca_certs=node.directory / "ca.pem") == len(lines)
        assert broker.bodies() == lines

    @pytest.mark.parametrize(
        ("url", "authority", "reason"),
        [
            ("amqps://localhost:{tls_port}/", "", "certificate verify failed"),
            ("amqps://127.0.0.1:{tls_port}/", "ca.pem", "not valid for '127.0.0.1'"),
            ("amqps://localhost:{port}/", "ca.pem", "no connection"),
            ("amqp://localhost:{tls_port}/", "", "no connection"),
        ],
    )
    def test_untrusted(self, url: str, authority: str, reason: str, node: Node) -> None:
        """A broker whose certificate cannot be trusted, or that has none, gets nothing, no login either."""
        given = {"ssl_ca_certs": node.directory / authority} if authority else {}
        place, section = options(url.format_map(vars(node)), **given)
        with pytest.raises(PublishError, match=reason):
            try_broker(place, [], section)

    def test_client_certificate(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """A client certificate logs in, without a password."""
        names = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "collector.pem", "ssl_keyfile": "collector.key"}
        given: dict[str, Any] = {option: node.directory / name for option, name in names.items()}
        outbox.put(broker, b"x", user_id="collector")  # the broker refuses a user id that is not the login's
        assert outbox.deliver(broker, f"amqps://localhost:{node.tls_port}/", **given) == 1
