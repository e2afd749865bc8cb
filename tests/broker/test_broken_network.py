"""A network that breaks between the collector and the broker, at any byte."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from n6_stateful import PublishError
from n6_stateful.output.amqp import AmqpOutput
from tests.broker.attempt import attempt, nothing_is_lost, one_clear_error
from tests.broker.conftest import Broker, Collecting, make_collecting
from tests.broker.private_node import until
from tests.broker.proxy import FROM_BROKER, TO_BROKER, Proxy
from tests.runtime import sample_collector
from tests.runtime.sample_collector import SampleCollector

TIMEOUT = 1
SLACK = 4
LINES = 12


@pytest.fixture(autouse=True)
def bound(broker: Broker) -> None:
    broker.bind()


@pytest.fixture
def collecting(tmp_path: Path) -> Collecting:
    return fresh(tmp_path)


def fresh(directory: Path) -> Collecting:
    collecting = make_collecting(directory)
    with collecting.config.open("a") as file:
        file.write(f"progress_timeout = {TIMEOUT}\nconnect_timeout = {TIMEOUT}\n")
    collecting.feed.write_text("".join(f"line {number}\n" for number in range(LINES)))
    return collecting


@pytest.mark.parametrize("how", ["close", "reset", "stall", "deaf"])
def test_breaks_midway(how: str, broker: Broker, collecting: Collecting) -> None:
    """A connection that breaks ends the run in time, with an exact list."""
    with Proxy(broker.url, how) as proxy:

        def cut(collector: SampleCollector) -> None:
            collector.flush_output()
            proxy.cut()

        done = attempt(collecting, proxy.url, broker.exchange, {5: cut})
    one_clear_error(done, collecting, "127.0.0.1")
    assert done.seconds < TIMEOUT + SLACK
    assert done.undelivered == done.published[5:]
    nothing_is_lost(done, broker, collecting)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_breaks_at_the_end(how: str, broker: Broker, collecting: Collecting) -> None:
    """A connection that breaks when everything is confirmed spoils nothing."""
    with Proxy(broker.url, how) as proxy:

        def cut(collector: SampleCollector) -> None:
            collector.flush_output()
            proxy.cut()
            collector.flush_output()

        done = attempt(collecting, proxy.url, broker.exchange, {LINES: cut})
    assert done.code == 0, done.told
    assert collecting.state_is_saved()
    assert [message.properties["message_id"] for message in broker.receive()] == done.published


def test_careless_collector(broker: Broker, collecting: Collecting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that swallows the error and goes on does not end well."""
    publish_output = SampleCollector.publish_output

    def careless(self: SampleCollector, *args: Any) -> str:
        try:
            return publish_output(self, *args)
        except PublishError as exc:
            return exc.undelivered[-1].message_id

    monkeypatch.setattr(SampleCollector, "publish_output", careless)
    with Proxy(broker.url) as proxy:

        def cut(collector: SampleCollector) -> None:
            collector.flush_output()
            proxy.cut()
            time.sleep(1)  # a collector that is busy: the end is noticed when nothing is on its way

        done = attempt(collecting, proxy.url, broker.exchange, {5: cut})
    one_clear_error(done, collecting)
    assert done.undelivered == done.published[5:]
    nothing_is_lost(done, broker, collecting)


def interrupted_at(number: int, events: list[str]) -> Callable[[FrameType, str, object], Any]:
    """A trace function that interrupts what is traced before its line with that number, within `publish` and
    what it calls; it counts the lines in `events`."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if Path(frame.f_code.co_filename).name not in ("amqp.py", "threading.py", "select_connection.py"):
            return None
        if event == "line":
            events.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            if len(events) == number:
                raise KeyboardInterrupt
        return trace

    return trace


def test_swallowed_interruption(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that swallows an interruption, whichever line of `publish` it hit, does not end well."""
    publish = AmqpOutput.publish
    publish_output = SampleCollector.publish_output
    number = 2  # before the first line nothing has begun
    armed: list[bool] = []
    events: list[str] = []

    def traced(self: AmqpOutput, message: Any) -> None:
        if armed:
            armed.clear()
            sys.settrace(interrupted_at(number, events))
        try:
            publish(self, message)
        finally:
            sys.settrace(None)

    def careless(self: SampleCollector, *args: Any) -> str:
        try:
            return publish_output(self, *args)
        except KeyboardInterrupt:
            return "interrupted"

    monkeypatch.setattr(AmqpOutput, "publish", traced)
    monkeypatch.setattr(SampleCollector, "publish_output", careless)
    hit = 0
    while True:
        collecting = fresh(tmp_path / str(number))
        with collecting.config.open("a") as file:
            file.write("window_messages = 3\n")
        events.clear()
        done = attempt(collecting, broker.url, broker.exchange, {5: lambda collector: armed.append(True)})
        if len(events) < number:
            break
        hit += 1
        where = events[number - 1]
        assert done.code == 69, f"{where}: {done.told}"
        assert "interrupted half-way" in done.told, where
        arrived = [message.properties["message_id"] for message in broker.receive()]
        again = attempt(collecting, broker.url, broker.exchange)
        assert again.code == 0, again.told
        assert again.published[: len(arrived)] == arrived, where  # none twice, none torn, none left out
        arrived += [message.properties["message_id"] for message in broker.receive()]
        assert list(dict.fromkeys(arrived)) == again.published, where
        number += 1
    assert done.code == 0, done.told
    assert hit > 10


