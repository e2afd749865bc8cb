"""A broker that freezes, dies, runs full or refuses, and TLS: on a node of the tests' own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from n6_stateful.delivery import deliver, try_broker
from n6_stateful.errors import PublishError
from tests.delivery.conftest import TIMEOUT, Outbox, RabbitMQ, new_name, options
from tests.delivery.private_node import MAX_MESSAGE_SIZE, Node

SLACK = 4
LINES = [b"line %d" % number for number in range(3_000)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"))
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def broker(node: Node) -> Iterator[RabbitMQ]:
    broker = RabbitMQ(node.url, new_name())
    broker.bind()
    yield broker
    broker.close()


def broken_midway(outbox: Outbox, url: str, action: Callable[[], object], **given: object) -> PublishError:
    """Deliver, and break the broker once it has confirmed something; the error."""
    place, section = options(url, **given)
    done: list[object] = []

    def show(confirmed: int, total: int) -> None:
        if not done:
            done.append(action())

    with pytest.raises(PublishError) as caught:
        deliver(outbox.journal, place, [], section, show=show)
    return caught.value


def nothing_is_lost(broker: RabbitMQ, outbox: Outbox) -> None:
    """What waits is delivered by the next run; everything is there, in order."""
    left = len(outbox.waiting())
    assert 0 < left < len(LINES)
    assert outbox.deliver(broker, connect_timeout=30, progress_timeout=30) == left
    assert list(dict.fromkeys(broker.bodies())) == LINES


class TestBroken:
    """What happens to a broker."""

    def test_frozen(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """A broker that freezes ends the delivery within progress_timeout, and the next one within
        connect_timeout."""
        outbox.put(broker, *LINES)
        try:
            error = broken_midway(outbox, node.url, lambda: node.send_signal(signal.SIGSTOP))
            assert "timeout after 1 s (progress_timeout)" in str(error)
            error = outbox.fail(broker)
            assert "timeout after 1 s (connect_timeout)" in str(error)
            assert TIMEOUT <= outbox.seconds < TIMEOUT + SLACK
        finally:
            node.send_signal(signal.SIGCONT)
        nothing_is_lost(broker, outbox)

    @pytest.mark.sweep
    def test_missed_heartbeats(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """Missed heartbeats end it before a longer progress_timeout does."""
        outbox.put(broker, *LINES)
        try:
            freeze = lambda: node.send_signal(signal.SIGSTOP)  # noqa: E731
            error = broken_midway(outbox, node.url, freeze, heartbeat=1, progress_timeout=60)
        finally:
            node.send_signal(signal.SIGCONT)
        assert "missed heartbeats" in str(error)
        nothing_is_lost(broker, outbox)

    @pytest.mark.parametrize("what", ["memory", pytest.param("disk", marks=pytest.mark.sweep)])
    def test_alarm(self, what: str, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """An alarm ends it within progress_timeout, and its reason is reported."""
        starve = {
            "memory": ("set_vm_memory_high_watermark", "absolute", "1000"),
            "disk": ("set_disk_free_limit", "1000000000000000"),
        }
        outbox.put(broker, *LINES)
        try:
            error = broken_midway(outbox, node.url, lambda: node.control(*starve[what]))
            assert f"(progress_timeout), because of an alarm at the broker: low on {what}; " in str(error)
        finally:
            node.control("set_vm_memory_high_watermark", "0.9")
            node.control("set_disk_free_limit", "1000000")
        nothing_is_lost(broker, outbox)

    def test_closed_by_an_operator(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """A connection that an operator closes blames no message, and ends with the operator's words."""
        outbox.put(broker, *LINES)
        error = broken_midway(
            outbox, node.url, lambda: node.control("close_all_connections", "maintenance tonight")
        )
        assert error.unreachable
        assert "320 CONNECTION_FORCED - maintenance tonight" in str(error)
        assert not outbox.refused()
        broker.reconnect()
        nothing_is_lost(broker, outbox)

    def test_killed(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """A broker that is killed ends it at once."""
        outbox.put(broker, *LINES)
        error = broken_midway(outbox, node.url, node.kill)
        assert error.unreachable
        assert "nothing is lost" in str(error)
        assert "Connection refused" in str(outbox.fail(broker))
        node.start()
        broker.reconnect()
        nothing_is_lost(broker, outbox)


class TestRefuses:
    """What this broker, or a user's rights there, do not allow."""

    def test_too_large_a_message(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """A message beyond the broker's limit stays with that limit as the reason, and the others go out."""
        bodies = [b"small", b"x" * MAX_MESSAGE_SIZE, b"x" * (MAX_MESSAGE_SIZE + 1), b"last"]
        ids = outbox.put(broker, *bodies)
        outbox.fail(broker)
        (reason,) = [outbox.refused()[ids[2]]]
        assert f"larger than configured max size {MAX_MESSAGE_SIZE}" in reason
        assert outbox.waiting() == ids[2:3]
        assert list(dict.fromkeys(broker.bodies())) == bodies[:2] + bodies[3:]

    def test_rights(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """A user who may not declare the exchange, or not publish to it, is told which."""
        url = f"amqp://stranger:stranger@127.0.0.1:{node.port}/"
        ids = outbox.put(broker, *LINES[:3])
        error = outbox.fail(broker, url)
        assert "an exchange cannot be used: 403 ACCESS_REFUSED" in str(error)
        assert not outbox.refused()
        error = outbox.fail(broker, url, declare="false")
        assert "messages refused: 3 (403 ACCESS_REFUSED" in str(error)
        assert list(outbox.refused()) == ids


class TestTLS:
    """`amqps`."""

    def test_delivers(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """Large and small messages travel over TLS, in order."""
        lines = [b"%d" % number * MAX_MESSAGE_SIZE for number in range(10)] + [b"short"] * 1_000
        outbox.put(broker, *lines)
        url = f"amqps://guest:guest@localhost:{node.tls_port}/"
        assert outbox.deliver(broker, url, ssl_ca_certs=node.certificates / "ca.pem") == len(lines)
        assert broker.bodies() == lines

    @pytest.mark.parametrize(
        ("host", "authority", "reason"),
        [
            ("localhost", "wrong-ca.pem", "certificate verify failed"),
            ("localhost", None, "certificate verify failed"),
            ("127.0.0.1", "ca.pem", "not valid for '127.0.0.1'"),
        ],
        ids=["wrong CA", "the system's CAs", "another host"],
    )
    def test_untrusted(self, host: str, authority: str | None, reason: str, node: Node) -> None:
        """A broker whose certificate cannot be trusted gets nothing, no login either."""
        trusted = {"ssl_ca_certs": node.certificates / authority} if authority else {}
        place, section = options(f"amqps://guest:guest@{host}:{node.tls_port}/", **trusted)
        with pytest.raises(PublishError, match=reason):
            try_broker(place, [], section)

    def test_client_certificate(self, node: Node, broker: RabbitMQ, outbox: Outbox) -> None:
        """A client certificate logs in, without a password."""
        files = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "client.pem", "ssl_keyfile": "client.key"}
        given: dict[str, Any] = {option: node.certificates / name for option, name in files.items()}
        outbox.put(broker, b"x", user_id="collector")  # the broker refuses the name of somebody else
        assert outbox.deliver(broker, f"amqps://localhost:{node.tls_port}/", **given) == 1
        assert broker.receive()[0].properties["user_id"] == "collector"

    @pytest.mark.parametrize("scheme", ["amqp", "amqps"])
    def test_on_one_side_only(self, scheme: str, node: Node) -> None:
        """TLS on one side only is one clear error in time."""
        port = node.tls_port if scheme == "amqp" else node.port
        place, section = options(
            f"{scheme}://guest:guest@localhost:{port}/", ssl_ca_certs=node.certificates / "ca.pem"
        )
        with pytest.raises(PublishError, match=f"{scheme}://localhost:{port}/: no connection"):
            try_broker(place, [], section)
