"""The harness that generated projects test with: it passes what is right, and fails what is wrong."""

from __future__ import annotations

import os
from typing import Any

import pytest

from n6_stateful import BaseCollector, CollectorWithStateMixin, Download, NothingNew, SourceError
from n6_stateful.bases import (
    BaseDownloadingListCollector,
    BasePagedCollector,
    BaseSeenItemsCollector,
    BaseSimpleEmailCollector,
    BaseTimeOrderedRowsCollector,
    Page,
)
from n6_stateful.testing import CollectorHarness, MakeCollectorHarness
from tests.delivery.conftest import RabbitMQ
from tests.delivery.conftest import broker as broker  # the fixture

CONFIG = """
[feed]
source = my-provider
cache_dir = /nowhere
[journal]
url = postgresql://production.invalid/n6
[monitoring]
textfile_dir = /nowhere
"""
OLD = Download(b"old", time_utc=1)
NEW = Download(b"new", time_utc=2)


class FeedCollector(CollectorWithStateMixin, BaseCollector):
    type = "stream"
    config_spec = """
        [feed]
        source :: str
        cache_dir :: path
    """

    def make_default_state(self) -> dict[str, Any]:
        return {}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)

    def start_publishing(self) -> None:
        self.publish_output(*self.get_output_components())
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "my-channel"

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        download = self._download(self.state.get("last_utc"))
        if download is None:
            raise NothingNew
        self.state["last_utc"] = download.time_utc
        return download

    def _download(self, only_newer_than: Any) -> Download | None:
        return Download(b"the real thing", time_utc=3)


class SavesTooEarly(FeedCollector):
    def run(self) -> None:
        self.state = self.load_state()
        self.save_state({"last_utc": 1})
        super().run()


class ForgetsEverything(FeedCollector):
    def run(self) -> None:
        self.state = {}
        BaseCollector.run(self)


class MakesRandomIds(FeedCollector):
    def get_output_message_id(self, **kwargs: Any) -> str:
        return os.urandom(16).hex()


@pytest.fixture
def harness(make_collector_harness: MakeCollectorHarness) -> CollectorHarness:
    return make_collector_harness(FeedCollector, CONFIG)


class TestRun:
    """`run`: the command, with a source and a broker in the test's hands."""

    def test_result(self, harness: CollectorHarness) -> None:
        """The result has the messages, the exit code and the text; the state is the one that was saved."""
        before = harness.state
        result = harness.run(OLD)
        assert (result.bodies, result.exit_code) == ([b"old"], 0), result.text
        assert (before, harness.state) == (None, {"last_utc": 1})
        assert "collected 1 message" in result.text
        assert result.messages[0].routing_key == "my-provider.my-channel"
        assert result.messages[0].properties["message_id"] == result.message_ids[0]

    def test_sources(self, harness: CollectorHarness) -> None:
        """A source is data that is handed over if it is newer, an error, a function, or the real one."""
        assert [harness.run(source).bodies for source in (OLD, OLD, NEW)] == [[b"old"], [], [b"new"]]
        assert harness.run(TimeoutError("the source is slow")).exit_code == 66
        asked: list[int] = []
        assert (harness.run(asked.append).exit_code, asked) == (0, [2])
        assert harness.run(...).bodies == [b"the real thing"]

    def test_failed_delivery(self, harness: CollectorHarness) -> None:
        """A failed delivery is exit code 69; the messages wait, and the next run delivers them."""
        result = harness.run(NEW, fail_delivery=True)
        assert (result.exit_code, result.messages, harness.state) == (69, [], {"last_utc": 2})
        assert harness.run().bodies == [b"new"]

    def test_crash(self, make_collector_harness: MakeCollectorHarness) -> None:
        """A crash before the second commit leaves the first page in the outbox; the next run goes on."""
        harness = make_collector_harness(Pages, CONFIG)
        crashed = harness.run([["a"], ["b"]], crash_before_save=2)
        assert (crashed.messages, crashed.crashed) == ([], True)
        assert harness.run([["a"], ["b"]]).bodies == [b"a", b"b"]

    def test_wrong_configuration(self, make_collector_harness: MakeCollectorHarness) -> None:
        """A required option that is missing is reported as the command reports it."""
        result = make_collector_harness(FeedCollector, "[feed]\ncache_dir = /x\n").run(OLD)
        assert (result.exit_code, result.messages) == (78, [])
        assert "[feed] source: is missing" in result.text


@pytest.mark.parametrize("collector_class", [SavesTooEarly, ForgetsEverything, MakesRandomIds])
def test_contract_broken(
    collector_class: type[BaseCollector], make_collector_harness: MakeCollectorHarness
) -> None:
    """The contract fails a collector that breaks it."""
    harness = make_collector_harness(collector_class, CONFIG)
    with pytest.raises(AssertionError):
        harness.assert_stateful_contract(OLD, NEW)


