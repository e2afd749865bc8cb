"""A broker that freezes, dies, runs full or refuses: a run ends in time, with one error that is exact."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.broker.attempt import attempt, nothing_is_lost, one_clear_error
from tests.broker.conftest import Broker, Collecting
from tests.broker.private_node import MAX_MESSAGE_SIZE, Node
from tests.runtime.sample_collector import SampleCollector

TIMEOUT = 2
# What a slow machine may need on top.
SLACK = 4


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"))
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def broker(node: Node) -> Iterator[Broker]:
    broker = Broker(node.url, f"test-{uuid.uuid4().hex[:12]}")
    broker.bind()
    yield broker
    broker.close()


@pytest.fixture(autouse=True)
def short_timeouts(collecting: Collecting) -> None:
    configure(collecting, "progress_timeout", TIMEOUT)
    configure(collecting, "connect_timeout", TIMEOUT)
    collecting.feed.write_text("".join(f"line {number}\n" for number in range(30)))


def configure(collecting: Collecting, option: str, value: object) -> None:
    with collecting.config.open("a") as file:
        file.write(f"{option} = {value}\n")


def once_all_has_arrived(action: Callable[[], object]) -> Callable[[SampleCollector], None]:
    def hook(collector: SampleCollector) -> None:
        collector.flush_output()
        action()

    return hook


@pytest.fixture
def freeze(node: Node) -> Iterator[Callable[[], None]]:
    """Stops the broker's process where it stands; at the end of the test it goes on."""
    yield lambda: node.send_signal(signal.SIGSTOP)
    node.send_signal(signal.SIGCONT)


def thaw(node: Node) -> None:
    node.send_signal(signal.SIGCONT)


def test_frozen_from_the_start(
    node: Node, broker: Broker, collecting: Collecting, freeze: Callable[[], None]
) -> None:
    """A broker that does not answer the login ends the run within connect_timeout."""
    freeze()
    done = attempt(collecting, node.url, broker.exchange)
    one_clear_error(done, collecting, "connect_timeout", f"127.0.0.1:{node.port}")
    assert TIMEOUT <= done.seconds < TIMEOUT + SLACK
    thaw(node)
    nothing_is_lost(done, broker, collecting)


def test_frozen_midway(
    node: Node, broker: Broker, collecting: Collecting, freeze: Callable[[], None]
) -> None:
    """A broker that freezes ends the run within progress_timeout, with an exact list."""
    done = attempt(collecting, node.url, broker.exchange, {10: once_all_has_arrived(freeze)})
    one_clear_error(done, collecting, "progress_timeout")
    assert TIMEOUT <= done.seconds < TIMEOUT + SLACK
    assert done.undelivered == done.published[10:]
    assert set(done.reasons) == {"not confirmed"}
    thaw(node)
    nothing_is_lost(done, broker, collecting)


def test_frozen_with_a_full_window(
    node: Node, broker: Broker, collecting: Collecting, freeze: Callable[[], None]
) -> None:
    """Publishing waits no longer than progress_timeout for room in the window."""
    configure(collecting, "window_messages", 5)
    done = attempt(collecting, node.url, broker.exchange, {10: once_all_has_arrived(freeze)})
    one_clear_error(done, collecting, "progress_timeout")
    assert done.undelivered == done.published[10:]
    # What arrived, what filled the window, what was ready for it, and what waited for room there.
    assert len(done.published) == 10 + 5 + 2 + 1
    thaw(node)
    nothing_is_lost(done, broker, collecting)


def test_missed_heartbeats(
    node: Node, broker: Broker, collecting: Collecting, freeze: Callable[[], None]
) -> None:
    """Missed heartbeats end the run before a longer progress_timeout does."""
    configure(collecting, "heartbeat", 1)
    configure(collecting, "progress_timeout", 60)
    done = attempt(collecting, node.url, broker.exchange, {10: once_all_has_arrived(freeze)})
    one_clear_error(done, collecting, "heartbeat")
    assert done.seconds < 30  # pika looks for them every heartbeat and five seconds
    assert done.undelivered == done.published[10:]
    thaw(node)
    nothing_is_lost(done, broker, collecting)


