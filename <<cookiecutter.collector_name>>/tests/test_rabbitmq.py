"""One run against a real RabbitMQ, in an exchange of its own."""

from __future__ import annotations

import os

import pytest
from n6_stateful import Download
from n6_stateful.testing import MakeCollectorHarness

from <<cookiecutter.collector_name>>.collector import <<cookiecutter.collector_name|class_name>>

URL = os.environ.get("RABBITMQ_URL")


@pytest.mark.skipif(URL is None, reason="run: tox -e rabbitmq")
def test_what_is_downloaded_arrives_as_n6_expects_it(make_collector_harness: MakeCollectorHarness) -> None:
    harness = make_collector_harness(<<cookiecutter.collector_name|class_name>>)
    result = harness.run_against_rabbitmq(str(URL), Download(b"one record\n", time_utc="2026-01-01T00:00:00"))
    assert result.exit_code == 0, result.text
    (message,) = result.messages
    assert message.routing_key == "<<cookiecutter.source_provider>>.<<cookiecutter.source_channel>>"
    assert (message.body, message.properties["type"]) == (b"one record\n", "<<cookiecutter.raw_type>>")
