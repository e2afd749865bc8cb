"""What the collector publishes and remembers, given data of the source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
<% if cookiecutter.shape == "download" %>
from n6_stateful import Download
<% endif %>
from n6_stateful.testing import CollectorHarness, MakeCollectorHarness, RunResult

from <<cookiecutter.collector_name>>.collector import <<cookiecutter.collector_name|class_name>>

# The configuration as it is deployed. Add what is not in it, such as a key: + "api_key = test\n"
CONFIG = Path(__file__).parents[1].joinpath("etc/60_<<cookiecutter.collector_name>>.conf").read_text()

<% if cookiecutter.shape == "download" %>
# What `_download` returns at first and later; the messages of the first. test_download.py tests `_download`.
OLD = Download(b"one record\n", time_utc="2026-01-01T00:00:00")
NEW = Download(b"a newer record\n", time_utc="2026-01-02T00:00:00")
BODIES = [b"one record\n"]
<% elif cookiecutter.shape == "rows" %>
# The source's file at first and later; the messages of each: its new rows, oldest first, no comments.
OLD = b"2026-01-01 00:00:00,one row\n"
NEW = OLD + b"2026-01-02 00:00:00,a newer row\n"
BODIES = [b"2026-01-01 00:00:00,one row"]
NEWER = [b"2026-01-02 00:00:00,a newer row"]
<% elif cookiecutter.shape == "items" %>
# What the source shows at first and later; the messages of the first.
OLD = ["an item", "another item"]
NEW = ["another item", "a new item"]
BODIES = [b"an item", b"another item"]
<% elif cookiecutter.shape == "feed" %>
# The feed's entries at first and later; the messages of the first. (A whole feed: test_download.py.)
OLD = [{"id": "1", "title": "One"}, {"id": "2", "title": "Two"}]
NEW = [*OLD, {"id": "3", "title": "Three"}]
BODIES = [b'{"id":"1","title":"One"}', b'{"id":"2","title":"Two"}']
<% elif cookiecutter.shape == "pages" %>
# The records of the source's pages at first and later; the messages of the first. (test_download.py tests
# `download_page`.)
OLD = [["a record", "another record"], ["a third one"]]
NEW = [*OLD, ["a new record"]]
BODIES = [b"a record", b"another record", b"a third one"]
<% elif cookiecutter.shape == "list" %>
# The complete list at first and later; the messages of the first.
OLD = b"192.0.2.1\n"
NEW = b"192.0.2.1\n192.0.2.2\n"
BODIES = [OLD]
<% elif cookiecutter.shape == "email" %>
# A mail of the source, and another one; the messages of the first.
OLD = b"From: reports@feed.example\nSubject: A report\n\none record\n"
NEW = b"From: reports@feed.example\nSubject: Another report\n\na newer record\n"
BODIES = [b"one record\n"]
<% endif %>
WRONG_SAMPLES = "your code makes {} from the sample OLD: replace OLD, NEW and BODIES at the top of this file"


def check_messages(result: RunResult) -> None:
    """Check that these are the messages made from `OLD`."""
    what = "other messages than BODIES" if result.messages else "nothing"
    assert result.bodies == BODIES, f"{WRONG_SAMPLES.format(what)}\n{result.text}"
    assert result.exit_code == 0, result.text
    for message in result.messages:
        assert message.routing_key == "<<cookiecutter.source_provider>>.<<cookiecutter.source_channel>>"
        assert message.properties["type"] == "<<cookiecutter|raw_type>>"
<% if cookiecutter|content_type %>
        assert message.properties["content_type"] == "<<cookiecutter|content_type>>"
<% endif %>


@pytest.fixture
def harness(make_collector_harness: MakeCollectorHarness) -> CollectorHarness:
    harness = make_collector_harness(<<cookiecutter.collector_name|class_name>>, CONFIG)
    trial = harness.run(OLD, argv=["--dry-run"])
    if "fill in" in trial.text:
        pytest.skip(trial.text)
    return harness


def test_messages(harness: CollectorHarness) -> None:
    """It publishes what the source has<% if cookiecutter.shape == 'rows' %>, and then what is new there<% endif %>."""
    check_messages(harness.run(OLD))
<% if cookiecutter.shape == "rows" %>
    assert harness.run(NEW).bodies == NEWER
<% endif %>


def test_contract(harness: CollectorHarness) -> None:
<% if cookiecutter.shape == "email" %>
    """Wherever a run crashes, nothing is lost; the same mail always makes the same messages."""
<% else %>
    """Wherever a run crashes, nothing is lost, and nothing is published twice."""
<% endif %>
    check_messages(harness.run(OLD))
    harness.assert_stateful_contract(OLD, NEW)


def test_configuration(make_collector_harness: MakeCollectorHarness) -> None:
    """The configuration fits the collector's `config_spec`."""
    result = make_collector_harness(<<cookiecutter.collector_name|class_name>>, CONFIG).run(argv=["check"])
    assert result.exit_code == 0, result.text


@pytest.mark.skipif("RABBITMQ_URL" not in os.environ, reason="run: tox -e rabbitmq")
def test_rabbitmq(harness: CollectorHarness) -> None:
    """The same messages arrive through RabbitMQ."""
    check_messages(harness.run_against_rabbitmq(os.environ["RABBITMQ_URL"], OLD))
