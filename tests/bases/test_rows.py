"""Rows with a time: each that is not too late is published once, in any order and any runs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n6_stateful import CollectorError, NothingNew, SourceError, StateError
from n6_stateful.bases.row_window import DIGEST_SIZE
from n6_stateful.bases.rows import BaseDownloadingTimeOrderedRowsCollector, BaseTimeOrderedRowsCollector
from n6_stateful.testing import MakeCollectorHarness
from tests.bases.http_server import Server, answer
from tests.bases.running import Running

STATES = Path(__file__).parent / "row_states"
NAME = "provider.rows.RowsCollector.pickle"
Feed = list[str]


class RowsCollector(BaseTimeOrderedRowsCollector):
    source_channel = "rows"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"

    def pick_raw_row_time(self, row: str) -> str:
        return row.partition(",")[0]

    def clean_row_time(self, raw_row_time: str) -> Any:
        return raw_row_time


def run(running: Running, *rows: str, **members: Any) -> Feed:
    """The rows that a run publishes when the source shows `rows`."""
    data = "\n".join(rows).encode("utf-8", "surrogateescape")
    arrived = running.run(**{"obtain_orig_data": lambda self: data, **members})
    return [row for message in arrived for row in message.body.decode("utf-8", "surrogateescape").split("\n")]


def reading(read: Callable[[str], Any]) -> dict[str, Any]:
    """A `clean_row_time` that is `read`."""
    return {"clean_row_time": lambda self, raw: read(raw)}


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(RowsCollector, tmp_path)


@pytest.fixture
def late(tmp_path: Path) -> Running:
    """With a window of two hours."""
    return Running(RowsCollector, tmp_path, "late_by = 2h")


class TestOrder:
    """New rows are published oldest first, as one message."""

    @pytest.mark.parametrize("order", ["abc", "cba", "bca"])
    def test_any(self, order: str, running: Running) -> None:
        """In any order of the source."""
        feed = [f"2026-0{ord(name) - 96},{name}" for name in order]
        assert run(running, *feed) == sorted(feed)
        assert run(running, *feed) == []
        (message,) = running.arrived
        assert (message.properties["type"], message.properties["content_type"]) == ("file", "text/csv")

    def test_ties(self, running: Running) -> None:
        """A later row with the newest time is new, once; rows with equal times are reversed, as in n6."""
        assert run(running, "2026-01,a", "2026-02,b") == ["2026-01,a", "2026-02,b"]
        assert run(running, "2026-02,c", "2026-01,a", "2026-02,b") == ["2026-02,c"]
        assert run(running, "2026-02,c", "2026-02,b", "2026-02,d") == ["2026-02,d"]
        assert running.state["newest_rows"] == {"2026-02,b", "2026-02,c", "2026-02,d"}
        twice = "2026-03,a", "2026-03,a", "2026-03,b", "2026-02,c", "2026-03,a"
        assert run(running, *twice) == ["2026-03,b", "2026-03,a"]

    @pytest.mark.parametrize("options", ["", "late_by = 30d"])
    def test_key(self, options: str, tmp_path: Path) -> None:
        """A changed row is the same if its key is the same."""
        running = Running(RowsCollector, tmp_path, options)
        keyed: Any = {"row_key": lambda self, row: row.split(",")[1]}
        feed = "2026-01-01,1,new", "2026-01-01,2,new", "2026-01-01,1,twice"
        assert run(running, *feed, **keyed) == ["2026-01-01,2,new", "2026-01-01,1,new"]
        changed = "2026-01-01,1,old", "2026-01-01,2,old", "2026-01-01,3,x"
        assert run(running, *changed, **keyed) == ["2026-01-01,3,x"]
        assert run(running, "2026-01-01,1,older", "2026-01-02,4,y", **keyed) == ["2026-01-02,4,y"]


class TestLines:
    """What a row is."""

    def test_line_breaks(self, running: Running) -> None:
        """Lines end at LF or CRLF and nowhere else; any byte goes through; comments and blanks stay out."""
        odd = "\x0b\x0c\x1c\x85\u2028"
        feed = f"2026-01,\udcff\udcfe{odd}\r\n2026-02,ż\r\n2026-03,c\r".encode("utf-8", "surrogateescape")
        (message,) = running.run(obtain_orig_data=lambda self: feed)
        assert message.body == feed.replace(b"\r", b"")
        rows = "\ufeff# 2026", "", "  ", "\r", f"2026-01,\udcff\udcfe{odd}", "2026-02,ż", "2026-03,c"
        assert run(running, *rows) == []
        assert running.left_out == 0

    def test_csv(self, running: Running) -> None:
        """Quoted fields may contain line breaks, and be as large as the download allows."""
        feed = ['2026-01,"a\n2026-09, ""b"""', f'2026-02,"{"x" * 200_000}"', '# "', '2026-03,5" disk']
        run(running, *feed, csv_rows=True)
        assert running.records() == ["\n".join([feed[0], feed[1], feed[3]]).encode()]
        semicolons = ['2026-04;"a"', '2026-05;"b\nc"']
        pick = {"pick_raw_row_time": lambda self, row: row.partition(";")[0]}
        run(running, *semicolons, csv_rows={"delimiter": ";"}, **pick)
        assert running.arrived[-1].body == "\n".join(semicolons).encode()

    @pytest.mark.parametrize(
        ("stray", "rest"), [('"b', []), ('"b', ['2026-04,"d"', '2026-05,"e']), ('"b"c', ['2026-04,"x\ny"'])]
    )
    def test_stray_quote(
        self, stray: str, rest: Feed, running: Running, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A row that does not parse is left out with its line number; all others are published."""
        stray = f"2026-02,{stray}"
        feed = ["2026-01,a", stray, "2026-03,c", *rest]
        run(running, *feed, csv_rows=True)
        wanted = ["2026-01,a", "2026-03,c", *(row for row in rest if row.count('"') == 2)]
        assert running.records() == ["\n".join(wanted).encode()]
        assert f"rows left out: {len(feed) - len(wanted)} (line 2, {stray!r}: " in caplog.text
        assert running.left_out == len(feed) - len(wanted)

    def test_many_stray_quotes(self, running: Running) -> None:
        """Lines that each open a field without an end are looked at a few times, not once for each other."""
        rows = [f'2026-01,x","{number}' for number in range(20_000)]
        with pytest.raises(SourceError, match=r"rows left out: 20,000 \(line 1,"):
            run(running, *rows, csv_rows=True)


class TestTimes:
    """A time counts by its meaning, not by its spelling."""

    @pytest.mark.parametrize("options", ["", "late_by = 2h"])
    @pytest.mark.parametrize(
        ("form", "members"),
        [
            ("%F %T", {}),
            ("%FT%TZ", {}),
            ("%F %T UTC", {}),
            ("%F %T+01:00", reading(datetime.fromisoformat)),
            ("%F", reading(date.fromisoformat)),
            ("%Y%m%d", {"row_time_format": "%Y%m%d"}),
            ("%d/%m/%Y", {"row_time_format": "%d/%m/%Y"}),
            ("%s", {"row_time_format": "epoch"}),
            ("%s", {"row_time_format": "epoch", **reading(int)}),
            ("%s000", {"row_time_format": "epoch_ms", **reading(float)}),
        ],
    )
    def test_forged(
        self, form: str, members: Any, options: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A row of next century is left out, with a warning that shows it, and hides no row after it."""
        running = Running(RowsCollector, tmp_path, options)
        forged, first, second = (f"{datetime(year, 1, 2).strftime(form)},a" for year in (2162, 2024, 2025))
        assert run(running, forged, first, **members) == [first]
        assert f"rows left out: 1 ({forged!r}: its time is more than a day ahead" in caplog.text
        assert running.left_out == 1
        assert run(running, forged, first, second, **members) == [second]
        with pytest.raises(SourceError, match="or is this machine's clock wrong"):
            run(running, forged, forged, **members)

    @pytest.mark.parametrize("header", ["time,ip", "N/A,ip", "time2,ip", "2026,ip"])
    def test_header(self, header: str, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """A line with the columns' names is left out, with a warning, and hides no row after it."""
        assert run(running, header, "2026-01-01,a") == ["2026-01-01,a"]
        assert f"rows left out: 1 ({header!r}: its time " in caplog.text
        assert run(running, header, "2026-01-01,a", "2026-01-02,b") == ["2026-01-02,b"]
        ahead = datetime.now(UTC) + timedelta(hours=20)  # as far as clocks and timezones may be wrong
        assert run(running, header, f"{ahead},c") == [f"{ahead},c"]

    @pytest.mark.parametrize("options", ["", "late_by = 2h"])
    def test_changed_clocks(self, options: str, tmp_path: Path) -> None:
        """Rows in the order of time are new, even if their text sorts differently."""
        running = Running(RowsCollector, tmp_path, options)
        feed = [
            "2026-10-25 02:50:00+02:00,a",
            "2026-10-25 02:10:00+01:00,b",
            "2026-10-25T01:10:00.500Z,c",
            "2026-10-25T01:10:01Z,d",
        ]
        for count in range(1, 5):
            assert run(running, *feed[:count], *feed[:count]) == [feed[count - 1]]
        assert running.state["newest_row_time"] == "2026-10-25T01:10:01Z"

    @pytest.mark.parametrize("odd", ["nan", "inf", "99999999999999999999"])
    def test_odd_numbers(self, odd: str, running: Running) -> None:
        """Values that are not numbers of seconds are left out."""
        members = reading(float) if odd[0] != "9" else {"row_time_format": "epoch"}
        assert run(running, f"{odd},a", "1,b", **members) == ["1,b"]
        assert run(running, f"{odd},a", "1,b", "2,c", **members) == ["2,c"]

    @pytest.mark.parametrize(
        ("feed", "read"),
        [
            (["1767225600,a", "1767225660,b", "9999999999,c"], int),
            (["20260101,a", "20260102,b", "time2,c"], str),
        ],
    )
    def test_jump(self, feed: Feed, read: Any, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """With ordinals, a newest one far beyond all others is a warning."""
        assert run(running, *feed[:2], **reading(read)) == feed[:2]
        assert "far beyond" not in caplog.text
        assert run(running, *feed, **reading(read)) == feed[2:]
        newest = read(feed[2].partition(",")[0])
        assert f"the newest time, {newest!r}, is far beyond all others" in caplog.text

    def test_unreadable(self, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """Rows whose time or key cannot be read are left out, with a warning; all of them are an error."""
        members = reading(lambda raw: str(datetime.fromisoformat(raw)))
        assert run(running, "2026-01-01,a", "<p>b", "c", **members) == ["2026-01-01,a"]
        assert "rows left out: 2 ('<p>b': Invalid isoformat string: '<p>b'; 'c': " in caplog.text
        with pytest.raises(SourceError, match="has the format changed"):
            run(running, "01/02/2026,a", "01/03/2026,b", **members)
        key: Any = {"row_key": lambda self, row: row.split(",")[1]}
        assert run(running, "2026-01-02", "2026-01-03,b", **key) == ["2026-01-03,b"]
        assert "rows left out: 1 ('2026-01-02': list index out of range)" in caplog.text
        with pytest.raises(
            StateError, match=r"'2026-01-03', is not a time that RowsCollector can read.*state edit"
        ):
            run(running, "1,a", row_time_format="epoch")


class TestHooks:
    """A hook that returns something of another type is named."""

    @pytest.mark.parametrize(
        ("hook", "value", "text"),
        [
            ("obtain_orig_data", "2026,a", r"obtain_orig_data\(\) must return bytes, not str"),
            ("decode_orig", b"2026,a", r"decode_orig\(\) must return str, not bytes"),
            ("split_orig", None, r"all_rows_from_orig_data\(\) must return Iterable, not NoneType"),
            ("split_orig", [["2026", "a"]], r"rows are list: write should_row_be_used\(\)"),
            ("clean_row_time", {"year": 2026}, r"clean_row_time\(\) must return something sortable"),
            ("join_output", ["2026,a"], r"join_output\(\) must return str, not list"),
            ("generate_input_data_dicts", None, r"generate_input_data_dicts\(\) must return Iterable"),
            (
                "generate_input_data_dicts",
                ["a"],
                r"each step of generate_input_data_dicts\(\) must return Mapping",
            ),
        ],
    )
    def test_named(self, hook: str, value: Any, text: str, running: Running) -> None:
        """The error names the hook."""
        with pytest.raises(CollectorError, match=text):
            run(running, "2026,a", **{hook: lambda self, *_: value})


def test_nothing_new_too_late(running: Running) -> None:
    """`NothingNew` after rows were published would lose the others: it is an error, nothing is published."""

    def dicts(self: Any, rows: Any) -> Any:
        yield {"fresh_rows": rows[:1]}
        raise NothingNew

    with pytest.raises(CollectorError, match="the rest would be lost"):
        run(running, "2025,a", "2026,b", generate_input_data_dicts=dicts)
    assert run(running, "2025,a", "2026,b") == ["2025,a", "2026,b"]


class TestLateness:
    """`late_by`."""

    def test_within(self, late: Running) -> None:
        """A row that is at most that late is published, once."""
        run(late, "2026-01-01 10:00:07,a", "2026-01-01 08:00:07,b")
        shown = "2026-01-01 10:00:07,a", "2026-01-01 08:00:07,c", "2026-01-01 07:59:59,d"
        assert run(late, *shown) == ["2026-01-01 08:00:07,c"]
        assert run(late, "# nothing today") == run(late, *shown, "2026-01-01 08:00:07,b") == []

    @pytest.mark.parametrize("step", [1, -1, 7])
    def test_large_first_run(self, step: int, late: Running) -> None:
        """Of a long history only the window is remembered, in any order; what leaves it is forgotten."""
        begin = datetime(2026, 1, 1)
        feed = [f"{begin + timedelta(minutes=number)},a" for number in range(500)]
        shown = feed[::step] if step < 2 else [feed[number * step % 500] for number in range(500)]
        assert run(late, *shown) == feed
        assert sum(map(len, late.state["window_rows"].values())) == DIGEST_SIZE * 121
        assert run(late, *shown) == []
        for hour in range(9, 24):
            run(late, f"2026-01-01 {hour:02}:00:00,b")
        assert sum(map(len, late.state["window_rows"].values())) <= DIGEST_SIZE * 4
        assert late.state["window_begin"] == datetime(2026, 1, 1, 21)

    def test_turned_on(self, tmp_path: Path) -> None:
        """Rows from before it was set, or made longer, are not published twice."""
        feed = [f"2026-01-01 {hour:02}:00:00,a" for hour in range(20)]
        late_row = "2026-01-01 09:30:00,late"
        running = [Running(RowsCollector, tmp_path)]
        assert len(run(running[0], *feed[:10])) == 10
        assert run(Running(RowsCollector, tmp_path, "late_by = 2h"), *feed[:12]) == feed[10:12]
        longer = Running(RowsCollector, tmp_path, "late_by = 9h")
        assert run(longer, *feed[:14]) == feed[12:14]
        assert run(longer, *feed[:15], late_row) == [late_row, feed[14]]
        assert run(Running(RowsCollector, tmp_path), *feed, late_row) == feed[15:]
        assert run(Running(RowsCollector, tmp_path, "late_by = 9h"), *feed, late_row) == []

    @pytest.mark.parametrize(
        ("newest", "expected"),
        [
            ("2026-01-02 01:10", datetime(2026, 1, 1, 23, 10)),
            ("2026-01-02", datetime(2026, 1, 1)),
            ("0001-01-01 00:00", datetime.min),
            (7200.5, 0.5),
            (datetime(2026, 1, 2, 1), datetime(2026, 1, 1, 23)),
            (date(2026, 1, 2), datetime(2026, 1, 1)),
        ],
    )
    def test_times(self, newest: Any, expected: Any, running: Running) -> None:
        """The window's begin is never too late for what has no seconds, or no time of day; for times that
        mean nothing the error says what to declare, or to write."""
        collector = running.make()
        assert collector.get_window_begin(newest, 7200) == expected
        with pytest.raises(CollectorError, match="set row_time_format, or write get_window_begin"):
            collector.get_window_begin(f"{newest}".replace("-", ""), 7200)


class TestRewinding:
    """Collecting rows again from a given time."""

    FEED = [f"2026-01-01 {hour:02}:00:00,a" for hour in range(10)]

    @pytest.mark.parametrize("options", ["", "late_by = 2h"])
    @pytest.mark.parametrize("by_hand", [True, False])
    def test_again(self, by_hand: bool, options: str, tmp_path: Path) -> None:
        """By `state rewind` as by `state edit`, with `late_by` and without: once, and then no more."""
        running = Running(RowsCollector, tmp_path, options)
        run(running, *self.FEED[:5])
        run(running, *self.FEED)
        time = "2026-01-01 06:30:00"
        running.edit(
            lambda collector, state: (
                state | {"newest_row_time": time} if by_hand else collector.rewound(state, time)
            )
        )
        assert run(running, *self.FEED) == self.FEED[7:]
        assert run(running, *self.FEED) == []

    @pytest.mark.parametrize(
        ("read", "to", "expected"),
        [
            (str, "2026-01-01 06:00", "2026-01-01 06:00"),
            (datetime.fromisoformat, "2026-01-01 06:00", datetime(2026, 1, 1, 6)),
            (lambda raw: datetime.fromisoformat(raw).timestamp(), "1767225600", 1767225600.0),
        ],
    )
    def test_form(self, read: Any, to: str, expected: Any, running: Running) -> None:
        """The time is read in the form that the state has; anything else, or a later one, is an error."""
        run(running, "2026-01-02,a", **reading(read))
        collector = running.make()
        assert collector.rewound(running.state, to)["newest_row_time"] == expected
        for senseless in ("yesterday", "", "9999999999", "2027-01-01"):
            with pytest.raises(StateError, match=f"'{senseless}' is not a time up to "):
                collector.rewound(running.state, senseless)


class TestCounts:
    """`row_count_mismatch_is_fatal`, and warnings about the number of rows."""

    def test_fatal(self, tmp_path: Path) -> None:
        """Rows that would be lost, or are gone, end the run; nothing is published and nothing saved."""
        strict = Running(RowsCollector, tmp_path, "row_count_mismatch_is_fatal = yes")
        run(strict, "2026-02,a", "2026-02,b")
        with pytest.raises(SourceError, match=r"arrived later than late_by allows.*nothing was published"):
            run(strict, "2026-02,a", "2026-02,b", "2026-01,b", "2026-03,c")
        with pytest.raises(SourceError, match="the others are gone"):
            run(strict, "2026-02,b", "2026-03,c")
        assert run(strict, "2026-02,a", "2026-02,b", "2026-03,c") == ["2026-03,c"]

    def test_reported(self, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """By default rows that are lost, as with n6 without `late_by`, are a warning."""
        run(running, "2026-01,a", "2026-02,b")
        run(running, "2026-02,b", "2026-03,c")
        assert "others" not in caplog.text
        assert run(running, "2026-01,x", "2026-02,b", "2026-03,c") == []
        assert "arrived later than late_by allows; they are left out" in caplog.text


class TestSize:
    """`max_message_mib`."""

    ROWS = [f"2026-01-01 00:{number:02}:00,{'ż' * 100}" for number in range(60)]

    def test_split(self, running: Running) -> None:
        """Many rows go out as several messages, of whole rows, in order, none larger than that; but a larger
        row by itself, and a blacklist, which replaces the one before."""
        assert run(running, *reversed(self.ROWS), max_message_mib=1 / 1024) == self.ROWS
        sizes = [len(message.body) for message in running.arrived]
        assert all(1024 - 2 * len(self.ROWS[0].encode()) < size <= 1024 for size in sizes[:-1])
        new = ["2026-01-02,a", "2026-01-03,b"]
        assert run(running, *self.ROWS, *new, max_message_mib=1e-6) == new
        assert len(running.arrived) == len(sizes) + 2
        run(running, "2026-01-04,a", "2026-01-05,b", max_message_mib=1e-6, raw_type="blacklist")
        assert running.records()[-1] == b"2026-01-04,a\n2026-01-05,b"


class TestStates:
    """States of n6 are continued, and n6 could continue ours."""

    @pytest.mark.parametrize("path", sorted(STATES.glob("*.pickle")), ids=lambda path: path.stem)
    @pytest.mark.parametrize("options", ["", "late_by = 2h"])
    def test_n6(self, path: Path, options: str, tmp_path: Path) -> None:
        """No row is published twice, and none is lost."""
        cache = tmp_path / "cache"
        cache.mkdir(0o700)
        (cache / NAME).write_bytes(path.read_bytes())
        (cache / NAME).chmod(0o600)
        feed = ["2026-01-01 10:00:00,za\udcffż", "2026-01-01 10:00:00,ab", "2026-01-01 09:00:00,old"]
        running = Running(RowsCollector, tmp_path, options)
        assert run(running, *(f"{row}\r" for row in feed)) == []
        new = ["2026-01-01 10:00:00,new", "2026-01-01 11:00:00,newer"]
        assert run(running, *feed, *new) == new
        running.edit(lambda collector, state: {**state, "newest_rows": {f"{new[1]}\r"}})  # as n6 leaves it
        assert run(running, *feed, *new) == []

    def test_ours(self, running: Running) -> None:
        """The keys and their types are n6's, and its own collectors name the keys by these."""
        run(running, "2026-01,a", "2026-02,b")
        names = "_NEWEST_ROW_TIME_STATE_KEY", "_NEWEST_ROWS_STATE_KEY", "_ROWS_COUNT_KEY"
        assert running.state == dict(
            zip((getattr(RowsCollector, name) for name in names), ("2026-02", {"2026-02,b"}, 2), strict=True)
        )
        assert list(running.state) == ["newest_row_time", "newest_rows", "rows_count"]


class TestDownloading:
    """`BaseDownloadingTimeOrderedRowsCollector`."""

    class Collector(BaseDownloadingTimeOrderedRowsCollector, RowsCollector):
        """The same over HTTP."""

    @pytest.fixture
    def remote(self, tmp_path: Path, server: Server) -> Running:
        return Running(self.Collector, tmp_path, f"url = {server.url()}")

    def test_conditional(self, remote: Running, server: Server) -> None:
        """What the server calls the file is sent with the next request, once its rows are saved, and until
        the state is set back."""
        changed = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"
        server.says["/feed"] = answer(b"2026-01,a\n", 'ETag: "1"', changed)
        remote.run(kill_at_save=1)
        (message,) = remote.run()
        assert b"If-None-Match" not in server.requests[-1]
        assert message.properties["headers"] == {"meta": {"http_last_modified": "2026-01-01 00:00:00"}}
        server.says["/feed"] = answer(b"# 2\n2026-01,a\n", 'ETag: "2"')
        assert remote.run() == []
        server.says["/feed"] = answer(status="304 Not Modified")
        assert remote.run() == []
        assert b'If-None-Match: "2"' in server.requests[-1]
        server.says["/feed"] = answer(b"2026-01,a\n", 'ETag: "2"')
        remote.edit(lambda collector, state: {**state, "newest_row_time": "2025-12"})
        assert len(remote.run()) == 1
        assert b"If-None-Match" not in server.requests[-1]

    def test_last_line(self, remote: Running, server: Server) -> None:
        """A last line without its end counts if the answer said where it ends, and else waits for its end."""
        server.says["/feed"] = answer(b"2026-01,a\n2026-02,b", length=None)
        assert [message.body for message in remote.run()] == [b"2026-01,a"]
        server.says["/feed"] = answer(b"2026-01,a\n2026-02,bcd")
        assert [message.body for message in remote.run()] == [b"2026-02,bcd"]


def test_command(make_collector_harness: MakeCollectorHarness, tmp_path: Path) -> None:
    """The record of a run counts what was left out."""
    harness = make_collector_harness(RowsCollector, f"[feed]\nsource = provider\ncache_dir = {tmp_path}\n")
    assert harness.run(b"2026-01-01,a\n2162-01-01,forged").bodies == [b"2026-01-01,a"]
    last = json.loads(harness.run(argv=["runs", "--json", "--last", "1"]).text)
    assert (last["newest"], last["warnings"]) == ("2026-01-01", 1)


class TextCollector(RowsCollector):
    """Rows with seconds since 1970, as ISO 8601 text in timezones that change from row to row."""

    def clean_row_time(self, raw_row_time: str) -> Any:
        moment, zone = datetime.fromtimestamp(int(raw_row_time), UTC), int(raw_row_time) % 3
        return f"{str(moment + timedelta(hours=zone))[:19]}+0{zone}:00"


@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 600), st.integers(0, 3)), min_size=1, max_size=60
    ),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    gone=st.integers(0, 60),
    orders=st.randoms(use_true_random=False),
    kills=st.sets(st.integers(0, 9)),
    read=st.sampled_from([int, None]),
)
@settings(max_examples=60)
def test_each_row_once(
    arrivals: list[tuple[int, int, int]], cuts: list[int], gone: int, orders: Any, kills: set[int], read: Any
) -> None:
    """In any order, cut into any runs, some of them killed before they save, of a feed that grows, shrinks
    and grows back: each row arrives once. A row comes after others, and at most so many seconds late."""
    now = 0
    feed = []
    for step, late, text in arrivals:
        now += step
        feed.append(f"{max(now - late, 0)},{text}")
    members = reading(read) if read else {}
    with tempfile.TemporaryDirectory() as directory:
        running = Running(TextCollector, Path(directory), "late_by = 10m")
        seen = 0
        published = []
        for number, cut in enumerate([*sorted(cuts), 60, 60]):
            shown = feed[min(gone, seen) if number % 3 == 2 else 0 : cut]
            orders.shuffle(shown)
            published += run(running, *shown, kill_at_save=number in kills, **members)
            seen = seen if number in kills else min(cut, len(feed))
            remembered = sum(map(len, running.state.get("window_rows", {}).values()))
            assert remembered <= DIGEST_SIZE * len(set(feed))
        published += run(running, *feed, **members)
        assert sorted(published) == sorted(set(feed))