def test_contract_kept(harness: CollectorHarness) -> None:
    """The contract passes a collector that keeps it."""
    harness.assert_stateful_contract(OLD, NEW)


class Rows(BaseTimeOrderedRowsCollector):
    source_channel = "rows"
    config_spec = FeedCollector.config_spec

    def pick_raw_row_time(self, row: str) -> str:
        return row[:10]

    def clean_row_time(self, raw_row_time: str) -> str:
        return raw_row_time


class LosesLateRows(Rows):
    def get_window_begin(self, newest_row_time: Any, late_by: int) -> Any:
        return newest_row_time


class Items(BaseSeenItemsCollector):
    source_channel = "items"
    config_spec = FeedCollector.config_spec

    def item_key(self, item: str) -> str:
        return item


class Pages(BasePagedCollector):
    source_channel = "pages"
    config_spec = FeedCollector.config_spec


class List(BaseDownloadingListCollector):
    source_channel = "list"
    config_spec = FeedCollector.config_spec


class Mail(BaseSimpleEmailCollector):
    type = "stream"
    source_channel = "mail"
    config_spec = FeedCollector.config_spec

    def obtain_data_body(self) -> bytes:
        return self.get_email_msg_text("text/plain").encode()


MAIL = b"From: a@b.example\nSubject: %s\n\ntext\n"
SHAPES: list[tuple[type[BaseCollector], Any, Any, list[bytes]]] = [
    (Rows, b"2026-01-01", b"2026-01-01\n2026-01-02", [b"2026-01-01"]),
    (Items, ["a", "b"], ["b", "c"], [b"a", b"b"]),
    (Pages, [["a", "b"], ["c"]], [["a", "b"], ["c", "d"]], [b"a", b"b", b"c"]),
    (List, b"one", b"two", [b"one"]),
    (Mail, MAIL % b"one", MAIL % b"two", [b"text\n"]),
]


@pytest.mark.parametrize(
    ("cls", "source", "later", "bodies"), SHAPES, ids=[shape[0].__name__ for shape in SHAPES]
)
class TestShapes:
    """The harness over each shape."""

    @pytest.fixture
    def shaped(
        self, cls: type[BaseCollector], make_collector_harness: MakeCollectorHarness
    ) -> CollectorHarness:
        url = "url = http://feed.invalid/\n" if cls is List else ""
        return make_collector_harness(cls, CONFIG.replace("[feed]\n", f"[feed]\n{url}"))

    def test_contract(self, shaped: CollectorHarness, source: Any, later: Any, bodies: list[bytes]) -> None:
        """The contract holds, and stays one line."""
        shaped.assert_stateful_contract(source, later)

    def test_run(self, shaped: CollectorHarness, source: Any, later: Any, bodies: list[bytes]) -> None:
        """`check` needs no source; None is nothing new, or no mail; an error is raised; data is collected."""
        assert (checked := shaped.run(..., argv=["check"])).exit_code == 0, checked.text
        nothing = shaped.run()
        assert (nothing.exit_code, nothing.messages) in ((0, []), (66, []))
        assert shaped.run(SourceError("down")).exit_code == 66
        assert shaped.run(source).bodies == bodies

    def test_function(self, shaped: CollectorHarness, source: Any, later: Any, bodies: list[bytes]) -> None:
        """A function takes the method's place."""
        pages = Page(["a", "b", "c"], 3, False)
        assert shaped.run(lambda *args: pages if args else source).bodies == bodies


def test_late_rows(make_collector_harness: MakeCollectorHarness) -> None:
    """Rows that come late, or with the time of others, count; a collector that loses them fails."""
    old = b"2026-01-01 00:00:00,a\n"
    later = b"2026-01-02 00:00:00,b\n# a comment\n2026-01-02 00:00:00,c\n2026-01-01 00:00:00,a\n"
    make_collector_harness(Rows, CONFIG).assert_stateful_contract(old, later)
    with pytest.raises(AssertionError, match="not what came late"):
        make_collector_harness(LosesLateRows, CONFIG).assert_stateful_contract(old, later)


def test_rabbitmq(broker: RabbitMQ, harness: CollectorHarness) -> None:
    """What a run publishes to RabbitMQ is read back."""
    result = harness.run_against_rabbitmq(broker.url, Download(b"one record", time_utc=1))
    assert result.exit_code == 0, result.text
    (message,) = result.messages
    assert (message.body, message.routing_key) == (b"one record", "my-provider.my-channel")
    assert (message.properties["type"], message.properties["delivery_mode"]) == ("stream", 2)
    assert result.message_ids == [message.properties["message_id"]]
    assert harness.run_against_rabbitmq(broker.url, RuntimeError("the source is gone")).exit_code == 1
