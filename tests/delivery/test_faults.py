"""A network that breaks anywhere, and what is no broker: a delivery ends in time, with one clear error, and
the next one sends what is left."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from pika import frame, spec

from n6_stateful import delivery
from n6_stateful.delivery import deliver, try_broker
from n6_stateful.errors import PublishError
from tests.delivery.conftest import TIMEOUT, Outbox, RabbitMQ, bytes_until_ready, options
from tests.delivery.proxy import FROM_BROKER, TO_BROKER, Proxy

SLACK = 4
LINES = [b"line %d" % number for number in range(12)]


@pytest.fixture(autouse=True)
def bound(broker: RabbitMQ) -> None:
    broker.bind()


def nothing_is_lost(broker: RabbitMQ, outbox: Outbox, ids: list[str]) -> None:
    """The next delivery sends what waits; everything has arrived, and copies share their id."""
    waiting = outbox.waiting()
    assert outbox.deliver(broker) == len(waiting)
    assert outbox.waiting() == []
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


def ends_well_or_is_cut(broker: RabbitMQ, outbox: Outbox, url: str) -> bool:
    """Deliver; whether the network broke meanwhile."""
    try:
        outbox.deliver(broker, url)
    except PublishError as exc:
        return exc.unreachable and "nothing is lost, and the next run sends" in str(exc)
    return False


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
            with Proxy(broker.url, how, (way, after)) as proxy:
                broken += ends_well_or_is_cut(broker, outbox, proxy.url)
            assert outbox.seconds < TIMEOUT + SLACK
            nothing_is_lost(broker, outbox, ids)
        assert broken >= points // 2

    @pytest.mark.parametrize("way", [TO_BROKER, FROM_BROKER])
    @pytest.mark.parametrize("share", [0.2, 0.9])
    def test_stalled(self, share: float, way: str, broker: RabbitMQ, outbox: Outbox) -> None:
        """Stalled at any byte, it ends in time and names the option that says when."""
        total = traffic(broker, outbox)[way]
        ids = outbox.put(broker, *LINES)
        with Proxy(broker.url, "stall", (way, int(share * total))) as proxy:
            error = outbox.fail(broker, proxy.url)
        assert ("connect_timeout" if share < 0.5 else "_timeout") in str(error)
        assert outbox.seconds < TIMEOUT + SLACK
        nothing_is_lost(broker, outbox, ids)

    @pytest.mark.parametrize("how", ["close", "reset", "stall"])
    def test_breaks_at_the_end(
        self, how: str, broker: RabbitMQ, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A break while the connection is being closed spoils nothing."""
        monkeypatch.setattr(delivery, "CLOSE_SECONDS", 0.3)
        outbox.put(broker, *LINES)
        with Proxy(broker.url, how) as proxy:

            def cut(confirmed: int, total: int) -> None:
                if confirmed == total:
                    proxy.cut()

            place, section = options(proxy.url)
            assert deliver(outbox.journal, place, [], section, show=cut) == len(LINES)
        assert outbox.waiting() == []

    def test_lost_confirmations(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """Messages whose confirmation got lost wait, and come again with the same ids."""
        ids = outbox.put(broker, *LINES)
        with Proxy(broker.url, "deaf", (FROM_BROKER, bytes_until_ready(broker) + 5)) as proxy:
            error = outbox.fail(broker, proxy.url)
        assert f"timeout after {TIMEOUT} s (progress_timeout); messages in the outbox: 12" in str(error)
        nothing_is_lost(broker, outbox, ids)

    def test_latency(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """Latency delays all messages together, not one after the other."""
        outbox.put(broker, *[b"x"] * 500)
        with Proxy(broker.url, delay=0.02) as proxy:
            assert outbox.deliver(broker, proxy.url) == 500
        assert outbox.seconds < 500 * 0.02 / 2

    def test_slow_line(self, broker: RabbitMQ, outbox: Outbox) -> None:
        """A message that takes longer than progress_timeout gets through: bytes written are progress."""
        body = bytes(24 << 20)
        outbox.put(broker, body)
        with Proxy(broker.url, rate=10 << 20) as proxy:
            assert outbox.deliver(broker, proxy.url) == 1
        assert outbox.seconds > 2 * TIMEOUT
        assert broker.bodies() == [body]


def method(channel: int, what: object) -> bytes:
    """A method as a broker sends it."""
    encoded: bytes = frame.Method(channel, what).marshal()
    return encoded


START = method(
    0,
    spec.Connection.Start(
        server_properties={"capabilities": {"publisher_confirms": True}}, mechanisms="PLAIN", locales="en_US"
    ),
)


def check(url: str) -> None:
    """What `check` does there."""
    place, section = options(url, connect_timeout=0.4)
    try_broker(place, [], section)


@contextmanager
def peer(*answers: bytes, hang_up: bool = False) -> Iterator[str]:
    """Something that gives its answers, one whenever it hears something, and then listens; its URL."""

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            for answer in answers:
                connection.recv(1 << 16)
                connection.sendall(answer)
            while not hang_up and connection.recv(1 << 16):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"amqp://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(SLACK)
        assert not thread.is_alive()  # the connection was ended


class TestNoBroker:
    """What answers is no broker, or answers nothing."""

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            b"AMQP\x00\x01\x00\x00",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"\x01\x00\x00\x00\x00\x00\x04abcdX",
            b"\x01\x00\x00\x00\x00\x00\x01\x00\xce",
            method(0, spec.Connection.OpenOk()),
            method(7, spec.Basic.Ack(1)),
            START.replace(b"PLAIN", b"EXTRA"),
        ],
        ids=["HTTP", "AMQP 1.0", "SSH", "no end", "short method", "too early", "no channel", "no login"],
    )
    def test_garbage(self, answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
        """What does not speak AMQP is one clear error in time, and pika's own noise is not heard."""
        with peer(answer) as url, pytest.raises(PublishError, match=r"127\.0\.0\.1:\d+/: \S") as caught:
            check(url)
        assert caught.value.unreachable
        assert not [record for record in caplog.records if record.name.startswith("pika")]

    @pytest.mark.parametrize("answers", [(), (START,)], ids=["at once", "login"])
    def test_silence(self, answers: tuple[bytes, ...]) -> None:
        """A server that goes silent is waited for as long as connect_timeout says."""
        with peer(*answers) as url, pytest.raises(PublishError, match=r"timeout after 0\.4 s"):
            check(url)

    def test_hang_up(self) -> None:
        """One that hangs up in the middle of a frame is reported."""
        with (
            peer(START, b"\x01\x00", hang_up=True) as url,
            pytest.raises(PublishError, match="no connection"),
        ):
            check(url)

    def test_addresses(self, broker: RabbitMQ, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host is reached by whichever of its addresses answers."""
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            refused = nobody.getsockname()
        outbox.put(broker, *LINES)
        with Proxy(broker.url) as proxy:
            here = ("127.0.0.1", int(proxy.url.rpartition(":")[2].strip("/")))
            both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (refused, here)]
            with monkeypatch.context() as patched:
                real = socket.getaddrinfo
                patched.setattr(
                    socket,
                    "getaddrinfo",
                    lambda host, *a, **k: both if host == "two" else real(host, *a, **k),
                )
                assert outbox.deliver(broker, proxy.url.replace("127.0.0.1", "two")) == len(LINES)
