"""What the collector publishes and remembers, given these downloads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from n6_stateful import Download
from n6_stateful.testing import CollectorHarness, MakeCollectorHarness, RunResult

from <<cookiecutter.collector_name>>.collector import <<cookiecutter.collector_name|class_name>>

# The configuration as it is deployed. What is not in it, like a key, is added here: + "api_key = of-tests\n"
CONFIG = Path(__file__).parents[1].joinpath("etc/60_<<cookiecutter.collector_name>>.conf").read_text()

OLD = Download(b"one record\n", time_utc="2026-01-01T00:00:00")
NEW = Download(b"a newer record\n", time_utc="2026-01-02T00:00:00")


def check_messages(result: RunResult) -> None:
    """These are the messages that `OLD` makes."""
    assert result.exit_code == 0, result.text
    (message,) = result.messages
    assert message.body == b"one record\n"
    assert message.routing_key == "<<cookiecutter.source_provider>>.<<cookiecutter.source_channel>>"
    assert message.properties["type"] == "<<cookiecutter.raw_type>>"
<% if cookiecutter.raw_type != "stream" %>
    assert message.properties["content_type"] == "<<cookiecutter.content_type>>"
<% endif %>


@pytest.fixture
def harness(make_collector_harness: MakeCollectorHarness) -> CollectorHarness:
    return make_collector_harness(<<cookiecutter.collector_name|class_name>>, CONFIG)


def test_contract(harness: CollectorHarness) -> None:
    """It keeps the contract of a stateful collector."""
    harness.assert_stateful_contract(OLD, NEW)


def test_messages(harness: CollectorHarness) -> None:
    """It publishes what it downloads."""
    check_messages(harness.run(OLD))


def test_nothing_new(harness: CollectorHarness) -> None:
    """A source that has nothing new is no error, publishes nothing, and leaves the state as it was."""
    harness.run(OLD)
    before = harness.state
    result = harness.run(None)
    assert (result.exit_code, result.messages, harness.state) == (0, [], before)


def test_configuration(harness: CollectorHarness) -> None:
    """The configuration fits the collector's `config_spec`."""
    result = harness.run(argv=["check"])
    assert result.exit_code == 0, result.text


@pytest.mark.skipif("RABBITMQ_URL" not in os.environ, reason="run: tox -e rabbitmq")
def test_rabbitmq(harness: CollectorHarness) -> None:
    """The same messages arrive through RabbitMQ."""
    check_messages(harness.run_against_rabbitmq(os.environ["RABBITMQ_URL"], OLD))
