"""The harness of generated projects, against the broker."""

from __future__ import annotations

import os

import amqp
import pytest

from n6_stateful import Download
from n6_stateful.testing import CollectorHarness, MakeCollectorHarness
from tests.broker.conftest import Broker
from tests.runtime.test_testing import CONFIG, FeedCollector


@pytest.fixture
def harness(make_collector_harness: MakeCollectorHarness) -> CollectorHarness:
    return make_collector_harness(FeedCollector, CONFIG)


def test_reads_back(broker: Broker, harness: CollectorHarness) -> None:
    """What a run publishes is read back."""
    result = harness.run_against_rabbitmq(broker.url, Download(b"one record", time_utc=1))
    assert result.exit_code == 0, result.text
    (message,) = result.messages
    assert (message.body, message.routing_key) == (b"one record", "my-provider.my-channel")
    assert message.properties["type"] == "stream"
    assert message.properties["delivery_mode"] == 2
    assert result.message_ids == [message.properties["message_id"]]


def test_leaves_nothing(broker: Broker, harness: CollectorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left at the broker, also if the run fails."""
    random = b"\1" * 8
    with monkeypatch.context() as patched:
        patched.setattr(os, "urandom", lambda size: random[:1] * size)
        harness.run_against_rabbitmq(broker.url, RuntimeError("the source is gone"))
    name = f"n6-stateful-test-{random.hex()}"
    with pytest.raises(amqp.NotFound):
        broker.channel.exchange_declare(name, "topic", passive=True)
    broker.reconnect()
    with pytest.raises(amqp.NotFound):
        broker.channel.queue_declare(name, passive=True)
    broker.reconnect()
