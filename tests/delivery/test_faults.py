"""A network that breaks anywhere, or a server that is not a broker: a delivery ends in time with one clear
error, and the next one sends what is left."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from pika import frame, spec

from n6_stateful import delivery
from n6_stateful.delivery import try_broker
from n6_stateful.errors import PublishError
from n6_stateful.message import Exchange
from tests.delivery.conftest import SLACK, TIMEOUT, Outbox, RabbitMQ, options
from tests.delivery.proxy import FROM_BROKER, TO_BROKER, Proxy

LINES = [b"line %d" % number for number in range(12)]


@pytest.fixture(autouse=True)
def bound(broker: RabbitMQ) -> None:
    broker.bind()


def nothing_is_lost(broker: RabbitMQ, outbox: Outbox, ids: list[str]) -> None:
    """The next delivery sends what waits; everything has arrived, and copies share their id."""
    waiting = outbox.waiting()
    assert outbox.deliver(broker) == len(waiting)
    messages = broker.receive()
    # What was on its way when the network broke may arrive later than what is sent now.
    assert set(ids) <= {message.properties["message_id"] for message in messages}
    assert len({(message.properties["message_id"], message.body) for message in messages}) == len(ids)


def traffic(broker: RabbitMQ, outbox: Outbox) -> dict[str, int]:
    """The bytes of a whole delivery of `LINES`, by direction."""
    outbox.put(broker, *LINES)
    with Proxy(broker.url) as proxy:
        assert outbox.deliver(broker, proxy.url) == len(LINES)
    broker.receive()
    return proxy.forwarded


class TestNetwork:
    """A proxy stands for the network."""

    @pytest.mark.parametrize("way", [TO_BROKER, FROM_BROKER])
    @pytest.mark.parametrize("how", ["close", "reset"])
    @pytest.mark.parametrize(
        "points", [pytest.param(8, id="some"), pytest.param(100, id="many", marks=pytest.mark.sweep)]
    )
    def test_cut_at_any_byte(self, points: int, how: str, way: str, broker: RabbitMQ, outbox: Outbox) -> None:
        """Cut at any byte, it delivers everything or reports the break, and nothing is lost."""
        total = traffic(broker, outbox)[way]
        broken = 0
        for after in sorted({*range(0, total, max(1, total // points)), total - 40, total - 20, total - 1}):
            ids = outbox.put(broker, *LINES)
            with Proxy(broker.url, how, (way, after)) as proxy, suppress(PublishError):
                outbox.deliver(broker, proxy.url)
            broken += bool(outbox.waiting())
            assert not outbox.refused()
            assert outbox.seconds < TIMEOUT + SLACK
            nothing_is_lost(broker, outbox, ids)
        assert broken >= points // 2

    @pytest.mark.parametrize(("way", "share"), [(TO_BROKER, 0.2), (FROM_BROKER, 0.2), (TO_BROKER, 0.9)])
    def test_stalled(self, share: float, way: str, broker: RabbitMQ, outbox: Outbox) -> None:
        """Stalled at any byte, it ends in time and names the option that says when."""
        total = traffic(broker, outbox)[way]
        ids = outbox.put(broker, *LINES)
        with Proxy(broker.url, "stall", (way, int(share * total))) as proxy:
            error = outbox.fail(broker, proxy.url)
        assert ("connect_timeout" if share < 0.5 else "progress_timeout") in str(error)
        assert outbox.seconds < TIMEOUT + SLACK
        nothing_is_lost(broker, outbox, ids)

    def test_farewell(self, broker: RabbitMQ, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
        """A break while the connection is being closed does no harm."""
        monkeypatch.setattr(delivery, "CLOSE_SECONDS", 0.3)
        total = traffic(broker, outbox)[TO_BROKER]
        outbox.put(broker, *LINES)
        with Proxy(broker.url, "stall", (TO_BROKER, total - 5)) as proxy:
            assert outbox.deliver(broker, proxy.url) == len(LINES)

    @pytest.mark.parametrize(
        ("window", "most"),
        [({"window_messages": 5}, 5), ({"window_bytes": 15}, 2), ({"window_bytes": 1}, 1), ({}, 12)],
    )
    def test_window(self, window: dict[str, int], most: int, broker: RabbitMQ, outbox: Outbox) -> None:
        """No more than the window is on its way unconfirmed; without a confirmation the delivery ends, and
        everything comes again with the same ids."""
        with Proxy(broker.url) as proxy:
            place, section = options(proxy.url)
            try_broker(place, [Exchange(broker.exchange, "topic")], section)
        until_ready = proxy.forwarded[FROM_BROKER] - 2 * 12  # two close-ok
        ids = outbox.put(broker, *LINES)
        with Proxy(broker.url, "deaf", (FROM_BROKER, until_ready + 5)) as proxy:
            error = outbox.fail(broker, proxy.url, **window)
        assert f"timeout after {TIMEOUT} s (progress_timeout); " in str(error)
        arrived = broker.receive()
        assert [message.properties["message_id"] for message in arrived] == ids[:most]
        nothing_is_lost(broker, outbox, ids)

    def test_slow_line(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """A message that takes longer than progress_timeout gets through: bytes written are progress."""
        body = bytes(20 << 20)
        outbox.put(broker, body)
        with Proxy(broker.url, rate=16 << 20) as proxy:
            assert outbox.deliver(broker, proxy.url, progress_timeout=0.5) == 1
        assert outbox.seconds > 1
        assert broker.bodies() == [body]


CAPABILITIES = {"capabilities": {"publisher_confirms": True}}
START = spec.Connection.Start(server_properties=CAPABILITIES, mechanisms="PLAIN", locales="en_US")
START_FRAME: bytes = frame.Method(0, START).marshal()


@contextmanager
def peer(*answers: bytes) -> Iterator[str]:
    """A server that sends one of its answers whenever it receives something, then only listens; its URL."""

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            for answer in answers:
                connection.recv(1 << 16)
                connection.sendall(answer)
            while connection.recv(1 << 16):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"amqp://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(SLACK)
        assert not thread.is_alive()  # the connection was ended


class TestNoBroker:
    """A server that is not a broker, or is silent."""

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            b"AMQP\x00\x01\x00\x00",
            b"\x01\x00\x00\x00\x00\x00\x04abcdX",
            b"\x01\x00\x00\x00\x00\x00\x01\x00\xce",
            START_FRAME.replace(b"PLAIN", b"EXTRA"),
        ],
        ids=["HTTP", "AMQP 1.0", "no end", "short method", "no login"],
    )
    def test_garbage(self, answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
        """A server that does not speak AMQP is one clear error in time, without pika's own logging."""
        with peer(answer) as url, pytest.raises(PublishError, match=r"127\.0\.0\.1:\d+/: \S"):
            check(url)
        assert not [record for record in caplog.records if record.name.startswith("pika")]

    @pytest.mark.parametrize("answers", [(), (START_FRAME,)], ids=["at once", "login"])
    def test_silence(self, answers: tuple[bytes, ...]) -> None:
        """The wait for a server that goes silent ends after connect_timeout."""
        with peer(*answers) as url, pytest.raises(PublishError, match=r"timeout after 0\.4 s \(connect"):
            check(url)


def check(url: str) -> None:
    """What `check` does there."""
    place, section = options(url, connect_timeout=0.4)
    try_broker(place, [], section)