def test_lost_confirmations(broker: Broker, collecting: Collecting) -> None:
    """Messages whose confirmation got lost are listed, and come again as twins."""
    with Proxy(broker.url, "deaf") as proxy:
        done = attempt(collecting, proxy.url, broker.exchange, {5: lambda collector: proxy.cut()})
    one_clear_error(done, collecting, "progress_timeout")
    assert len(done.undelivered) >= LINES - 5
    ids = [message.properties["message_id"] for message in broker.receive()]
    assert ids == done.published
    again = attempt(collecting, broker.url, broker.exchange)
    assert again.code == 0, again.told
    assert [message.properties["message_id"] for message in broker.receive()] == ids


@pytest.mark.parametrize("way", [TO_BROKER, FROM_BROKER])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_cut_at_any_byte(
    how: str, way: str, broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut at any byte, a run either delivers all or lists what it did not."""
    with Proxy(broker.url) as proxy:
        assert attempt(fresh(tmp_path / "whole"), proxy.url, broker.exchange).code == 0
    broker.receive()
    total = proxy.forwarded[way]
    told = delivered = 0
    for after in sorted({*range(0, total, max(1, total // 25)), total - 20, total - 1}):
        collecting = fresh(tmp_path / str(after))
        with Proxy(broker.url, how, (way, after)) as proxy:
            done = attempt(collecting, proxy.url, broker.exchange)
        assert done.seconds < TIMEOUT + SLACK
        if done.code == 0:
            # It broke while the connection was being closed: all was confirmed.
            assert [message.properties["message_id"] for message in broker.receive()] == done.published
            delivered += 1
        else:
            one_clear_error(done, collecting)
            nothing_is_lost(done, broker, collecting)
            told += 1
    with capsys.disabled():
        print(f"\n{told + delivered} cuts ({how}, {way}): {told} errors told, {delivered} runs whole")
    assert told > 15


@pytest.mark.parametrize("way", [TO_BROKER, FROM_BROKER])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_stalled_at_any_byte(share: float, way: str, broker: Broker, tmp_path: Path) -> None:
    """Stalled at any byte, a run ends in time."""
    with Proxy(broker.url) as proxy:
        assert attempt(fresh(tmp_path / "whole"), proxy.url, broker.exchange).code == 0
    broker.receive()
    collecting = fresh(tmp_path / "stalled")
    with Proxy(broker.url, "stall", (way, int(share * proxy.forwarded[way]))) as stalling:
        done = attempt(collecting, stalling.url, broker.exchange)
    assert done.seconds < TIMEOUT + SLACK
    one_clear_error(done, collecting, "_timeout")
    nothing_is_lost(done, broker, collecting)


def test_latency(broker: Broker, collecting: Collecting) -> None:
    """Latency delays all messages together, not each."""
    collecting.feed.write_text("".join(f"line {number}\n" for number in range(500)))
    with Proxy(broker.url, delay=0.02) as proxy:
        done = attempt(collecting, proxy.url, broker.exchange)
    assert done.code == 0, done.told
    assert done.seconds < 500 * 0.02 / 2
    assert [message.properties["message_id"] for message in broker.receive()] == done.published


@pytest.mark.slow
def test_large_message_on_a_slow_line(broker: Broker, collecting: Collecting) -> None:
    """With the default options a message of 50 MiB gets through a line of 1 MiB/s."""
    text = collecting.config.read_text()
    collecting.config.write_text(text.partition("[output]")[0])
    body = b"x" * (50 << 20)
    collecting.feed.write_bytes(body)
    with Proxy(broker.url, rate=1 << 20) as proxy:
        done = attempt(collecting, proxy.url, broker.exchange)
    assert done.code == 0, done.told
    assert done.seconds > 40
    assert [message.body for message in broker.receive()] == [body]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_amid_a_message(
    number: signal.Signals, code: int, broker: Broker, collecting: Collecting
) -> None:
    """Interrupted amid a large message, a run ends at once and the broker has none of it."""
    body = b"x" * (16 << 20)
    collecting.feed.write_bytes(body)
    # What the collector publishes to by itself; the queue is the test's own.
    broker.channel.exchange_declare("raw", "topic", durable=True, auto_delete=False)
    broker.channel.queue_bind(broker.queue, "raw", "my-provider.lines")
    with Proxy(broker.url, delay=0.02) as proxy:
        program = [sys.executable, sample_collector.__file__, "--config", str(collecting.config)]
        process = subprocess.Popen([*program, "--output", proxy.url], stderr=subprocess.PIPE, text=True)
        until(lambda: proxy.forwarded[TO_BROKER] > 1 << 20, "the message to be on its way")
        process.send_signal(number)
        started = time.monotonic()
        _, told = process.communicate(timeout=60)
        assert time.monotonic() - started < SLACK
    assert process.returncode == code, told
    assert "the next run goes on from the state that was saved last" in told
    assert not collecting.state_is_saved()
    assert broker.receive() == []
    again = attempt(collecting, broker.url, broker.exchange)
    assert again.code == 0, again.told
    assert [message.body for message in broker.receive()] == [body]