def test_frozen_at_the_end(
    node: Node, broker: Broker, collecting: Collecting, freeze: Callable[[], None]
) -> None:
    """A broker that freezes when everything is confirmed spoils nothing."""
    done = attempt(collecting, node.url, broker.exchange, {30: once_all_has_arrived(freeze)})
    assert done.code == 0, done.told
    assert collecting.state_is_saved()
    thaw(node)
    assert [message.properties["message_id"] for message in broker.receive()] == done.published


def test_connection_forced(node: Node, broker: Broker, collecting: Collecting) -> None:
    """A broker that closes the connection ends the run with its own words."""

    def close_connections() -> None:
        node.control("close_all_connections", "maintenance tonight")

    done = attempt(collecting, node.url, broker.exchange, {10: once_all_has_arrived(close_connections)})
    broker.reconnect()
    one_clear_error(done, collecting, "CONNECTION_FORCED", "maintenance tonight")
    assert done.undelivered == done.published[10:]
    nothing_is_lost(done, broker, collecting)


@pytest.mark.parametrize("confirmed", [True, False], ids=["idle", "busy"])
def test_killed(confirmed: bool, node: Node, broker: Broker, collecting: Collecting) -> None:
    """A broker that is killed ends the run at once."""
    count = 3_000
    collecting.feed.write_text("".join(f"line {number}\n" for number in range(count)))
    kill = once_all_has_arrived(node.kill) if confirmed else lambda collector: node.kill()
    done = attempt(collecting, node.url, broker.exchange, {count - 500: kill})
    node.start()
    broker.reconnect()
    one_clear_error(done, collecting)
    assert done.seconds < SLACK
    if confirmed:
        assert done.undelivered == done.published[count - 500 :]
    nothing_is_lost(done, broker, collecting)


@pytest.fixture
def short_of(node: Node) -> Iterator[Callable[[str], None]]:
    """Starves the broker of `memory` or `disk`; at the end of the test it is fed again."""
    starve = {
        "memory": ("set_vm_memory_high_watermark", "absolute", "1000"),
        "disk": ("set_disk_free_limit", "1000000000000000"),
    }
    yield lambda what: node.control(*starve[what])
    feed(node)


def feed(node: Node) -> None:
    node.control("set_vm_memory_high_watermark", "0.9")
    node.control("set_disk_free_limit", "1000000")


@pytest.mark.parametrize("what", ["memory", "disk"])
@pytest.mark.parametrize("number", [0, 10], ids=["from the start", "on the way"])
def test_alarm(
    number: int,
    what: str,
    node: Node,
    broker: Broker,
    collecting: Collecting,
    short_of: Callable[[str], None],
) -> None:
    """An alarm ends the run within progress_timeout, and its reason is told."""
    starved: list[float] = []

    def starve() -> None:
        short_of(what)
        starved.append(time.monotonic())  # the command itself takes its time on a busy machine

    done = attempt(collecting, node.url, broker.exchange, {number: once_all_has_arrived(starve)})
    one_clear_error(done, collecting, "progress_timeout", "alarm", f"low on {what}")
    assert time.monotonic() - starved[0] >= TIMEOUT
    assert done.undelivered == done.published[number:]
    feed(node)
    nothing_is_lost(done, broker, collecting)


