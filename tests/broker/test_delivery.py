"""What reaches a real RabbitMQ, and what a run says when not everything does."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from n6_stateful import PublishError, settings
from n6_stateful.command import main
from n6_stateful.config import ConfigFiles, load
from n6_stateful.errors import CollectorError
from n6_stateful.output.choice import OUTPUT_SPEC
from n6_stateful.output.choice import make_output as make_configured
from tests.broker.conftest import Broker, Collecting
from tests.runtime.output_contract import Arrived, MakeOutput, OutputContract
from tests.runtime.sample_collector import SampleCollector


class TestContract(OutputContract):
    """Straight to RabbitMQ, and by way of a spool."""

    @pytest.fixture(params=["amqp", "spool first"])
    def make_output(self, broker: Broker, tmp_path: Path, request: pytest.FixtureRequest) -> MakeOutput:
        broker.bind()
        spool = f"spool_when_down = {tmp_path}/spool" if request.param == "spool first" else ""
        sections = load([OUTPUT_SPEC], ConfigFiles.from_text(f"[output]\n{spool}\n"))
        return lambda: make_configured(sections, broker.url)

    @pytest.fixture
    def arrived(self, broker: Broker) -> Arrived:
        return lambda: [(each.properties["message_id"], each.body) for each in broker.receive()]

    @pytest.fixture
    def exchange(self, broker: Broker) -> str:
        return broker.exchange


def sample(broker: Broker, **attributes: Any) -> type[SampleCollector]:
    """The sample collector, publishing to the test's own exchange."""
    queue = {"exchange": broker.exchange, "exchange_type": "topic"}
    attributes = {"output_queue": queue, "__module__": SampleCollector.__module__, **attributes}
    return type("SampleCollector", (SampleCollector,), attributes)


def run(collector_class: type[SampleCollector], collecting: Collecting, *argv: str, url: str) -> int:
    """Run the command; its exit code."""
    kept = []

    def remember(self: SampleCollector, **kwargs: Any) -> None:
        kept.append(self)
        collector_class.__init__(self, **kwargs)

    members = {"__init__": remember, "__module__": collector_class.__module__}
    watched = type("SampleCollector", (collector_class,), members)
    try:
        return main(watched, ["--config", str(collecting.config), "--output", url, *argv])
    finally:
        for collector in kept:
            collector.close_state()


@contextmanager
def failing_run(collector_class: type[SampleCollector], collecting: Collecting, url: str) -> Iterator[Any]:
    """Run the collector itself, and hand out the `PublishError` that it has to end with."""
    wanted = settings.Settings(config_paths=(str(collecting.config),), output=url)
    with settings.use(wanted):
        collector = collector_class()
        with pytest.raises(PublishError) as caught:
            collector.run_handling()
        collector.close_state()
    yield caught.value
    assert not collecting.state_is_saved()


def test_on_the_wire(broker: Broker, collecting: Collecting) -> None:
    """A message has exactly the properties that n6 gives it."""
    broker.bind()
    before = int(time.time())
    assert run(sample(broker), collecting, url=broker.url) == 0
    first, second = broker.receive()
    assert (first.body, second.body) == (b"one", b"two")
    assert (first.exchange, first.routing_key) == (broker.exchange, "my-provider.lines")
    properties = dict(first.properties)
    assert before <= properties.pop("timestamp") <= time.time()
    message_id = properties.pop("message_id")
    assert len(message_id) == 32
    assert set(message_id) <= set("0123456789abcdef")
    assert properties == {"delivery_mode": 2, "type": "stream"}


def test_file_with_a_format_tag(broker: Broker, collecting: Collecting) -> None:
    """A file bears its content type, and the format tag ends the routing key."""
    broker.bind()
    kind = sample(broker, type="file", content_type="text/csv", raw_format_version_tag="202601")
    assert run(kind, collecting, url=broker.url) == 0
    first, _ = broker.receive()
    assert first.routing_key == "my-provider.lines.202601"
    assert (first.properties["type"], first.properties["content_type"]) == ("file", "text/csv")


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_order(kind: str, broker: Broker, collecting: Collecting) -> None:
    """Thousands of messages arrive in order."""
    broker.bind(**{"x-queue-type": kind})
    lines = [b"%d" % number for number in range(5_000)]
    collecting.feed.write_bytes(b"\n".join(lines))
    assert run(sample(broker), collecting, url=broker.url) == 0
    assert [message.body for message in broker.receive()] == lines


def test_large_body(broker: Broker, collecting: Collecting) -> None:
    """A body of 20 MB arrives whole."""
    broker.bind()
    body = bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"") * 80_000
    large = sample(broker, get_output_data_body=lambda self, **processed_data: body)
    collecting.feed.write_text("x\n")
    assert run(large, collecting, url=broker.url) == 0
    (message,) = broker.receive()
    assert message.body == body


