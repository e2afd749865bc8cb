"""A source that is asked page by page: every record once, wherever a run is killed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import CollectorError, SourceError, StateError
from n6_stateful.bases.pages import BasePagedCollector, CursorForgottenError, Page
from tests.bases.running import Running


class PagesCollector(BasePagedCollector):
    source_channel = "pages"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"
    records: list[str] = []

    def first_cursor(self) -> int:
        return 0

    def download_page(self, cursor: int) -> Page:
        end = cursor + 3
        return Page(self.records[cursor:end], min(end, len(self.records)), end < len(self.records))


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(PagesCollector, tmp_path)


def records(count: int) -> list[str]:
    return [f"record {number}" for number in range(count)]


class TestPages:
    """Going on from where one was."""

    @pytest.mark.parametrize("count", [0, 1, 3, 7])
    def test_all(self, count: int, running: Running) -> None:
        """Every record of every page arrives once, in order, and nothing again."""
        for _ in range(2):
            running.run(records=records(count))
        assert running.records() == [each.encode() for each in records(count)]
        assert len(running.arrived) == count

    def test_growing(self, running: Running) -> None:
        """A later run goes on from the cursor."""
        running.run(records=records(4))
        assert [message.body for message in running.run(records=records(6))] == [b"record 4", b"record 5"]

    @pytest.mark.parametrize("save", [1, 2, 3, 4])
    def test_killed(self, save: int, running: Running) -> None:
        """A run that is killed at any page is gone on with at that page; twins have one id."""
        running.run(records=records(10), kill_at_save=save)
        running.run(records=records(12))
        assert running.records() == [each.encode() for each in records(12)]
        assert len(running.arrived) <= 12 + 3


class TestState:
    """A state of another form, as an edit may leave it."""

    @pytest.mark.parametrize("state", [{"curser": 1}, "cursor", None])
    def test_other(self, state: Any, running: Running, tmp_path: Path) -> None:
        """It is refused when it is loaded, with what to do."""
        running.run(records=records(1))
        (path,) = tmp_path.glob("cache/*.pickle")
        path.write_bytes(pickle.dumps(state))
        with pytest.raises(StateError, match="the state has no cursor, so it is not one of a PagesCollector"):
            running.run(records=records(1))

    def test_saved(self, running: Running) -> None:
        """It is not saved either."""
        with pytest.raises(StateError, match="the state has no cursor"):
            running.run(start_publishing=lambda self: self.save_as_new({}, 2))

    def test_read(self, running: Running, tmp_path: Path) -> None:
        """It can be read all the same, for whoever edits or exports it."""
        running.run(records=records(1))
        (path,) = tmp_path.glob("cache/*.pickle")
        path.write_bytes(pickle.dumps({"curser": 1}))
        read = []

        def load_state(collector: Any) -> Any:
            read.append(collector.read_state()[0])
            raise StateError("read")

        with pytest.raises(StateError, match="read"):
            running.run(load_state=load_state)
        assert read == [{"curser": 1}]


class TestCursor:
    """A cursor that does not do what cursors do."""

    @pytest.mark.parametrize("cursors", [[0], [1, 1], [1, 2, 1], [None]])
    def test_does_not_advance(self, cursors: list[Any], running: Running) -> None:
        """A cursor that stays, goes in a circle, or is missing is an error, and what was taken stays so."""
        left = iter(cursors)

        def download_page(collector: Any, cursor: Any) -> Page:
            return Page([f"after {cursor}"], next(left), True)

        with pytest.raises(SourceError, match="cursor"):
            running.run(download_page=download_page)
        assert len(running.arrived) == len(cursors) - 1

    def test_forgotten(self, running: Running) -> None:
        """A cursor that the server has forgotten ends the run, unless the hook names another."""
        running.run(records=records(4))

        def download_page(collector: PagesCollector, cursor: int) -> Page:
            if cursor == 4:
                raise CursorForgottenError("410 Gone")
            return PagesCollector.download_page(collector, cursor)

        with pytest.raises(CursorForgottenError, match="410 Gone"):
            running.run(records=records(5), download_page=download_page)
        arrived = running.run(
            records=records(5), download_page=download_page, replace_cursor=lambda self, cursor, error: 3
        )
        assert [message.body for message in arrived] == [b"record 3", b"record 4"]

    def test_begun_again(self, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """To begin again may come past the forgotten cursor; it is told; a second time is an error."""
        running.run(records=records(4))
        forgotten = 1

        def download_page(collector: PagesCollector, cursor: int) -> Page:
            nonlocal forgotten
            if forgotten and cursor in (0, 4):
                forgotten -= 1
                raise CursorForgottenError("410 Gone")
            return PagesCollector.download_page(collector, cursor)

        members: Any = {
            "records": records(5),
            "download_page": download_page,
            "replace_cursor": lambda self, *_: 0,
        }
        assert len(running.run(**members)) == 5
        assert "410 Gone; going on from the cursor 0 instead of 4" in caplog.text

        def forget(collector: Any, cursor: int) -> Page:
            raise CursorForgottenError("410 Gone")

        with pytest.raises(CursorForgottenError):
            running.run(**members | {"download_page": forget})

    def test_forgotten_often(self, running: Running) -> None:
        """A server that forgets each cursor after a page is gone on with from another one each time, but not
        from the same for ever."""
        pages = {
            "a": Page(["1"], "gone", True),
            "b": Page(["2"], "gone", True),
            "c": Page(["3"], "end", False),
        }
        fresh = iter("abc")

        def download_page(collector: Any, cursor: Any) -> Page:
            if cursor not in pages:
                raise CursorForgottenError("410 Gone")
            return pages[cursor]

        running.run(download_page=download_page, replace_cursor=lambda self, *_: next(fresh))
        assert running.records() == [b"1", b"2", b"3"]
        running.run(download_page=lambda self, cursor: Page(["3"], "gone too", False))
        with pytest.raises(CursorForgottenError):
            running.run(download_page=download_page, replace_cursor=lambda self, *_: "a")

    @pytest.mark.parametrize("answer", ["records", b"records", {"id": "record"}])
    def test_no_list(self, answer: Any, running: Running) -> None:
        """One record in place of a list of records is not taken apart."""
        with pytest.raises(CollectorError, match="a list of records, not one"):
            running.run(download_page=lambda self, cursor: Page(answer, 1, False))
        assert running.arrived == []

    def test_last_page(self, running: Running) -> None:
        """What to do about a last page without a cursor is said."""
        with pytest.raises(SourceError, match="its last record's id or time"):
            running.run(download_page=lambda self, cursor: Page(["record"], None, False))

    def test_half_a_character(self, running: Running) -> None:
        """What JSON can hold and UTF-8 cannot is no obstacle."""
        page = Page(["a\ud800", {"b": "\udc00", "a": "ż"}], 1, False)
        running.run(download_page=lambda self, cursor: page)
        assert running.records() == [b"a\\ud800", b'{"a":"\\u017c","b":"\\udc00"}']

    def test_empty_page(self, running: Running) -> None:
        """An empty page in the middle is gone past."""
        pages = {0: Page([], 1, True), 1: Page(["one"], 2, False), 2: Page([], None, False)}
        for _ in range(2):
            running.run(download_page=lambda self, cursor: pages[cursor])
        assert running.records() == [b"one"]
        assert len(running.arrived) == 1
