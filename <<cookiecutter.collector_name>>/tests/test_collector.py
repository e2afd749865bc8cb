"""What the collector publishes and remembers, given what the source has."""

from __future__ import annotations

<% if cookiecutter.shape == "pages" and cookiecutter.download == "http" %>
import json
<% endif %>
import os
from pathlib import Path

import pytest
<% if cookiecutter.shape == "download" %>
from n6_stateful import Download
<% endif %>
<% if cookiecutter.shape == "pages" and cookiecutter.download == "http" %>
from n6_stateful.bases import Answer
<% endif %>
from n6_stateful.testing import CollectorHarness, MakeCollectorHarness, RunResult

from <<cookiecutter.collector_name>>.collector import <<cookiecutter.collector_name|class_name>>

# The configuration as it is deployed. What is not in it, like a key, is added here: + "api_key = of-tests\n"
CONFIG = Path(__file__).parents[1].joinpath("etc/60_<<cookiecutter.collector_name>>.conf").read_text()

<% if cookiecutter.shape == "download" %>
# What the source has at first, and later; the messages that the first one makes.
OLD = Download(b"one record\n", time_utc="2026-01-01T00:00:00")
NEW = Download(b"a newer record\n", time_utc="2026-01-02T00:00:00")
BODIES = [b"one record\n"]
<% elif cookiecutter.shape == "rows" %>
# The file of the source at first, and later; the messages that each makes: what is new there, oldest first,
# without comments.
OLD = b"2026-01-01 00:00:00,one row\n"
NEW = OLD + b"2026-01-02 00:00:00,a newer row\n"
BODIES = [b"2026-01-01 00:00:00,one row"]
NEWER = [b"2026-01-02 00:00:00,a newer row"]
<% elif cookiecutter.shape == "items" %>
# What the source shows at first, and later; the messages that the first makes.
OLD = ["an item", "another item"]
NEW = ["another item", "a new item"]
BODIES = [b"an item", b"another item"]
<% elif cookiecutter.shape == "pages" %>
# The pages of the source at first, and later; the messages that the first make.
OLD = [["a record", "another record"], ["a third one"]]
NEW = [*OLD, ["a new record"]]
BODIES = [b"a record", b"another record", b"a third one"]
<% if cookiecutter.download == "http" %>
# The same as `download_page` gets it: what the source answers to one request after the other; at last, when
# there is nothing new.
ANSWERS = [
    {"records": ["a record", "another record"], "next": 2, "more": True},
    {"records": ["a third one"], "next": 3, "more": False},
    {"records": [], "next": 3, "more": False},
]
<% endif %>
<% elif cookiecutter.shape == "list" %>
# The whole list at first, and later; the messages that the first one makes.
OLD = b"192.0.2.1\n"
NEW = b"192.0.2.1\n192.0.2.2\n"
BODIES = [OLD]
<% else %>
# A mail of the source, and another one; the messages that the first one makes.
OLD = b"From: reports@feed.example\nSubject: A report\n\none record\n"
NEW = b"From: reports@feed.example\nSubject: Another report\n\na newer record\n"
BODIES = [b"one record\n"]
<% endif %>


def check_messages(result: RunResult) -> None:
    """These are the messages that `OLD` makes."""
    assert result.exit_code == 0, result.text
    assert result.bodies == BODIES
    for message in result.messages:
        assert message.routing_key == "<<cookiecutter.source_provider>>.<<cookiecutter.source_channel>>"
        assert message.properties["type"] == "<<cookiecutter|raw_type>>"
<% if cookiecutter|content_type %>
        assert message.properties["content_type"] == "<<cookiecutter|content_type>>"
<% endif %>


@pytest.fixture
def harness(make_collector_harness: MakeCollectorHarness) -> CollectorHarness:
<% if cookiecutter.shape in ("rows", "items", "email") %>
    harness = make_collector_harness(<<cookiecutter.collector_name|class_name>>, CONFIG)
    result = harness.run(OLD, argv=["--dry-run"])
    if "fill in" in result.text:
        pytest.skip(result.text)
    return harness
<% else %>
    return make_collector_harness(<<cookiecutter.collector_name|class_name>>, CONFIG)
<% endif %>


def test_contract(harness: CollectorHarness) -> None:
<% if cookiecutter.shape == "email" %>
    """It keeps the contract of a collector of mails: the same mail always makes the same messages."""
<% else %>
    """It keeps the contract of a stateful collector: each thing once, the state never ahead of the data."""
<% endif %>
    harness.assert_stateful_contract(OLD, NEW)


def test_messages(harness: CollectorHarness) -> None:
    """It publishes what the source has<% if cookiecutter.shape == 'rows' %>, and then what is new there<% endif %>."""
    check_messages(harness.run(OLD))
<% if cookiecutter.shape == "rows" %>
    assert harness.run(NEW).bodies == NEWER
<% endif %>
<% if cookiecutter.shape == "pages" and cookiecutter.download == "http" %>


def test_download_page(harness: CollectorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """`download_page` makes the same of the answers; the tests above put `OLD` and `NEW` in its place."""
    answers = iter(ANSWERS)

    def request(self: object, url: str, **kwargs: object) -> Answer:
        return Answer(json.dumps(next(answers)).encode(), {}, {}, is_known_whole=True, where=url)

    monkeypatch.setattr(<<cookiecutter.collector_name|class_name>>, "request", request)
    result = harness.run(...)
    if "fill in" in result.text:
        pytest.skip(result.text)
    check_messages(result)
    nothing_new = harness.run(...)
    assert (nothing_new.exit_code, nothing_new.bodies) == (0, []), nothing_new.text
<% endif %>


def test_configuration(make_collector_harness: MakeCollectorHarness) -> None:
    """The configuration fits the collector's `config_spec`."""
    result = make_collector_harness(<<cookiecutter.collector_name|class_name>>, CONFIG).run(argv=["check"])
    assert result.exit_code == 0, result.text


@pytest.mark.skipif("RABBITMQ_URL" not in os.environ, reason="run: tox -e rabbitmq")
def test_rabbitmq(harness: CollectorHarness) -> None:
    """The same messages arrive through RabbitMQ."""
    check_messages(harness.run_against_rabbitmq(os.environ["RABBITMQ_URL"], OLD))
