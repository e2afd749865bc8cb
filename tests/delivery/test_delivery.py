"""What reaches a real RabbitMQ, in which order, and what stays in the outbox."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
from typing import Any
from urllib.parse import urlsplit

import pytest

from n6_stateful.delivery import MOST_CONNECTIONS, try_broker
from n6_stateful.errors import PublishError, StateError, Terminated
from n6_stateful.interruption import signals_raise
from n6_stateful.message import Exchange
from tests.delivery.conftest import Outbox, RabbitMQ, options
from tests.delivery.proxy import Proxy


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


class TestArrives:
    """What the broker takes."""

    def test_on_the_wire(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """Another library reads exactly the body and the properties that were published, from a durable
        exchange."""
        properties: dict[str, Any] = {
            "timestamp": 1_700_000_000,
            "type": "file",
            "content_type": "text/csv",
            "priority": 3,
            "headers": {"meta": {"mail_time": "2026-01-01", "number": 7, "none": None, "list": [True, "ä"]}},
        }
        outbox.put(broker, b"x", routing_key="my-source.ä", **properties)
        outbox.fail(broker)  # no queue yet: the exchange is made now
        broker.bind()  # for an exchange with other arguments, the broker would refuse this
        assert outbox.deliver(broker, declare="false") == 1
        (message,) = broker.receive()
        assert message[:2] == (broker.exchange, "my-source.ä")
        properties |= {"message_id": f"{1:032x}", "delivery_mode": 2}
        assert message.properties == properties | {"application_headers": properties.pop("headers")}
        assert message.body == b"x"

    @pytest.mark.parametrize("kind", ["classic", "quorum"])
    def test_order(self, kind: str, broker: RabbitMQ, outbox: Outbox) -> None:
        """Thousands of messages arrive in order, each once, with progress shown; then the outbox is empty."""
        broker.bind(**{"x-queue-type": kind})
        outbox.put(broker, *numbers(1_500))
        shown: list[tuple[int, int]] = []
        assert outbox.deliver(broker, show=lambda *figures: shown.append(figures)) == 1_500
        assert shown == sorted(shown)
        assert shown[-1] == (1_500, 1_500)
        assert broker.bodies() == numbers(1_500)
        assert outbox.waiting() == []
        assert outbox.deliver(broker) == 0

    def test_bodies_of_all_sizes(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """Bodies from a byte to 20 MB arrive whole, about the largest frame and beyond the window, too."""
        broker.bind()
        sizes = [1, 20_000_000, *range(131_050, 131_080), 262_128, 2_000_000]
        bodies = [(bytes(range(256)) * (size // 256 + 1))[:size] for size in sizes]
        outbox.put(broker, *bodies)
        assert outbox.deliver(broker, window_bytes=1_000_000) == len(bodies)
        assert broker.bodies() == bodies


class TestRefused:
    """Messages that the broker refuses stay, with the reason, and hold up no others."""

    def test_returned(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """1,500 messages that no queue takes wait for one; later ones overtake them."""
        broker.bind("good")
        lost = outbox.put(broker, *numbers(1_500), routing_key="lost")
        outbox.put(broker, b"good", routing_key="good")
        error = outbox.fail(broker)
        assert error.delivered == 1
        assert "messages refused: 1,500 (NO_ROUTE: no queue is bound for 'lost')" in str(error)
        assert "`outbox drop`" in str(error)
        assert broker.bodies() == [b"good"]
        assert outbox.waiting() == list(outbox.refused()) == lost

        broker.bind("lost")
        outbox.put(broker, b"later", routing_key="good")
        assert outbox.deliver(broker) == 1_501
        assert broker.bodies() == [b"later", *numbers(1_500)]

    def test_equal_ids(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """Of messages with the same id, those that were returned stay."""
        broker.bind("good")
        for body, key in [(b"1", "good"), (b"2", "lost"), (b"3", "good"), (b"4", "lost"), (b"4", "lost")]:
            outbox.put(broker, body, routing_key=key, message_id="1" * 32)
        assert outbox.fail(broker).delivered == 2
        assert broker.bodies() == [b"1", b"3"]
        waiting = [(message.body, bool(message.refused)) for message in outbox.journal.waiting()]
        assert waiting == [(b"2", True), (b"4", True), (b"4", True)]

    def test_warning(self, broker: RabbitMQ, outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
        """With unroutable = warn such messages count as delivered, and there is one warning."""
        outbox.put(broker, *numbers(20))
        assert outbox.deliver(broker, unroutable="warn") == 20
        assert outbox.waiting() == []
        (warning,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert "no queue took 20 messages" in warning

    @pytest.mark.parametrize("kind", ["classic", "quorum"])
    def test_full_queue(self, kind: str, broker: RabbitMQ, outbox: Outbox) -> None:
        """Only messages that a full queue refuses stay."""
        arguments: dict[str, Any] = {"x-queue-type": kind, "x-max-length": 3, "x-overflow": "reject-publish"}
        broker.bind(**arguments)
        # A quorum queue's limit is a soft one.
        ids = outbox.put(broker, *numbers(3_000))
        error = outbox.fail(broker)
        assert "nacked: a queue is full" in str(error)
        arrived = {message.properties["message_id"] for message in broker.receive()}
        assert len(arrived) == error.delivered >= 3
        assert outbox.waiting() == [message_id for message_id in ids if message_id not in arrived]
        assert set(outbox.refused()) == set(outbox.waiting())

    def test_closed(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """So do messages for which it closes channel or connection, and those that AMQP cannot hold."""
        broker.bind()
        changes: dict[int, tuple[str, dict[str, Any]]] = {
            0: ("404 NOT_FOUND", {"exchange": "n6-stateful-no-such-exchange"}),
            123: ("406 PRECONDITION_FAILED", {"user_id": "somebody-else"}),
            200: ("501 FRAME_ERROR", {"headers": {"large": "x" * 200_000}}),
            250: ("AMQP cannot hold it", {"routing_key": "r" * 300}),
            299: ("406 PRECONDITION_FAILED", {"expiration": "1h"}),
        }
        ids = [
            outbox.put(broker, body, **changes.get(number, ("", {}))[1])[0]
            for number, body in enumerate(numbers(300))
        ]
        error = outbox.fail(broker)
        assert error.delivered == 295
        assert "messages refused: 5 (" in str(error)
        reasons = outbox.refused()
        assert list(reasons) == outbox.waiting() == [ids[number] for number in changes]
        for number, (reason, _) in changes.items():
            assert reason in reasons[ids[number]]
        others = [body for number, body in enumerate(numbers(300)) if number not in changes]
        assert list(dict.fromkeys(broker.bodies())) == others  # some arrive twice

        outbox.put(broker, b"later")
        assert outbox.fail(broker).delivered == 1
        assert broker.bodies() == [b"later"]
        assert outbox.refused() == reasons

    def test_no_way(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """800 messages to a forbidden exchange cost only a few connections."""
        broker.bind()
        outbox.put(broker, b"first")
        bad = outbox.put(broker, *numbers(400), exchange="n6-stateful-no-such-exchange")  # 404
        bad += outbox.put(broker, *numbers(400), exchange="amq.rabbitmq.trace")  # 403
        outbox.put(broker, b"last")
        for arrived in ([b"first", b"last"], []):
            with Proxy(broker.url) as proxy:
                assert outbox.fail(broker, proxy.url).delivered == len(arrived)
            assert proxy.connections <= 5
            assert list(dict.fromkeys(broker.bodies())) == arrived
            assert outbox.waiting() == list(outbox.refused()) == bad

    def test_most_connections(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """If every message costs connections, a run gives up; the next one goes on after them."""
        broker.bind()
        bad = outbox.put(broker, *numbers(MOST_CONNECTIONS // 2 + 5), user_id="somebody-else")
        outbox.put(broker, b"good")
        with Proxy(broker.url) as proxy:
            error = outbox.fail(broker, proxy.url)
        assert proxy.connections == MOST_CONNECTIONS
        assert f"messages refused: {MOST_CONNECTIONS // 2} (406" in str(error)
        outbox.fail(broker)
        assert broker.bodies() == [b"good"]
        assert sorted(outbox.waiting()) == bad


class TestNothingSent:
    """A problem before the first message marks none of them as refused."""

    @pytest.mark.parametrize(
        ("name", "kind", "reason"),
        [
            ("amq.direct", "fanout", "406 PRECONDITION_FAILED"),
            ("amq.n6-stateful-test", "topic", "403 ACCESS_REFUSED"),
            ("n6-stateful-test-odd", "no-such-type", "503 COMMAND_INVALID"),
        ],
    )
    def test_exchange(self, name: str, kind: str, reason: str, broker: RabbitMQ, outbox: Outbox) -> None:
        """An exchange that cannot be declared is one clear error, and everything waits."""
        ids = outbox.put(broker, *numbers(2))
        error = outbox.fail(broker, exchanges=[Exchange(name, kind), Exchange(broker.exchange, "topic")])
        assert f"an exchange cannot be used: {reason}" in str(error)
        assert outbox.waiting() == ids
        assert not outbox.refused()

    def test_check(self, broker: RabbitMQ, caplog: pytest.LogCaptureFixture) -> None:
        """`check` finds such problems without a message; the password is neither in an error nor a log."""
        caplog.set_level(logging.DEBUG)
        exchange = Exchange(broker.exchange, "topic")
        place, section = options(broker.url, declare="false")
        with pytest.raises(PublishError, match=f"404 NOT_FOUND - no exchange '{broker.exchange}'"):
            try_broker(place, [exchange], section)
        broker.bind()
        try_broker(place, [exchange], section)
        here = f"{place.host}:{place.port}"
        for url, problem in (
            (
                f"amqp://guest:wr0ng-s3cret@{here}/",
                "no connection: .*ACCESS_REFUSED - Login was refused",
            ),
            (urlsplit(broker.url)._replace(path="/no-such-vhost").geturl(), "no-such-vhost"),
            ("amqp://127.0.0.1:9/", r"amqp://127.0.0.1:9/: no connection: Connection refused$"),
            ("amqp://no-such-host.invalid/", "no connection"),
        ):
            with pytest.raises(PublishError, match=problem) as caught:
                try_broker(options(url)[0], [], section)
            assert "wr0ng-s3cret" not in str(caught.value) + caplog.text


class TestInterrupted:
    """An internal error is reported as it is, and confirmed messages are deleted."""

    def test_signal(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """A signal ends it at once; the next run sends the rest."""
        broker.bind()
        outbox.put(broker, *numbers(1_500))
        with signals_raise(), pytest.raises(Terminated):
            outbox.deliver(broker, show=lambda *figures: os.kill(os.getpid(), signal.SIGTERM))
        left = len(outbox.waiting())
        assert 0 < left < 1_500
        assert outbox.deliver(broker) == left
        assert list(dict.fromkeys(broker.bodies())) == numbers(1_500)

    def test_locked_journal(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """A journal that cannot be changed is a StateError; a delivery that begins with one sends nothing."""
        broker.bind()
        outbox.put(broker, *numbers(1_500))
        other = sqlite3.connect(outbox.journal.path, isolation_level=None)
        with pytest.raises(StateError, match="locked"):
            outbox.deliver(
                broker, show=lambda *figures: other.in_transaction or other.execute("BEGIN IMMEDIATE")
            )
        assert broker.bodies()
        with pytest.raises(StateError, match="nothing was sent"):
            outbox.deliver(broker)
        assert broker.bodies() == []
        other.close()
        left = len(outbox.waiting())
        assert 0 < left < 1_500
        assert outbox.deliver(broker) == left