def test_alarm_that_ends(
    node: Node,
    broker: Broker,
    collecting: Collecting,
    short_of: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An alarm that ends while the collector is busy is logged and is not an error."""

    def be_busy_for_longer_than_any_timeout(collector: SampleCollector) -> None:
        time.sleep(TIMEOUT + 1)  # that is what is tried here
        feed(node)

    hooks = {10: once_all_has_arrived(lambda: short_of("memory")), 30: be_busy_for_longer_than_any_timeout}
    with caplog.at_level("INFO"):
        done = attempt(collecting, node.url, broker.exchange, hooks)
    assert done.code == 0, done.told
    assert "takes nothing for now: an alarm: low on memory" in caplog.text
    assert "the alarm is over" in caplog.text
    assert [message.properties["message_id"] for message in broker.receive()] == done.published


def test_too_large_a_message(node: Node, broker: Broker, collecting: Collecting) -> None:
    """A message beyond the broker's limit is told with that limit."""
    largest = b"x" * MAX_MESSAGE_SIZE
    collecting.feed.write_bytes(b"small\n" + largest + b"\n" + largest + b"y\nlast\n")
    done = attempt(collecting, node.url, broker.exchange, {2: lambda collector: collector.flush_output()})
    one_clear_error(done, collecting, "max size", str(MAX_MESSAGE_SIZE), f"{MAX_MESSAGE_SIZE + 1:,} bytes")
    assert done.undelivered == done.published[2:]
    assert len(broker.receive()) == 2


def test_no_right_to_configure(node: Node, broker: Broker, collecting: Collecting) -> None:
    """A user who may not declare the exchange is told so; nothing is published."""
    url = f"amqp://stranger:stranger@127.0.0.1:{node.port}/"
    done = attempt(collecting, url, broker.exchange)
    one_clear_error(done, collecting, "ACCESS_REFUSED", broker.exchange, "stranger")
    assert not done.published


def test_no_right_to_write(node: Node, broker: Broker, collecting: Collecting) -> None:
    """A user who may not publish to the exchange is told so."""
    configure(collecting, "declare", "false")
    url = f"amqp://stranger:stranger@127.0.0.1:{node.port}/"
    done = attempt(collecting, url, broker.exchange)
    one_clear_error(done, collecting, "ACCESS_REFUSED", broker.exchange, "stranger")
    assert done.undelivered == done.published
    nothing_is_lost(done, broker, collecting)


def test_tls(node: Node, broker: Broker, collecting: Collecting) -> None:
    """Large and small messages travel over TLS, in order."""
    configure(collecting, "ssl_ca_certs", node.certificates / "ca.pem")
    lines = [b"%d" % number * MAX_MESSAGE_SIZE for number in range(10)] + [b"short"] * 1_000
    collecting.feed.write_bytes(b"\n".join(lines))
    done = attempt(collecting, f"amqps://guest:guest@localhost:{node.tls_port}/", broker.exchange)
    assert done.code == 0, done.told
    assert [message.body for message in broker.receive()] == lines


@pytest.mark.parametrize(
    ("host", "authority", "told"),
    [
        ("localhost", "wrong-ca.pem", "certificate verify failed"),
        ("localhost", None, "certificate verify failed"),
        ("127.0.0.1", "ca.pem", "not valid for '127.0.0.1'"),
    ],
    ids=["wrong CA", "the system's CAs", "another host"],
)
def test_untrusted_certificate(
    host: str, authority: str | None, told: str, node: Node, broker: Broker, collecting: Collecting
) -> None:
    """A broker whose certificate cannot be trusted gets nothing."""
    if authority is not None:
        configure(collecting, "ssl_ca_certs", node.certificates / authority)
    done = attempt(collecting, f"amqps://guest:guest@{host}:{node.tls_port}/", broker.exchange)
    one_clear_error(done, collecting, told)
    assert not done.published


def test_client_certificate(node: Node, broker: Broker, collecting: Collecting) -> None:
    """A client certificate logs in, without a password."""
    configure(collecting, "ssl_ca_certs", node.certificates / "ca.pem")
    configure(collecting, "ssl_certfile", node.certificates / "client.pem")
    configure(collecting, "ssl_keyfile", node.certificates / "client.key")

    def say_who_we_are(collector: SampleCollector) -> None:
        # The broker refuses messages with the name of somebody else.
        collector.basic_prop_kwargs = {**collector.basic_prop_kwargs, "user_id": "collector"}

    url = f"amqps://localhost:{node.tls_port}/"
    done = attempt(collecting, url, broker.exchange, {0: say_who_we_are})
    assert done.code == 0, done.told
    assert {message.properties["user_id"] for message in broker.receive()} == {"collector"}


def test_wrong_password_over_tls(node: Node, broker: Broker, collecting: Collecting) -> None:
    """A refused login over TLS is one clear error without the password."""
    configure(collecting, "ssl_ca_certs", node.certificates / "ca.pem")
    done = attempt(collecting, f"amqps://collector:wr0ng@localhost:{node.tls_port}/", broker.exchange)
    one_clear_error(done, collecting, "ACCESS_REFUSED")
    assert "wr0ng" not in done.told


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_tls_on_one_side_only(scheme: str, node: Node, broker: Broker, collecting: Collecting) -> None:
    """TLS on one side only is one clear error in time."""
    configure(collecting, "ssl_ca_certs", node.certificates / "ca.pem")
    port = node.tls_port if scheme == "amqp" else node.port
    done = attempt(collecting, f"{scheme}://guest:guest@localhost:{port}/", broker.exchange)
    one_clear_error(done, collecting, f"{scheme}://localhost:{port}")
    assert done.seconds < TIMEOUT + SLACK
