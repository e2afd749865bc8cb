"""Rows with a time: each that does not come too late is published once, whatever the order and the runs."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n6_stateful import CollectorError, ConfigError, NothingNew, SourceError
from n6_stateful.bases import rows as rows_module
from n6_stateful.bases.rows import BaseDownloadingTimeOrderedRowsCollector, BaseTimeOrderedRowsCollector
from n6_stateful.message import Message
from n6_stateful.testing import MakeCollectorHarness
from tests.bases.http_server import Server, answer
from tests.bases.running import Running

STATES = Path(__file__).parent / "row_states"
NAME = "provider.rows.RowsCollector.pickle"


class RowsCollector(BaseTimeOrderedRowsCollector):
    source_channel = "rows"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"

    def pick_raw_row_time(self, row: str) -> str:
        return row.partition(",")[0]

    def clean_row_time(self, raw_row_time: str) -> str | None:
        return raw_row_time if raw_row_time[:2] == "20" else None


class EachRowCollector(RowsCollector):
    """A message for each row, on a channel that depends on it."""

    type = "stream"
    source_channel = ""

    def generate_input_data_dicts(self, input_pile: Any, /) -> Iterator[dict[str, Any]]:
        for row in input_pile:
            yield {"fresh_rows": [row]}

    def get_source_channel(self, **processed_data: Any) -> str:
        return f"channel-{len(processed_data['fresh_rows'])}"


class NumbersCollector(RowsCollector):
    """Rows with seconds since 1970."""

    def clean_row_time(self, raw_row_time: str) -> Any:
        return int(raw_row_time)

    def get_oldest_possible_row_time(self) -> Any:
        return -1


def run(running: Running, *rows: str, **how: Any) -> list[str]:
    """The rows that a run publishes when the source shows `rows`."""
    data = "\n".join(rows).encode("utf-8", "surrogateescape")
    arrived = running.run(obtain_orig_data=lambda self: data, **how)
    return [row for each in arrived for row in each.body.decode("utf-8", "surrogateescape").split("\n")]


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(RowsCollector, tmp_path)


@pytest.fixture
def late(tmp_path: Path) -> Running:
    """With a window of two hours."""
    return Running(RowsCollector, tmp_path, "late_by = 2h")


class TestOrder:
    """What is new goes out oldest first, as one message."""

    @pytest.mark.parametrize(
        "feed",
        [["2026-01,a", "2026-02,b", "2026-03,c"], ["2026-03,c", "2026-02,b", "2026-01,a"],
         ["2026-02,b", "2026-03,c", "2026-01,a"]],
        ids=["oldest first", "newest first", "no order"],
    )  # fmt: skip
    def test_any(self, feed: list[str], running: Running) -> None:
        """Whatever the order of the source."""
        assert run(running, *feed) == ["2026-01,a", "2026-02,b", "2026-03,c"]
        assert run(running, *feed) == []
        (message,) = running.arrived
        assert (message.properties["type"], message.properties["content_type"]) == ("file", "text/csv")

    def test_own_pile(self, running: Running) -> None:
        """What a collector makes of the fresh rows in `obtain_input_pile` is what is published."""

        def obtain_input_pile(self: Any) -> Any:
            rows = RowsCollector.obtain_input_pile(self)
            return rows and [row for row in rows if not row.endswith("private")]

        feed = "2026-01,a", "2026-02,private", "2026-03,c"
        assert run(running, *feed, obtain_input_pile=obtain_input_pile) == ["2026-01,a", "2026-03,c"]
        assert run(running, *feed) == []

    def test_ties(self, running: Running) -> None:
        """A row that comes later with the newest time is new, and no other."""
        assert run(running, "2026-01,a", "2026-02,b") == ["2026-01,a", "2026-02,b"]
        assert run(running, "2026-02,c", "2026-01,a", "2026-02,b") == ["2026-02,c"]
        assert run(running, "2026-02,c", "2026-02,b", "2026-02,d") == ["2026-02,d"]
        assert running.state["newest_rows"] == {"2026-02,b", "2026-02,c", "2026-02,d"}

    def test_twice(self, running: Running) -> None:
        """A row that stands there twice, side by side or not, is published once."""
        assert run(running, "2026-01,a", "2026-01,a", "2026-01,b", "2026-01,a") == ["2026-01,b", "2026-01,a"]
        assert run(running, "2026-03,a", "2026-02,b", "2026-03,a") == ["2026-02,b", "2026-03,a"]

    def test_left_out(self, running: Running) -> None:
        """Comments, blank lines and rows without a time are left out."""
        assert run(running, "# 2026", "", "  ", "\r", "id,name", "2026-01,a", "") == ["2026-01,a"]

    def test_unreadable(self, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """Rows whose time cannot be read are left out and told; if none can, it is an error."""

        def clean(self: Any, raw: str) -> str:
            return str(datetime.fromisoformat(raw))

        assert run(running, "2026-01-01,a", "<p>b", "c", clean_row_time=clean) == ["2026-01-01,a"]
        told = "2 rows have no time (or key), or a time that is still to come; the first is '<p>b'; left out"
        assert told in caplog.text
        with pytest.raises(SourceError, match="has the format changed"):
            run(running, "01/02/2026,a", "01/03/2026,b", clean_row_time=clean)
        assert run(running, "2026-01-01,a", "2026-01-02,b", clean_row_time=clean) == ["2026-01-02,b"]

    @pytest.mark.parametrize("options", ["", "late_by = 2h"])
    @pytest.mark.parametrize(
        "odd", ["time,ip", "N/A,ip", "2162-01-01 00:00:00,ip", "2162-01-01T00:00:00Z,ip"]
    )
    def test_no_time(self, odd: str, options: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A header, or a row of next century, is left out and told, and does not hide what comes after it."""
        running = Running(RowsCollector, tmp_path, options)
        members: Any = {"clean_row_time": lambda self, raw: raw}
        assert run(running, odd, "2026-01-01,a", **members) == ["2026-01-01,a"]
        assert (
            f"1 row has no time (or key), or a time that is still to come; the first is {odd!r}; left out"
            in caplog.text
        )
        assert run(running, odd, "2026-01-01,a", "2026-01-02,b", **members) == ["2026-01-02,b"]
        with pytest.raises(SourceError, match="is the clock of this machine wrong"):
            run(running, odd, odd, **members)
        assert run(running, odd, **members) == []  # the columns' names, before the first row

    def test_tomorrow(self, running: Running) -> None:
        """What a clock or a zone may be ahead by is no reason to leave a row out."""
        ahead = datetime.now() + timedelta(hours=20)
        assert run(running, f"{ahead},a", "2026-01-01,b") == ["2026-01-01,b", f"{ahead},a"]

    @pytest.mark.parametrize(
        ("read", "oldest"),
        [(datetime.fromisoformat, datetime.min), (date.fromisoformat, date.min)],
        ids=["datetime", "date"],
    )
    def test_objects_ahead(self, read: Any, oldest: Any, running: Running) -> None:
        """So it is with times that are objects."""
        members: Any = {
            "clean_row_time": lambda self, raw: read(raw),
            "get_oldest_possible_row_time": lambda self: oldest,
        }
        assert run(running, "2162-01-01,a", "2026-01-01,b", **members) == ["2026-01-01,b"]
        assert run(running, "2162-01-01,a", "2026-01-02,c", **members) == ["2026-01-02,c"]

    @pytest.mark.parametrize("odd", ["nan,a", "inf,a", "99999999999999999999,a"])
    def test_odd_numbers(self, odd: str, tmp_path: Path) -> None:
        """What is no number, or none of seconds, is left out."""
        running = Running(NumbersCollector, tmp_path)
        read: Any = float if odd[0] != "9" else datetime.fromtimestamp
        members: Any = {"clean_row_time": lambda self, raw: read(float(raw))}
        if odd[0] == "9":
            members["get_oldest_possible_row_time"] = lambda self: datetime.min
        assert run(running, odd, "1,b", **members) == ["1,b"]
        assert run(running, odd, "1,b", "2,c", **members) == ["2,c"]

    def test_unreadable_key(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A row whose key cannot be read is left out and told, and is not counted; all are an error."""
        running = Running(RowsCollector, tmp_path, "row_count_mismatch_is_fatal = yes")
        key: Any = {"row_key": lambda self, row: row.split(",")[1]}
        assert run(running, "2026-01-02", "2026-01-03,b", **key) == ["2026-01-03,b"]
        assert "the first is '2026-01-02'; left out" in caplog.text
        with pytest.raises(SourceError, match="2 rows have no time"):
            run(running, "2026-01-04", "2026-01-05", **key)

    def test_nothing_new_too_late(self, tmp_path: Path) -> None:
        """To say that there is nothing more when rows were taken is an error, and loses none."""
        running = Running(EachRowCollector, tmp_path)

        def generate(self: Any, pile: Any, /) -> Iterator[dict[str, Any]]:
            for row in pile:
                yield {"fresh_rows": [row]}
                raise NothingNew

        feed = "2026-01,a", "2026-02,b"
        with pytest.raises(CollectorError, match="NothingNew came when rows had been published"):
            run(running, *feed, generate_input_data_dicts=generate)
        run(running, *feed)
        assert running.records() == [b"2026-01,a", b"2026-02,b"]

        def none_of_interest(self: Any, pile: Any, /) -> Iterator[dict[str, Any]]:
            raise NothingNew
            yield

        assert run(running, *feed, "2026-03,c", generate_input_data_dicts=none_of_interest) == []
        assert run(running, *feed, "2026-03,c") == []

    def test_nothing_of_interest(self, tmp_path: Path) -> None:
        """That none of the rows of a run that was cut off is of interest says nothing of those since."""
        running = Running(EachRowCollector, tmp_path)

        def generate(self: Any, pile: Any, /) -> Iterator[dict[str, Any]]:
            wanted = [row for row in pile if row != "2026-01,a"]
            if not wanted:
                raise NothingNew
            for row in wanted:
                yield {"fresh_rows": [row]}

        run(running, "2026-01,a", generate_input_data_dicts=generate, kill_at_save=2)
        feed = "2026-01,a", "2026-02,b"
        assert run(running, *feed, generate_input_data_dicts=generate) == ["2026-02,b"]
        assert run(running, *feed, generate_input_data_dicts=generate) == []

    def test_other_forms(self, running: Running) -> None:
        """A text that sorts by time in a form of its own is a time, be it a serial number."""
        members: Any = {"clean_row_time": lambda self, raw: raw}
        feed = ["20260101,a", "3026/01/02,b", "99991231,c", "9f01,d", "A0001,e", "a001,f"]
        assert run(running, *feed, **members) == feed

    def test_byte_order_mark(self, running: Running) -> None:
        """The mark of UTF-8 is no part of the first row."""
        assert run(running, "\ufeff2026-01-01,a", "2026-01-02,b") == ["2026-01-01,a", "2026-01-02,b"]

    @pytest.mark.parametrize("options", ["", "late_by = 30d"])
    def test_key(self, options: str, tmp_path: Path) -> None:
        """A row that changes is the same if its key says so."""
        running = Running(RowsCollector, tmp_path, options)
        keyed: Any = {"row_key": lambda self, row: row.split(",")[1]}
        feed = "2026-01-01,1,new", "2026-01-01,2,new", "2026-01-01,1,twice"
        assert run(running, *feed, **keyed) == ["2026-01-01,2,new", "2026-01-01,1,new"]
        assert run(running, "2026-01-01,1,old", "2026-01-01,2,old", "2026-01-01,3,x", **keyed) == [
            "2026-01-01,3,x"
        ]
        assert run(running, "2026-01-01,1,older", "2026-01-02,4,y", **keyed) == ["2026-01-02,4,y"]

    def test_bytes(self, running: Running) -> None:
        """What is not UTF-8 goes through as it is, and so does the `\\r` of a line's end."""
        arrived = running.run(obtain_orig_data=lambda self: b"2026-01,\xff\xfe\r\n2026-02,\xc5\xbc\r\n")
        assert arrived[0].body == b"2026-01,\xff\xfe\r\n2026-02,\xc5\xbc\r"
        assert run(running, "2026-01,\udcff\udcfe\r", "2026-02,ż\r") == []

    @pytest.mark.parametrize("size", [1, 2, 3, 10, 1 << 20])
    def test_pieces(self, size: int, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file is split the same in pieces of any size, and its rows are packed the same."""
        monkeypatch.setattr(rows_module, "_SPLIT", size)
        monkeypatch.setattr(rows_module, "_PACK", size)
        feed = [f"2026-{number:02},{'x' * number}" for number in range(25)]
        assert run(running, *reversed(feed)) == feed
        assert run(running, *feed, "2027,a", "", "2026,b", "2027,c") == ["2027,c", "2027,a"]


class TestLateness:
    """`late_by`."""

    def test_none(self, running: Running) -> None:
        """Without it a row with a time below the newest is lost, as with n6, and the log says so."""
        run(running, "2026-01-01 10:00:00,a")
        assert run(running, "2026-01-01 10:00:00,a", "2026-01-01 09:59:59,b") == []

    def test_within(self, late: Running) -> None:
        """A row at most so late is published, once."""
        run(late, "2026-01-01 10:00:00,a", "2026-01-01 08:00:00,b")
        shown = "2026-01-01 10:00:00,a", "2026-01-01 08:00:00,c", "2026-01-01 07:59:59,d"
        assert run(late, *shown) == ["2026-01-01 08:00:00,c"]
        assert run(late, *shown, "2026-01-01 08:00:00,b") == []

    def test_gone_and_back(self, late: Running) -> None:
        """What the source no longer shows is still known when it returns."""
        feed = [f"2026-01-01 1{number}:00:00,a" for number in range(3)]
        assert run(late, *feed) == feed
        assert run(late) == run(late, "# nothing today") == run(late, feed[2]) == run(late, *feed) == []

    def test_bounded(self, late: Running) -> None:
        """What leaves the window is forgotten."""
        for hour in range(24):
            run(late, *(f"2026-01-01 {hour:02}:{minute:02}:00,a" for minute in range(60)))
            remembered = sum(map(len, late.state["window_rows"].values())) / rows_module.DIGEST_SIZE
            assert remembered <= 4 * 60
        assert late.state["window_begin"] == "2026-01-01 21:59:00"

    def test_large_first_run(self, late: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a long history only the window is remembered, whatever its order."""
        monkeypatch.setattr(rows_module, "_PACK", 10)
        begin = datetime(2026, 1, 1)
        feed = [f"{begin + timedelta(minutes=number)},a" for number in range(500)]
        run(late, *feed)
        assert len(late.state["window_rows"][str(begin + timedelta(minutes=499))]) == 16 * 121
        assert run(late, *feed) == []

    def test_turned_on(self, tmp_path: Path) -> None:
        """Rows from before it was set, or made longer, are not taken twice."""
        feed = [f"2026-01-01 {hour:02}:00:00,a" for hour in range(20)]
        assert len(run(Running(RowsCollector, tmp_path), *feed[:10])) == 10
        assert run(Running(RowsCollector, tmp_path, "late_by = 2h"), *feed[:12]) == feed[10:12]
        assert run(Running(RowsCollector, tmp_path, "late_by = 9h"), *feed[:14]) == feed[12:14]
        late_row = "2026-01-01 09:30:00,late"
        longer = Running(RowsCollector, tmp_path, "late_by = 9h")
        assert run(longer, *feed[:15], late_row) == [late_row, feed[14]]
        assert run(Running(RowsCollector, tmp_path), *feed, late_row) == feed[15:]
        assert run(Running(RowsCollector, tmp_path, "late_by = 9h"), *feed, late_row) == []

    @pytest.mark.parametrize(
        ("newest", "expected"),
        [
            ("2026-01-02 01:00:00", "2026-01-01 23:00:00"),
            ("2026-01-02T01:00:00.5Z", "2026-01-01T23:00:00"),
            ("2026-01-02 01:00:00.123456+02:00", "2026-01-01 23:00:00"),
            ("2026-01-02 01:00", "2026-01-01 23:00"),
            ("2026-01-02", "2026-01-01"),
            (7200.5, 0.5),
            (datetime(2026, 1, 2, 1), datetime(2026, 1, 1, 23)),
            (date(2026, 1, 2), date(2026, 1, 1)),
        ],
    )
    def test_times(self, newest: Any, expected: Any) -> None:
        """The window's begin is a time of the same kind, and never too late."""
        collector: Any = RowsCollector
        assert collector.get_window_begin(collector, newest, 7200) == expected

    @pytest.mark.parametrize(
        "newest", ["20260102T010000", "02/01/2026", "7", "2026-W01-1", "0001-01-01 00:00"]
    )
    def test_other_times(self, newest: str) -> None:
        """For other times the error names the method to write."""
        collector: Any = RowsCollector
        with pytest.raises(CollectorError, match="get_window_begin"):
            collector.get_window_begin(collector, newest, 7200)

    def test_wrong(self, tmp_path: Path) -> None:
        """What is not a length of time is a configuration error."""
        with pytest.raises(
            ConfigError, match="late_by = soon: not a valid duration: must be a number with its unit"
        ):
            run(Running(RowsCollector, tmp_path, "late_by = soon"), "2026,a")


class TestCounts:
    """`row_count_mismatch_is_fatal`, and what is said of the numbers of rows."""

    @pytest.fixture
    def strict(self, tmp_path: Path) -> Running:
        return Running(RowsCollector, tmp_path, "row_count_mismatch_is_fatal = yes")

    def test_grows(self, strict: Running) -> None:
        """Rows that are added explain the number."""
        assert run(strict, "2026-01,a") == ["2026-01,a"]
        assert run(strict, "2026-01,a", "2026-02,b") == ["2026-02,b"]
        assert run(strict, "2026-01,a", "2026-02,b") == []

    def test_late(self, strict: Running) -> None:
        """A row that would be lost ends the run; nothing is published and nothing saved."""
        run(strict, "2026-02,a")
        with pytest.raises(SourceError, match=r"came later than late_by allows.*nothing was published"):
            run(strict, "2026-02,a", "2026-01,b", "2026-03,c")
        assert run(strict, "2026-02,a", "2026-03,c") == ["2026-03,c"]

    def test_gone(self, strict: Running) -> None:
        """So do rows that are gone."""
        run(strict, "2026-01,a", "2026-02,b")
        with pytest.raises(SourceError, match="the others are gone"):
            run(strict, "2026-02,b", "2026-03,c")

    def test_told(self, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """By default lost rows are a warning, and a feed that rolls is none."""
        run(running, "2026-01,a", "2026-02,b")
        run(running, "2026-02,b", "2026-03,c")
        assert "others" not in caplog.text
        run(running, "2026-01,x", "2026-02,b", "2026-03,c")
        assert "came later than late_by allows, and are left out" in caplog.text


class TestStates:
    """States of n6 are continued, and n6 could continue ours."""

    @pytest.mark.parametrize("path", sorted(STATES.glob("*.pickle")), ids=lambda path: path.stem)
    @pytest.mark.parametrize("options", ["", "late_by = 2h"])
    def test_n6(self, path: Path, options: str, tmp_path: Path) -> None:
        """No row of theirs comes twice, and none is lost."""
        cache = tmp_path / "cache"
        cache.mkdir(0o700)
        (cache / NAME).write_bytes(path.read_bytes())
        (cache / NAME).chmod(0o600)
        feed = ["2026-01-01 10:00:00,za\udcffż", "2026-01-01 10:00:00,ab", "2026-01-01 09:00:00,old"]
        running = Running(RowsCollector, tmp_path, options)
        assert run(running, *feed) == []
        new = ["2026-01-01 10:00:00,new", "2026-01-01 11:00:00,newer"]
        assert run(running, *feed, *new) == new
        assert run(running, *feed, *new) == []

    def test_ours(self, running: Running) -> None:
        """The keys and their types are n6's."""
        run(running, "2026-01,a", "2026-02,b")
        assert running.state == {
            "newest_row_time": "2026-02",
            "newest_rows": {"2026-02,b"},
            "rows_count": 2,
        }

    def test_keys(self) -> None:
        """n6's own collectors name the keys by these."""
        keys = [
            RowsCollector._NEWEST_ROW_TIME_STATE_KEY,
            RowsCollector._NEWEST_ROWS_STATE_KEY,
            RowsCollector._ROWS_COUNT_KEY,
        ]
        assert keys == ["newest_row_time", "newest_rows", "rows_count"]


class TestRecords:
    """What a run that delivers nothing leaves to be seen."""

    def test_no_new_data(self, make_collector_harness: MakeCollectorHarness, tmp_path: Path) -> None:
        """It has brought nothing, though it has promised something; the next one has."""
        config = f"[feed]\nsource = provider\ncache_dir = {tmp_path}\n"
        harness = make_collector_harness(RowsCollector, config)
        for fails, exit_code, newest in ((True, 69, ""), (False, 0, "2026-01-01 00:00:00")):
            assert harness.run(b"2026-01-01 00:00:00,a", fail_delivery=fails).exit_code == exit_code
            last = json.loads(harness.run(argv=["runs", "--json", "--last", "1"]).text)
            assert (last["exit_code"], last["newest"]) == (exit_code, newest)
            assert (last["generation_before"] == last["generation_after"]) == fails


class TestDownloading:
    """`BaseDownloadingTimeOrderedRowsCollector`."""

    class Collector(BaseDownloadingTimeOrderedRowsCollector, RowsCollector):
        """The same over HTTP."""

    @pytest.fixture
    def remote(self, tmp_path: Path, server: Server) -> Running:
        return Running(self.Collector, tmp_path, f"url = {server.url()}")

    def test_conditional(self, remote: Running, server: Server) -> None:
        """What the server calls the file is sent with the next request, once its rows have arrived."""
        server.says["/feed"] = answer(
            b"2026-01,a\n", 'ETag: "1"', "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"
        )
        remote.run(kill_at_save=2)
        (message,) = remote.run()
        assert b"If-None-Match" not in server.requests[-1]
        assert message.properties["headers"] == {"meta": {"http_last_modified": "2026-01-01 00:00:00"}}
        server.says["/feed"] = answer(status="304 Not Modified")
        assert remote.run() == []
        assert b'If-None-Match: "1"' in server.requests[-1]
        assert len(remote.records()) == 1

    def test_nothing_new_of_a_changed_file(self, remote: Running, server: Server) -> None:
        """A new version without new rows is remembered, too."""
        for version in (b"1", b"2"):
            server.says["/feed"] = answer(b"# %s\n2026-01,a\n" % version, f'ETag: "{version.decode()}"')
            remote.run()
        server.says["/feed"] = answer(status="304 Not Modified")
        remote.run()
        assert b'If-None-Match: "2"' in server.requests[-1]

    @pytest.mark.parametrize(
        ("body", "content_type", "is_fine"),
        [
            (b"\n<!DOCTYPE html><p>Log in", "text/plain", False),
            (b"\xef\xbb\xbf<HTML>", "application/octet-stream", False),
            (b"<p>Log in", "text/html", False),
            (b"2026-01,a", "text/html", True),
            (b"2026-01,<html>", "text/csv", True),
        ],
    )
    def test_html(
        self, body: bytes, content_type: str, is_fine: bool, remote: Running, server: Server
    ) -> None:
        """A page of HTML is an error, whatever it is called."""
        server.says["/feed"] = answer(body, f"Content-Type: {content_type}")
        if is_fine:
            assert len(remote.run()) == 1
        else:
            with pytest.raises(SourceError, match="something else than expected"):
                remote.run()

    def test_last_line(self, remote: Running, server: Server) -> None:
        """A last line without its end counts if the answer said where it ends, and else waits for its end."""
        server.says["/feed"] = answer(b"2026-01,a\n2026-02,b", length=None)
        assert [message.body for message in remote.run()] == [b"2026-01,a"]
        server.says["/feed"] = answer(b"2026-01,a\n2026-02,bcd")
        assert [message.body for message in remote.run()] == [b"2026-02,bcd"]

    def test_empty(self, remote: Running, server: Server) -> None:
        """A file that is empty for a day is an error, and loses nothing."""
        server.says["/feed"] = answer(b"2026-01,a\n")
        remote.run()
        server.says["/feed"] = answer(b"")
        with pytest.raises(SourceError, match="empty body"):
            remote.run()
        server.says["/feed"] = answer(b"2026-01,a\n2026-02,b\n")
        assert [message.body for message in remote.run()] == [b"2026-02,b"]

    @pytest.mark.parametrize("option", ["download_timeout = soon", "download_deadline = 5"])
    def test_wrong_options(self, option: str, tmp_path: Path, server: Server) -> None:
        """A wrong option is a configuration error."""
        with pytest.raises(ConfigError):
            Running(self.Collector, tmp_path, f"url = {server.url()}\n{option}").run()


def showing(rows: list[str]) -> Callable[[Any], bytes]:
    data = "\n".join(rows).encode()
    return lambda collector: data


def ids(messages: list[Message]) -> list[tuple[bytes, str]]:
    return [(message.body, message.properties["message_id"]) for message in messages]


# Arrivals: each row with its time and with how late it comes, in the order in which the source gets them.
LATE_BY = 600
ARRIVALS = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, LATE_BY), st.integers(0, 3)), min_size=1, max_size=60
)


