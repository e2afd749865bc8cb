"""A spool forwarded to a real broker, over a network that breaks; and store and forward."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from n6_stateful.command import main
from n6_stateful.message import Exchange, Message
from n6_stateful.output.amqp import AmqpOutput
from n6_stateful.output.spool import Spool
from tests.broker.attempt import attempt
from tests.broker.conftest import Broker, Collecting
from tests.broker.private_node import until
from tests.broker.proxy import TO_BROKER, Proxy
from tests.runtime import sample_collector
from tests.runtime.sample_collector import SampleCollector

LINES = [b"line %d" % number for number in range(2_500)]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture(autouse=True)
def many(broker: Broker, collecting: Collecting) -> None:
    broker.bind()
    collecting.feed.write_bytes(b"\n".join(LINES))


def forward(collecting: Collecting, spool: Spool, url: str) -> int:
    argv = ["--config", str(collecting.config), "--output", f"spool:{spool.path}"]
    return main(SampleCollector, ["spool", "forward", "--to", url, *argv])


def spool_these(spool: Spool, exchange: str, *changes: dict[str, Any]) -> list[str]:
    """Put a message for each of the changes into the spool; their ids."""
    spool.open([Exchange(exchange, "topic")], "owner", ("g",))
    made = []
    for number, change in enumerate(changes):
        properties = {"message_id": f"{number:032x}", **change.get("properties", {})}
        body = change.get("body", b"%d" % number)
        routing_key = change.get("routing_key", "a.b")
        spool.publish(Message(change.get("exchange", exchange), routing_key, body, properties, "g"))
        made.append(properties["message_id"])
    spool.close()
    return made


def ids(spool: Spool) -> list[str]:
    return [spooled.message.properties["message_id"] for spooled in spool.messages()]


def received(broker: Broker) -> list[str]:
    """The ids of what has arrived, as often as it has."""
    return [message.properties["message_id"] for message in broker.receive()]


class TestForward:
    """A spool that is forwarded."""

    def test_broken_network(
        self, broker: Broker, collecting: Collecting, spool: Spool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A forward that the network breaks leaves the rest, in order, and is taken up."""
        stored = attempt(collecting, f"spool:{spool.path}", broker.exchange)
        assert stored.code == 0, stored.told
        with Proxy(broker.url, after=(TO_BROKER, 250_000)) as proxy:
            assert forward(collecting, spool, proxy.url) == 69
        assert "n6collector_sample: error: " in capsys.readouterr().err
        waiting = ids(spool)
        assert 0 < len(waiting) < len(LINES)
        assert waiting == stored.published[-len(waiting) :]
        assert [each.refused for each in spool.messages() if each.refused] == []
        arrived = broker.receive()
        assert {m.properties["message_id"] for m in arrived} >= set(stored.published) - set(waiting)

        assert forward(collecting, spool, broker.url) == 0
        assert f"forwarded {len(waiting):,} messages" in capsys.readouterr().out
        arrived += broker.receive()
        assert ids(spool) == []
        # What came twice is dropped by its id, as a consumer does it.
        records = {message.properties["message_id"]: message.body for message in arrived}
        assert list(records) == stored.published
        assert list(records.values()) == LINES

    def test_two_at_once(self, broker: Broker, collecting: Collecting, spool: Spool) -> None:
        """Two forwards at once send nothing twice, and keep the order."""
        stored = attempt(collecting, f"spool:{spool.path}", broker.exchange)
        program = [sys.executable, str(sample_collector.__file__), "spool", "forward"]
        config = ["--config", str(collecting.config), "--output", f"spool:{spool.path}"]
        with Proxy(broker.url, delay=0.05) as slow:
            first = subprocess.Popen(
                [*program, *config, "--to", slow.url], stderr=subprocess.PIPE, env=os.environ
            )
            until(lambda: slow.forwarded[TO_BROKER], "the first forward to begin")
            assert forward(collecting, spool, broker.url) == 0
            _, told = first.communicate(timeout=60)
        assert first.returncode == 0, told
        assert received(broker) == stored.published

    def test_check(
        self, broker: Broker, collecting: Collecting, spool: Spool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A check tries the broker behind a spool, and sends nothing of it."""
        stored = attempt(collecting, f"spool:{spool.path}", broker.exchange)
        with collecting.config.open("a") as file:
            file.write(f"spool_when_down = {spool.path}\n")
        check = ["check", "--config", str(collecting.config), "--output"]
        assert main(SampleCollector, [*check, broker.url]) == 0
        assert main(SampleCollector, [*check, "amqp://127.0.0.1:9/"]) == 69
        assert "no connection: Connection refused" in capsys.readouterr().out
        assert ids(spool) == stored.published
        assert broker.receive() == []


class TestRefused:
    """What the broker refuses is set apart, is told, and holds up nothing."""

    def test_closed(
        self, broker: Broker, collecting: Collecting, spool: Spool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Among 300 messages those are found out on which it closes the channel, or the connection."""
        changes: list[dict[str, Any]] = [{} for _ in range(300)]
        changes[0] = {"exchange": "n6-stateful-no-such-exchange"}
        changes[123] = {"properties": {"user_id": "somebody-else"}}
        changes[200] = {"properties": {"headers": {"large": "x" * 200_000}}}
        changes[299] = {"properties": {"expiration": "1h"}}  # as versions before this one took it
        made = spool_these(spool, broker.exchange, *changes)
        refused = [made[number] for number in (0, 123, 200, 299)]
        assert forward(collecting, spool, broker.url) == 69
        told = capsys.readouterr()
        assert "forwarded 296 messages" in told.out
        for reason in ("404 NOT_FOUND", "406 PRECONDITION_FAILED", "501 FRAME_ERROR"):
            assert reason in told.err
        assert ids(spool) == refused
        assert list(dict.fromkeys(received(broker))) == [each for each in made if each not in refused]

        spool_these(spool, broker.exchange, {"properties": {"message_id": "f" * 32}})
        assert forward(collecting, spool, broker.url) == 69
        assert received(broker) == ["f" * 32]
        assert ids(spool) == refused

    def test_impossible(
        self, broker: Broker, collecting: Collecting, spool: Spool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """So is what AMQP cannot hold: versions before this one did not look at what they spooled."""
        made = spool_these(spool, broker.exchange, {}, {"routing_key": "r" * 300}, {})
        for arrived in ([made[0], made[2]], []):
            assert forward(collecting, spool, broker.url) == 69
            told = capsys.readouterr().err
            assert "Traceback" not in told
            assert made[1] in told
            assert list(dict.fromkeys(received(broker))) == arrived
            assert ids(spool) == [made[1]]

    def test_unroutable(self, broker: Broker, collecting: Collecting, spool: Spool) -> None:
        """1,500 messages that no queue takes, at the head, wait for a queue and hold up nothing."""
        broker.channel.queue_unbind(broker.queue, broker.exchange, "#")
        broker.channel.queue_bind(broker.queue, broker.exchange, "good")
        changes = [{"routing_key": "bad"} for _ in range(1_500)] + [{"routing_key": "good"} for _ in range(5)]
        made = spool_these(spool, broker.exchange, *changes)
        assert forward(collecting, spool, broker.url) == 69
        assert received(broker) == made[1_500:]
        assert ids(spool) == made[:1_500]
        assert all("bind a queue for it" in str(each.refused) for each in spool.messages())
        broker.channel.queue_bind(broker.queue, broker.exchange, "bad")
        assert forward(collecting, spool, broker.url) == 0
        assert received(broker) == made[:1_500]

    @pytest.mark.parametrize(
        ("exchange", "reason"),
        [("n6-stateful-no-such-exchange", "404 NOT_FOUND"), ("amq.rabbitmq.trace", "403 ACCESS_REFUSED")],
    )
    def test_no_way(
        self,
        exchange: str,
        reason: str,
        broker: Broker,
        collecting: Collecting,
        spool: Spool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """300 messages to where nothing may be sent are set apart with a few connections, again with two."""
        opened: list[object] = []
        open_ = AmqpOutput.open

        def counting(self: AmqpOutput, *args: Any) -> None:
            opened.append(self)
            open_(self, *args)

        monkeypatch.setattr(AmqpOutput, "open", counting)
        made = spool_these(spool, broker.exchange, {}, *[{"exchange": exchange}] * 300, {})
        for arrived, most in (([made[0], made[-1]], 30), ([], 2)):
            opened.clear()
            assert forward(collecting, spool, broker.url) == 69
            assert len(opened) <= most
            assert list(dict.fromkeys(received(broker))) == arrived
            assert ids(spool) == made[1:-1]
            assert all(reason in str(each.refused) for each in spool.messages())

    def test_mistaken_exchange(self, broker: Broker, collecting: Collecting, spool: Spool) -> None:
        """An exchange that was once declared by mistake stops no forward."""
        spool.open([Exchange("amq.direct", "fanout")], "owner", ("g",))
        spool.close()
        made = spool_these(spool, broker.exchange, {})
        assert forward(collecting, spool, broker.url) == 0
        assert received(broker) == made

    @pytest.mark.parametrize(
        ("exchange", "reason"),
        [
            (Exchange("amq.direct", "fanout"), "406 PRECONDITION_FAILED"),
            (Exchange("amq.n6-stateful-test", "topic"), "403 ACCESS_REFUSED"),
            (Exchange("n6-stateful-test-odd", "no-such-type"), "503 COMMAND_INVALID"),
        ],
        ids=["of another type", "reserved", "of no type"],
    )
    def test_exchange(
        self, exchange: Exchange, reason: str, broker: Broker, collecting: Collecting, spool: Spool
    ) -> None:
        """What is for an exchange that cannot be declared is set apart, and the rest goes on."""
        spool.open([exchange], "owner", ("g",))
        spool.close()
        made = spool_these(spool, broker.exchange, {}, {"exchange": exchange.name}, {})
        for arrived in ([made[0], made[2]], []):
            assert forward(collecting, spool, broker.url) == 69
            assert received(broker) == arrived
            ((message_id, refused),) = [(each.message_id, each.refused) for each in spool.messages()]
            assert message_id == made[1]
            assert reason in str(refused)

    def test_run(self, broker: Broker, collecting: Collecting, spool: Spool) -> None:
        """A run with spool_when_down saves its state, and tells by its exit code what was set apart."""
        collecting.feed.write_bytes(b"new")
        spool_these(spool, broker.exchange, {"properties": {"user_id": "somebody-else"}})
        with collecting.config.open("a") as file:
            file.write(f"spool_when_down = {spool.path}\n")
        done = attempt(collecting, broker.url, broker.exchange)
        assert done.code == 69
        assert "set apart in the spool" in done.told
        assert collecting.state_is_saved()
        assert [message.body for message in broker.receive()] == [b"new"]


class TestStoreAndForward:
    """Runs with `spool_when_down`."""

    def test_broken_network(self, broker: Broker, collecting: Collecting, spool: Spool) -> None:
        """It outlives a broken network, and keeps the order."""
        with collecting.config.open("a") as file:
            file.write(f"spool_when_down = {spool.path}\n")
        published = []
        with Proxy(broker.url, after=(TO_BROKER, 250_000)) as proxy:
            first = attempt(collecting, proxy.url, broker.exchange)
        assert (first.code, first.told) == (0, "")
        assert collecting.state_is_saved()
        published += first.published
        assert ids(spool) == published[-len(ids(spool)) :]

        # The broker is gone altogether.
        collecting.feed.write_bytes(b"\n".join([*LINES, b"later"]))
        second = attempt(collecting, proxy.url, broker.exchange)
        assert second.code == 0
        published += second.published

        collecting.feed.write_bytes(b"\n".join([*LINES, b"later", b"latest"]))
        third = attempt(collecting, broker.url, broker.exchange)
        assert third.code == 0
        published += third.published
        assert len(published) == len(LINES) + 2
        records = {message.properties["message_id"]: message.body for message in broker.receive()}
        assert list(records) == published
        assert list(records.values()) == [*LINES, b"later", b"latest"]
        assert ids(spool) == []

    def test_repeated(self, broker: Broker, collecting: Collecting, spool: Spool) -> None:
        """A run that is repeated adds nothing twice, though what it published was forwarded."""
        with collecting.config.open("a") as file:
            file.write(f"spool_when_down = {spool.path}\n")

        def crash(self: SampleCollector, state: object) -> None:
            self.close_state()
            raise ZeroDivisionError

        output_queue = {"exchange": broker.exchange, "exchange_type": "topic"}
        members = {
            "save_state": crash,
            "output_queue": output_queue,
            "__module__": SampleCollector.__module__,
        }
        crashing = type("SampleCollector", (SampleCollector,), members)
        argv = ["--config", str(collecting.config), "--output", broker.url]
        with redirect_stderr(io.StringIO()):
            assert main(crashing, argv) == 1
        assert [message.body for message in broker.receive()] == LINES
        again = attempt(collecting, broker.url, broker.exchange)
        assert again.code == 0, again.told
        assert broker.receive() == []
