"""A source that is read page by page: every record once, wherever a run is killed."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import CollectorError, SourceError, StateError
from n6_stateful.bases.pages import BasePagedCollector, CursorForgottenError, Page
from n6_stateful.bases.shape import default_body
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
    """Going on from the last cursor."""

    @pytest.mark.parametrize("count", [0, 1, 3, 10])
    def test_all(self, count: int, running: Running) -> None:
        """Every record of every page arrives once, in order, and nothing again, wherever a run is killed."""
        for save in (*range(count // 3 + 2), 0):
            running.run(records=records(count), kill_at_save=save)
        assert [message.body for message in running.arrived] == [record.encode() for record in records(count)]


class TestState:
    """A state of a different form, such as after an edit."""

    @pytest.mark.parametrize("state", [{"curser": 1}, "cursor", None])
    def test_other(self, state: Any, running: Running, tmp_path: Path) -> None:
        """It is refused when it is loaded, with what to do."""
        running.run(records=records(1))
        (path,) = tmp_path.glob("cache/*.pickle")
        path.write_bytes(pickle.dumps(state))
        with pytest.raises(StateError, match="the state has no cursor, so it is not one of a PagesCollector"):
            running.run(records=records(1))

    @pytest.mark.parametrize(
        ("cursor", "to", "expected"),
        [(7, "3", 3), ("2026", "2025", "2025"), (None, "a", "a"), ({"page": 7}, '{"page": 3}', {"page": 3})],
    )
    def test_rewound(self, cursor: Any, to: str, expected: Any, running: Running) -> None:
        """`state rewind` reads a cursor in the form of the present one; anything else is an error."""
        rewound = running.make().rewound({"cursor": cursor, "seen": {b"digest"}}, to)
        assert rewound == {"cursor": expected, "seen": set()}
        for senseless in ("[1", '["a"]') if cursor not in (None, "2026") else ():
            with pytest.raises(StateError, match="is not a cursor like the present one"):
                running.make().rewound({"cursor": cursor}, senseless)


class TestInclusive:
    """A source that gives the records from the cursor on, those at the cursor again."""

    RECORDS = [{"id": number, "time": f"2026-01-01T00:0{number // 2}:00"} for number in range(9)]

    @staticmethod
    def source(size: int, cursor_of: Any = lambda record: record["time"]) -> dict[str, Any]:
        def download_page(collector: Any, cursor: Any) -> Page:
            rest = [record for record in collector.records if cursor is None or cursor_of(record) >= cursor]
            page = rest[:size]
            return Page(page, cursor_of(page[-1]) if page else cursor, len(rest) > size)

        return {"download_page": download_page, "first_cursor": lambda self: None}

    @pytest.mark.parametrize("size", [3, 4, 100])
    @pytest.mark.parametrize("cursor_of", [lambda record: record["time"], lambda record: record["id"]])
    def test_once(self, cursor_of: Any, size: int, running: Running) -> None:
        """Each record arrives once, quiet runs are quiet, and a late one with the newest time is not lost."""
        source = self.source(size, cursor_of)
        for count in (0, 1, 1, 2, 5, 5, 8, 9, 9):
            running.run(**source, records=self.RECORDS[:count])
        bodies = [message.body for message in running.arrived]
        assert bodies == [default_body(record) for record in self.RECORDS]

    def test_too_many(self, running: Running) -> None:
        """More records at one cursor than fit into a page are an error, once that page is published."""
        crowd = [{"id": number, "time": "2026-01-01T00:00:00"} for number in range(5)]
        for _ in range(2):
            with pytest.raises(SourceError, match="the cursor does not advance"):
                running.run(**self.source(3), records=crowd)
        assert len(running.arrived) == 3

    def test_equal_records(self, running: Running) -> None:
        """Equal records of a source with positions as its cursors are different ones."""
        running.run(records=["192.0.2.1", "192.0.2.2", "192.0.2.2"])
        running.run(records=["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2", "192.0.2.3"])
        assert len(running.arrived) == 5


class TestCursor:
    """A cursor that misbehaves."""

    @pytest.mark.parametrize(
        ("cursors", "count"), [([0], 0), ([1, 1], 1), ([1, 2, 1], 2), ([1, 0], 1), ([None], 0)]
    )
    def test_does_not_advance(self, cursors: list[Any], count: int, running: Running) -> None:
        """A cursor that stays although there is more, goes in a circle, or is missing is an error."""
        left = iter(cursors)

        def download_page(collector: Any, cursor: Any) -> Page:
            return Page([f"number {next(numbers)}"], next(left), True)

        numbers = itertools.count()
        with pytest.raises(SourceError, match="cursor"):
            running.run(download_page=download_page)
        assert len(running.arrived) == count

    def test_forgotten(self, running: Running) -> None:
        """A cursor that the server has forgotten ends the run, unless the hook names another, once."""
        running.run(records=records(4))

        def download_page(collector: PagesCollector, cursor: int) -> Page:
            if cursor == 4:
                raise CursorForgottenError("410 Gone")
            return PagesCollector.download_page(collector, cursor)

        with pytest.raises(CursorForgottenError, match="410 Gone"):
            running.run(records=records(5), download_page=download_page)
        members: Any = {"download_page": download_page, "replace_cursor": lambda self, cursor, error: 3}
        arrived = running.run(records=records(5), **members)
        assert [message.body for message in arrived] == [b"record 3", b"record 4"]
        running.edit(lambda collector, state: {"cursor": 4})
        members["download_page"] = lambda self, cursor: (
            Page(["x"], 4, True) if cursor == 3 else download_page(self, 4)
        )
        with pytest.raises(CursorForgottenError):
            running.run(**members)

    @pytest.mark.parametrize("answer", ["records", b"records", {"id": "record"}, None])
    def test_no_list(self, answer: Any, running: Running) -> None:
        """Anything but a page, or a single record instead of a list, is an error that names it."""
        with pytest.raises(CollectorError, match=r"download_page\(\) must return Page, not"):
            running.run(download_page=lambda self, cursor: answer)
        with pytest.raises(CollectorError, match="a list of records, not a single"):
            running.run(download_page=lambda self, cursor: Page(answer, 1, False))

    def test_half_a_character(self, running: Running) -> None:
        """A lone surrogate, which JSON allows and UTF-8 does not, is published."""
        page = Page(["a\ud800", {"b": "\udc00", "a": "ż"}], 1, False)
        running.run(download_page=lambda self, cursor: page)
        assert running.records() == [b"a\\ud800", b'{"a":"\xc5\xbc","b":"\\udc00"}']

    def test_empty_page(self, running: Running) -> None:
        """An empty page in the middle is skipped."""
        pages = {0: Page([], 1, True), 1: Page(["one"], 2, False), 2: Page([], None, False)}
        for _ in range(2):
            running.run(download_page=lambda self, cursor: pages[cursor])
        assert running.records() == [b"one"]
        assert len(running.arrived) == 1