@given(
    arrivals=ARRIVALS,
    cuts=st.lists(st.integers(0, 60), max_size=8),
    gone=st.integers(0, 60),
    orders=st.randoms(use_true_random=False),
    kills=st.dictionaries(st.integers(0, 9), st.integers(1, 2)),
    grown=st.integers(0, 10),
    each=st.booleans(),
)
@settings(max_examples=200)
def test_each_row_once(
    arrivals: list[tuple[int, int, int]],
    cuts: list[int],
    gone: int,
    orders: Any,
    kills: dict[int, int],
    grown: int,
    each: bool,
) -> None:
    """In any order, cut into any runs, with kills before any save, and a feed that grows, also between a kill
    and the next run, shrinks and grows back: each row arrives once, and twins bear one id."""
    now = 0
    feed = []
    for step, late, text in arrivals:
        now += step
        feed.append(f"{max(now - late, 0)},{text}")
    base: Any = EachRowCollector if each else RowsCollector
    made = type("Numbers", (NumbersCollector, base), {"__module__": __name__})
    with tempfile.TemporaryDirectory() as directory:
        running = Running(made, Path(directory), "late_by = 10m")
        published: list[str] = []
        seen = 0
        for number, cut in enumerate([*sorted(cuts), 60, 60]):
            shown = feed[min(gone, seen) if number % 3 == 2 else 0 : cut]
            seen = min(cut, len(feed))
            orders.shuffle(shown)
            killed = []
            if number in kills:
                killed = running.run(kill_at_save=kills[number], obtain_orig_data=showing(shown))
                for row in feed[cut : cut + grown]:
                    if row not in shown:
                        shown.insert(orders.randint(0, len(shown)), row)
                seen = min(cut + grown, len(feed))
            arrived = running.run(obtain_orig_data=showing(shown))
            assert ids(arrived)[: len(killed)] == ids(killed)
            published += [row for message in arrived for row in message.body.decode().split("\n")]
            remembered = sum(map(len, running.state.get("window_rows", {}).values()))
            assert remembered <= 16 * len(set(feed))
        assert sorted(published) == sorted(set(feed))
        assert pickle.dumps(running.state)
