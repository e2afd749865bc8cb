"""What the collector publishes and remembers, given these downloads."""

from __future__ import annotations

import pytest
from n6_stateful import Download
from n6_stateful.testing import CollectorHarness, MakeCollectorHarness

from <<cookiecutter.collector_name>>.collector import <<cookiecutter.collector_name|class_name>>

OLD = Download(b"one record\n", time_utc="2026-01-01T00:00:00")
NEW = Download(b"a newer record\n", time_utc="2026-01-02T00:00:00")


@pytest.fixture
def harness(make_collector_harness: MakeCollectorHarness) -> CollectorHarness:
    return make_collector_harness(<<cookiecutter.collector_name|class_name>>)


def test_it_keeps_the_contract_of_a_stateful_collector(harness: CollectorHarness) -> None:
    harness.assert_stateful_contract(OLD, NEW)


def test_it_publishes_what_it_downloads(harness: CollectorHarness) -> None:
    (message,) = harness.run(OLD).messages
    assert message.body == b"one record\n"
    assert message.routing_key == "<<cookiecutter.source_provider>>.<<cookiecutter.source_channel>>"
    assert message.properties["type"] == "<<cookiecutter.raw_type>>"
<% if cookiecutter.raw_type != "stream" %>
    assert message.properties["content_type"] == "<<cookiecutter.content_type>>"
<% endif %>


def test_it_remembers_how_new_the_download_was(harness: CollectorHarness) -> None:
    harness.run(OLD)
    assert harness.state == {"last_utc": "2026-01-01T00:00:00"}


def test_nothing_new_is_no_error_and_changes_nothing(harness: CollectorHarness) -> None:
    harness.run(OLD)
    result = harness.run(None)
    assert (result.exit_code, result.messages) == (0, [])
    assert harness.state == {"last_utc": "2026-01-01T00:00:00"}
