"""The harness that generated projects test with: it passes what is right, and fails what is wrong."""

from __future__ import annotations

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
from n6_stateful.testing import CollectorHarness, MakeCollectorHarness, MemoryOutput
from tests.runtime.output_contract import Arrived, MakeOutput, OutputContract

CONFIG = """
[feed]
source = my-provider
cache_dir = /nowhere
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
    made = 0

    def get_output_message_id(self, **kwargs: Any) -> str:
        MakesRandomIds.made += 1
        return f"{MakesRandomIds.made:032x}"


class TestMemoryOutput(OutputContract):
    """The output in memory owes what every output owes."""

    @pytest.fixture
    def output(self) -> MemoryOutput:
        return MemoryOutput()

    @pytest.fixture
    def make_output(self, output: MemoryOutput) -> MakeOutput:
        return lambda: output

    @pytest.fixture
    def arrived(self, output: MemoryOutput) -> Arrived:
        return lambda: [(each.properties["message_id"], each.body) for each in output.delivered]


@pytest.fixture
def harness(make_collector_harness: MakeCollectorHarness) -> CollectorHarness:
    return make_collector_harness(FeedCollector, CONFIG)


def test_result(harness: CollectorHarness) -> None:
    before = harness.state
    result = harness.run(OLD)
    assert (result.bodies, result.exit_code) == ([b"old"], 0)
    assert (before, harness.state) == (None, {"last_utc": 1})
    assert "published 1 message" in result.text


def test_newer_download(harness: CollectorHarness) -> None:
    """A download is handed over only if it is newer."""
    assert [harness.run(each).bodies for each in (OLD, OLD, NEW)] == [[b"old"], [], [b"new"]]


def test_a_download_may_be_an_error(harness: CollectorHarness) -> None:
    result = harness.run(TimeoutError("the source is slow"))
    assert (result.exit_code, harness.state) == (66, None)


def test_a_download_may_be_a_function(harness: CollectorHarness) -> None:
    harness.run(OLD)
    asked: list[int] = []
    harness.run(asked.append)
    assert asked == [1]


def test_real_download(harness: CollectorHarness) -> None:
    """The real download can stay in place."""
    assert harness.run(...).bodies == [b"the real thing"]


def test_failed_delivery(harness: CollectorHarness) -> None:
    """A failed delivery is exit code 69 and leaves the state."""
    harness.run(OLD)
    result = harness.run(NEW, fail_delivery=True)
    assert (result.exit_code, result.messages, harness.state) == (69, [], {"last_utc": 1})


def test_contract_kept(harness: CollectorHarness) -> None:
    """The contract passes a collector that keeps it."""
    harness.assert_stateful_contract(OLD, NEW)


@pytest.mark.parametrize("collector_class", [SavesTooEarly, ForgetsEverything, MakesRandomIds])
def test_contract_broken(
    collector_class: type[BaseCollector], make_collector_harness: MakeCollectorHarness
) -> None:
    """The contract fails a collector that breaks it."""
    harness = make_collector_harness(collector_class, CONFIG)
    with pytest.raises(AssertionError):
        harness.assert_stateful_contract(OLD, NEW)


class Rows(BaseTimeOrderedRowsCollector):
    source_channel = "rows"
    config_spec = FeedCollector.config_spec

    def pick_raw_row_time(self, row: str) -> str:
        return row[:10]

    def clean_row_time(self, raw_row_time: str) -> str:
        return raw_row_time


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
LIST_URL = "url = http://feed.invalid/\n"


@pytest.mark.parametrize(
    ("cls", "source", "later", "bodies"), SHAPES, ids=[each[0].__name__ for each in SHAPES]
)
class TestShapes:
    """The harness over each shape."""

    @pytest.fixture
    def shaped(
        self, cls: type[BaseCollector], make_collector_harness: MakeCollectorHarness
    ) -> CollectorHarness:
        return make_collector_harness(cls, CONFIG + (LIST_URL if cls is List else ""))

    def test_contract(self, shaped: CollectorHarness, source: Any, later: Any, bodies: list[bytes]) -> None:
        """The contract holds, and stays one line."""
        shaped.assert_stateful_contract(source, later)

    def test_run(self, shaped: CollectorHarness, source: Any, later: Any, bodies: list[bytes]) -> None:
        """What the source has goes where the collector gets it."""
        assert shaped.run(source).bodies == bodies

    def test_function(self, shaped: CollectorHarness, source: Any, later: Any, bodies: list[bytes]) -> None:
        """A function takes the method's place."""
        pages = Page(["a", "b", "c"], 3, False)
        assert shaped.run(lambda *args: pages if args else source).bodies == bodies

    def test_error(self, shaped: CollectorHarness, source: Any, later: Any, bodies: list[bytes]) -> None:
        """An error is raised by it."""
        assert shaped.run(SourceError("down")).exit_code == SourceError.exit_code

    def test_nothing(self, shaped: CollectorHarness, source: Any, later: Any, bodies: list[bytes]) -> None:
        """None is nothing new, or no mail."""
        result = shaped.run()
        assert (result.exit_code, result.messages) in ((0, []), (66, []))

    def test_check(self, shaped: CollectorHarness, source: Any, later: Any, bodies: list[bytes]) -> None:
        """`check` needs nothing of the source, not even a mail."""
        result = shaped.run(..., argv=["check"])
        assert result.exit_code == 0, result.text


class TestContract:
    """What the contract passes and fails beside."""

    def test_crash_later(self, make_collector_harness: MakeCollectorHarness) -> None:
        """A crash at the second save goes on with the second page, under the same ids."""
        harness = make_collector_harness(Pages, CONFIG)
        crashed = harness.run([["a"], ["b"]], crash_before_save=2)
        assert (crashed.bodies, crashed.crashed) == ([b"a", b"b"], True)
        repeated = harness.run([["a"], ["b"]])
        assert repeated.message_ids == crashed.message_ids[1:]

    def test_late_rows(self, make_collector_harness: MakeCollectorHarness) -> None:
        """Rows that come late, or with the time of others, count; a collector that loses them fails."""

        class Losing(Rows):
            def get_window_begin(self, newest_row_time: Any, late_by: int) -> Any:
                return newest_row_time

        later = b"2026-01-02 00:00:00,b\n# a comment\n2026-01-02 00:00:00,c\n2026-01-01 00:00:00,a\n"
        make_collector_harness(Rows, CONFIG).assert_stateful_contract(b"2026-01-01 00:00:00,a\n", later)
        with pytest.raises(AssertionError, match="not what came late"):
            make_collector_harness(Losing, CONFIG).assert_stateful_contract(b"2026-01-01 00:00:00,a\n", later)

    def test_wrong_configuration(self, make_collector_harness: MakeCollectorHarness) -> None:
        """A required option that is missing is told as the command tells it."""
        result = make_collector_harness(FeedCollector, "[feed]\ncache_dir = /x\n").run(OLD)
        assert (result.exit_code, result.messages) == (78, [])
        assert "source" in result.text