def test_exchange_is_durable(broker: Broker, collecting: Collecting) -> None:
    """The exchange is declared durable, as n6 declares it."""
    with failing_run(sample(broker), collecting, broker.url) as error:
        assert len(error.undelivered) == 2
    broker.bind()  # with other arguments the broker would refuse this
    assert run(sample(broker), collecting, url=broker.url) == 0


def test_unroutable(broker: Broker, collecting: Collecting) -> None:
    """A message that no queue takes is an error, marked as refused, and the state stays."""
    broker.bind("other.#")
    with failing_run(sample(broker), collecting, broker.url) as error:
        assert [each.routing_key for each in error.undelivered] == ["my-provider.lines"] * 2
        assert all("bind a queue for it" in each.reason for each in error.undelivered)
        assert error.exit_code == 69
        assert "(returned (NO_ROUTE): bind a queue" in str(error).partition("\n")[0]


def test_error_listing(broker: Broker, collecting: Collecting, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 69 and shows the first few that did not arrive."""
    collecting.feed.write_text("x\n" * 20)
    assert run(sample(broker), collecting, url=broker.url) == 69
    told = capsys.readouterr().err
    assert told.count("n6collector_sample: error: ") == 1
    assert told.count("my-provider.lines") == PublishError.SHOWN
    assert "20 not delivered" in told
    assert "15 more" in told
    assert "Traceback" not in told
    assert not collecting.state_is_saved()


def test_unroutable_as_a_warning(
    broker: Broker, collecting: Collecting, caplog: pytest.LogCaptureFixture
) -> None:
    """With unroutable = warn such messages are lost with a warning."""
    broker.bind("other.#")
    with collecting.config.open("a") as file:
        file.write("unroutable = warn\n")
    assert run(sample(broker), collecting, url=broker.url) == 0
    assert "the message is lost" in caplog.text


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_full_queue(kind: str, broker: Broker, collecting: Collecting) -> None:
    """What a full queue refuses is listed exactly, and the state stays."""
    limits: dict[str, Any] = {"x-queue-type": kind, "x-max-length": 3, "x-overflow": "reject-publish"}
    broker.bind(**limits)
    # A quorum queue notices late that it is full (its limit is a soft one), so there are many.
    lines = [b"%d" % number for number in range(10_000)]
    collecting.feed.write_bytes(b"\n".join(lines))
    published = []

    def publish_output(self: SampleCollector, *args: Any) -> str:
        try:
            published.append(SampleCollector.publish_output(self, *args))
        except PublishError as exc:
            published.append(exc.undelivered[-1].message_id)
            raise
        return published[-1]

    watched = sample(broker, publish_output=publish_output)
    with failing_run(watched, collecting, broker.url) as error:
        refused = {each.message_id for each in error.undelivered}
    arrived = {message.properties["message_id"] for message in broker.receive()}
    assert arrived
    assert refused
    assert not refused & arrived
    assert set(published) == refused | arrived


def test_repeated_after_a_failure(broker: Broker, collecting: Collecting) -> None:
    """The run after a failed one publishes everything again, with the same ids."""
    broker.bind("other.#")
    with failing_run(sample(broker), collecting, broker.url) as error:
        refused = [each.message_id for each in error.undelivered]
    broker.bind("#")
    assert run(sample(broker), collecting, url=broker.url) == 0
    assert [message.properties["message_id"] for message in broker.receive()] == refused


def test_repeated_after_a_crash(broker: Broker, collecting: Collecting) -> None:
    """The run after a crash before the save publishes twins with the same ids."""

    def crash(self: SampleCollector, state: object) -> None:
        raise ZeroDivisionError

    broker.bind()
    collecting.feed.write_text("one\ntwo\none\n")
    assert run(sample(broker, save_state=crash), collecting, url=broker.url) == 1
    first = [(message.body, message.properties["message_id"]) for message in broker.receive()]
    collecting.feed.write_text("one\ntwo\none\nthree\n")
    assert run(sample(broker), collecting, url=broker.url) == 0
    again = [(message.body, message.properties["message_id"]) for message in broker.receive()]
    assert [body for body, _ in again] == [b"one", b"two", b"one", b"three"]
    assert again[:3] == first
    assert len(set(again)) == 4


def test_order_of_the_list(broker: Broker, collecting: Collecting) -> None:
    """The list is in the order of publishing, whatever became of each."""
    # What is refused is told after the queue was asked; what is returned is told before.
    broker.bind("full.#", **{"x-max-length": 0, "x-overflow": "reject-publish"})
    routing_keys = ["full.a", "nowhere.b", "full.c", "nowhere.d", "full.e"]

    def start_publishing(self: SampleCollector) -> None:
        for number, routing_key in enumerate(routing_keys):
            self.publish_output(routing_key, b"x" * (number + 1))

    with failing_run(sample(broker, start_publishing=start_publishing), collecting, broker.url) as error:
        listed = [(each.routing_key, each.size) for each in error.undelivered]
    assert listed == [(routing_key, size) for size, routing_key in enumerate(routing_keys, 1)]


def test_headers(broker: Broker, collecting: Collecting) -> None:
    """Headers and other properties travel along."""

    def start_publishing(self: SampleCollector) -> None:
        headers = {"meta": {"mail_time": "2026-01-01T00:00:00", "number": 7}}
        self.publish_output("my-provider.lines", b"x", {"headers": headers, "priority": 3})

    broker.bind()
    assert run(sample(broker, start_publishing=start_publishing), collecting, url=broker.url) == 0
    (message,) = broker.receive()
    assert message.properties["application_headers"] == {
        "meta": {"mail_time": "2026-01-01T00:00:00", "number": 7}
    }
    assert message.properties["priority"] == 3


def test_unknown_property(broker: Broker, collecting: Collecting, capsys: pytest.CaptureFixture[str]) -> None:
    """A property that AMQP does not know is one clear error."""

    def start_publishing(self: SampleCollector) -> None:
        self.publish_output("my-provider.lines", b"x", {"no_such_property": 1})

    broker.bind()
    assert run(sample(broker, start_publishing=start_publishing), collecting, url=broker.url) == 1
    told = capsys.readouterr().err
    assert "no_such_property" in told
    assert "Traceback" not in told
    assert not broker.receive()


@pytest.mark.parametrize(
    ("routing_key", "properties"),
    [
        ("r" * 300, {}),
        ("a.b", {"timestamp": 1.5}),
        ("a.b", {"priority": 300}),
        ("a.b", {"content_type": 5}),
        ("a.b", {"headers": {"a": object()}}),
    ],
    ids=["routing key", "timestamp", "priority", "content type", "header"],
)
def test_impossible_message(
    routing_key: str, properties: dict[str, Any], broker: Broker, collecting: Collecting
) -> None:
    """A message that AMQP cannot hold is one clear error and spoils no other."""

    def start_publishing(self: SampleCollector) -> None:
        self.publish_output("my-provider.lines", b"first")
        with pytest.raises(CollectorError, match="AMQP cannot hold"):
            self.publish_output(routing_key, b"bad", properties)
        self.publish_output("my-provider.lines", b"last")

    broker.bind()
    assert run(sample(broker, start_publishing=start_publishing), collecting, url=broker.url) == 0
    assert [message.body for message in broker.receive()] == [b"first", b"last"]


def test_impossible_exchange(
    broker: Broker, collecting: Collecting, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exchange name that AMQP cannot hold is one clear error."""
    queue = {"exchange": "x" * 256, "exchange_type": "topic"}
    assert run(sample(broker, output_queue=queue), collecting, url=broker.url) == 1
    told = capsys.readouterr().err
    assert "AMQP cannot hold the exchange" in told
    assert "Traceback" not in told


def test_exchange_of_another_type(broker: Broker, collecting: Collecting) -> None:
    """An exchange that exists with another type is one clear error."""
    broker.channel.exchange_declare(broker.exchange, "fanout", durable=True, auto_delete=False)
    with failing_run(sample(broker), collecting, broker.url) as error:
        assert "inequivalent arg 'type'" in str(error)


def test_missing_exchange(broker: Broker, collecting: Collecting) -> None:
    """With declare = false a missing exchange is one clear error."""
    with collecting.config.open("a") as file:
        file.write("declare = false\n")
    with failing_run(sample(broker), collecting, broker.url) as error:
        assert "no exchange" in str(error)
        assert "nothing was published" in str(error)


def test_existing_exchange(broker: Broker, collecting: Collecting) -> None:
    """With declare = false an existing exchange is published to."""
    broker.bind()
    with collecting.config.open("a") as file:
        file.write("declare = false\n")
    assert run(sample(broker), collecting, url=broker.url) == 0
    assert len(broker.receive()) == 2


def test_refused_login(
    broker: Broker,
    collecting: Collecting,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A refused login is one clear error without the password, which the debug log does not tell either."""
    caplog.set_level(logging.DEBUG)
    parts = urlsplit(broker.url)
    url = parts._replace(netloc=f"guest:wr0ng-s3cret@{parts.hostname}:{parts.port or 5672}").geturl()
    assert run(sample(broker), collecting, url=url) == 69
    told = capsys.readouterr().err
    assert "ACCESS_REFUSED" in told
    assert any(record.name.startswith("pika") for record in caplog.records)
    assert "wr0ng-s3cret" not in told + caplog.text


def test_missing_virtual_host(broker: Broker, collecting: Collecting) -> None:
    """A virtual host that does not exist is one clear error."""
    with failing_run(sample(broker), collecting, broker.on_vhost("no-such-vhost")) as error:
        assert "no-such-vhost" in str(error)


def test_several_exchanges(broker: Broker, collecting: Collecting) -> None:
    """Each message can go to another of the declared exchanges."""

    class Two(SampleCollector):
        output_queue = [
            {"exchange": "amq.topic", "exchange_type": "topic"},
            {"exchange": broker.exchange, "exchange_type": "topic"},
        ]

        def start_publishing(self) -> None:
            self.publish_output("my-provider.lines", b"x", exchange=broker.exchange)

    broker.bind()
    assert run(Two, collecting, url=broker.url) == 0
    (message,) = broker.receive()
    assert (message.exchange, message.body) == (broker.exchange, b"x")


def test_rabbitmq_section(broker: Broker, collecting: Collecting) -> None:
    """n6's own [rabbitmq] section leads to its broker."""
    broker.bind()
    parts = urlsplit(broker.url)
    collecting.config.write_text(
        collecting.config.read_text()
        + f"[rabbitmq]\nhost = {parts.hostname}\nport = {parts.port or 5672}\nheartbeat_interval = 30\n"
        f"ssl = false\npassword_auth = true\nusername = {parts.username}\npassword = {parts.password}\n"
    )
    assert main(sample(broker), ["--config", str(collecting.config)]) == 0
    assert len(broker.receive()) == 2


@pytest.mark.parametrize("pause_first", [True, False], ids=["before the first", "between two"])
def test_long_download(pause_first: bool, broker: Broker, collecting: Collecting) -> None:
    """A download of several heartbeats does not cost the connection."""

    def start_publishing(self: SampleCollector) -> None:
        if not pause_first:
            self.publish_output("my-provider.lines", b"first")
        time.sleep(3.5)  # the collector's own code is slow: that is what is tried here
        self.publish_output("my-provider.lines", b"last")

    broker.bind()
    with collecting.config.open("a") as file:
        file.write("heartbeat = 1\n")
    slow = sample(broker, start_publishing=start_publishing)
    assert run(slow, collecting, url=broker.url) == 0
    assert broker.receive()[-1].body == b"last"


def test_held_lock(broker: Broker, collecting: Collecting) -> None:
    """Code that holds Python's lock for longer than a heartbeat does not cost the connection."""
    # A function of the C library that is called without the lock being given up.
    sleep = ctypes.PyDLL(None).sleep

    def start_publishing(self: SampleCollector) -> None:
        self.publish_output("my-provider.lines", b"first")
        sleep(3)
        self.publish_output("my-provider.lines", b"last")

    broker.bind()
    with collecting.config.open("a") as file:
        file.write("heartbeat = 2\n")
    assert run(sample(broker, start_publishing=start_publishing), collecting, url=broker.url) == 0
    assert [message.body for message in broker.receive()] == [b"first", b"last"]


def test_saving_in_the_middle(broker: Broker, collecting: Collecting) -> None:
    """A state saved in the middle never runs ahead of what has arrived."""
    arrived_at_saves = []

    def start_publishing(self: SampleCollector) -> None:
        for number in range(3):
            self.publish_output("my-provider.lines", b"%d" % number)
            self.save_state({"taken": number})
            arrived_at_saves.append(len(broker.receive()))

    broker.bind()
    assert run(sample(broker, start_publishing=start_publishing), collecting, url=broker.url) == 0
    assert arrived_at_saves == [1, 1, 1]


def test_saving_in_the_middle_after_a_refusal(broker: Broker, collecting: Collecting) -> None:
    """Saving in the middle fails if the broker did not take everything."""

    def start_publishing(self: SampleCollector) -> None:
        self.publish_output("my-provider.lines", b"lost")
        self.save_state({"taken": 1})

    broker.bind("other.#")
    with failing_run(sample(broker, start_publishing=start_publishing), collecting, broker.url) as error:
        assert len(error.undelivered) == 1


def test_forwarded_spool(
    broker: Broker, collecting: Collecting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A spool is forwarded as it was published."""
    broker.bind()
    spool = f"spool:{tmp_path}/spool"
    assert run(sample(broker), collecting, url=spool) == 0
    capsys.readouterr()
    config = ["--config", str(collecting.config), "--output", spool]
    assert main(sample(broker), ["spool", "forward", "--to", broker.url, *config]) == 0
    assert "forwarded 2 messages" in capsys.readouterr().out
    first, second = broker.receive()
    assert (first.body, second.body) == (b"one", b"two")
    assert first.properties["type"] == "stream"
    assert main(sample(broker), ["spool", "forward", "--to", broker.url, *config]) == 0
    assert "forwarded 0 messages" in capsys.readouterr().out
    assert not broker.receive()
