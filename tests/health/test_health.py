"""What the records of runs say about a collector: `status`, metrics, `runs`, and the view over a host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from n6_stateful import ConfigError
from n6_stateful.command.plot import plot
from n6_stateful.command.runs import HEADER, as_line
from n6_stateful.health import (
    CRITICAL,
    OK,
    UNKNOWN,
    WARNING,
    Health,
    Limits,
    data_size,
    judge,
    main,
    one_line,
    records,
    write_metrics,
)
from n6_stateful.journal import DEFAULTS, Journal, configured_journal
from n6_stateful.message import Message
from tests.command.conftest import Host
from tests.command.conftest import host as host  # the fixture

HOUR, DAY = 3600, 86_400
USUAL = Limits()
START = 1_700_000_000.0


def run(
    start: float, exit_code: int | None = 0, messages: int = 0, error: str = "", **others: Any
) -> dict[str, Any]:
    """The record of a run that took five seconds."""
    end = None if exit_code is None else start + 5
    outcome = {0: "ok", None: "in progress"}.get(exit_code, "failed")
    record = {"start": start, "end": end, "exit_code": exit_code, "outcome": outcome, "messages": messages}
    record |= {"last_new_data": end if messages else start, "locked": True, "host": "gone", "pid": 1}
    return record | {"error": error} | others


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal as a run leaves it."""
    return configured_journal(DEFAULTS, tmp_path / "cache/my-provider.lines.SampleCollector.sqlite")


def put(journal: Journal, *runs: dict[str, Any], waiting: int = 0, refused: str = "") -> None:
    for record in runs:
        journal.put_run(record["start"], record)
    for number in range(waiting):
        journal.put(Message("raw", "a.b", b"x", {"message_id": str(number)}))
    journal.commit()
    if refused:
        journal.refuse({1: refused})


def judged(journal: Journal, now: float, limits: Limits = USUAL) -> tuple[int, str, dict[str, str]]:
    """Level, text, and performance data by label."""
    level, text, perfdata = judge(Health.read(journal, now), limits)
    return level, text, dict(item.split("=") for item in perfdata.split())


class TestLastGoodRun:
    """The age of the last good run, and of the last new data."""

    @pytest.mark.parametrize(
        ("age", "level", "text"),
        [
            (60, OK, "last good run 60 s ago"),
            (2 * HOUR - 1, OK, "last good run 119 min ago"),
            (2 * HOUR, WARNING, "last good run 2 h ago"),
            (6 * HOUR, CRITICAL, "last good run 6 h ago"),
            (7 * DAY, CRITICAL, "last good run 7 days ago"),
        ],
    )
    def test_age(self, age: int, level: int, text: str, journal: Journal) -> None:
        """It decides, by limits that are for a run every few minutes."""
        put(journal, run(START, messages=5))
        assert judged(journal, START + 5 + age)[:2] == (level, f"{text}; last new data {text[14:]}"), age

    def test_expect_every(self, journal: Journal) -> None:
        """`[monitoring] expect_every` sets the limits: twice is a warning, six times critical."""
        put(journal, run(START))
        limits = Limits.expecting("1d")
        levels = [judged(journal, START + 5 + age, limits)[0] for age in (2 * DAY - 1, 2 * DAY, 6 * DAY)]
        assert levels == [OK, WARNING, CRITICAL]
        assert (Limits.expecting(""), Limits.expecting("3d").no_data) == (Limits(), 18 * DAY)
        with pytest.raises(ConfigError, match="expect_every = often: must be"):
            Limits.expecting("often")

    def test_failures(self, journal: Journal) -> None:
        """Failures since the last good run are counted, and end with the next good one."""
        put(journal, run(START, 69, error="no broker"), run(START + 60, 66, error="a | b"))
        level, text, perfdata = judged(journal, START + 120)
        assert (level, perfdata["failed"]) == (CRITICAL, "2;;;0")
        assert text.startswith("no run has ended well; 2 runs failed in a row: a / b")
        put(journal, run(START + 120), run(START + 180, 69, error="no broker"))
        assert judged(journal, START + 240)[:2] == (
            WARNING,
            "1 run failed: no broker; last good run 115 s ago; last new data 60 s ago",
        )

    def test_killed(self, journal: Journal) -> None:
        """A run that did not end, and does not hold the lock, was killed."""
        put(journal, run(START), run(START + 60, None))
        level, text, _ = judged(journal, START + 90)
        assert (level, "1 run failed: did not end: it was killed" in text) == (WARNING, True)

    def test_in_progress(self, journal: Journal) -> None:
        """One that holds the lock is in progress, and must not take longer than the limits."""
        journal.lock()
        here: dict[str, Any] = {"host": os.uname().nodename, "pid": os.getpid()}
        put(journal, run(START), run(START + 60, None, **here))
        assert judged(journal, START + 90)[:2] == (
            OK,
            "last good run 85 s ago; last new data 90 s ago; a run has been in progress for 30 s",
        )
        assert judged(journal, START + 60 + 6 * HOUR)[0] == CRITICAL
        journal.unlock()

    def test_mails(self, journal: Journal) -> None:
        """Runs without the lock, as of mails, are in progress for an hour at most."""
        put(journal, run(START, None, locked=False))
        assert [run["outcome"] for run in records(journal, START + 60)] == ["in progress"]
        assert [run["outcome"] for run in records(journal, START + HOUR)] == ["killed"]

    def test_no_new_data(self, journal: Journal) -> None:
        """Good runs that have brought nothing for a week are a warning, however many are kept."""
        put(journal, run(START + 7 * DAY, last_new_data=START, first_run=START))
        assert judged(journal, START + 7 * DAY - 1)[0] == OK
        assert judged(journal, START + 7 * DAY + 5)[:2] == (
            WARNING,
            "last new data 7 days ago; last good run 0 s ago",
        )
        put(journal, run(START + 7 * DAY, first_run=START, last_new_data=None))
        assert judged(journal, START + 7 * DAY + 5)[1].startswith(
            "no new data since the first run, 7 days ago"
        )

    def test_carried_on(self, host: Host) -> None:
        """Each record carries the time of the last new data and of the first run on."""
        host.configure("[journal]\nkeep_runs = 1")
        host()
        first = host.last_run
        host()
        (second,) = host.journal.runs()
        assert second["first_run"] == first["start"] < second["start"]
        assert second["last_new_data"] == first["end"]


class TestProblems:
    """What else is wrong."""

    def test_waiting(self, journal: Journal) -> None:
        """Messages that wait have the limits of runs; nobody runs the collector any more after a day."""
        put(journal, run(time.time()), waiting=2)
        now = time.time()
        level, text, perfdata = judged(journal, now)
        assert (level, perfdata["outbox_waiting"], "2 messages wait in the outbox, since 0 s" in text) == (
            OK,
            "2;;;0",
            True,
        )
        assert perfdata["outbox_oldest"].endswith(f"s;{2 * HOUR};{6 * HOUR};0")
        assert judged(journal, now + 2 * HOUR)[0] == WARNING
        level, text, _ = judged(journal, now + DAY + 60)
        assert (level, "has not run for a day (`outbox deliver`)" in text) == (CRITICAL, True)

    def test_refused_and_left_out(self, journal: Journal) -> None:
        """Refused messages, and rows that were left out, are warnings."""
        put(journal, run(time.time(), warnings=3), waiting=1, refused="no queue")
        level, text, perfdata = judged(journal, time.time())
        assert (level, perfdata["outbox_refused"], perfdata["left_out"]) == (WARNING, "1;;;0", "3;;;0")
        assert "1 message was refused by the broker (`outbox list`)" in text
        assert "3 rows or items were left out in the last run" in text

    def test_moved_aside(self, journal: Journal) -> None:
        """A corrupt journal is a warning until it is removed; its hot journal does not count."""
        put(journal, run(START))
        for name in (".broken-1-a", ".broken-1-a-journal"):
            Path(f"{journal.path}{name}").touch()
        level, text, perfdata = judged(journal, START + 60)
        assert (level, perfdata["broken_journals"]) == (WARNING, "1;;;0")
        assert text.startswith("1 broken journal was moved aside")

    def test_clock(self, journal: Journal) -> None:
        """A run of the future is a warning, and gives no negative age; a clock may be five minutes ahead."""
        put(journal, run(START + HOUR))
        level, text, perfdata = judged(journal, START)
        assert (level, text.startswith("the last run is dated more than five minutes")) == (WARNING, True)
        assert perfdata["last_good"].startswith("0s;")
        assert judged(journal, START + HOUR - 290)[0] == OK


class TestStatus:
    """The command."""

    def test_line(self, host: Host) -> None:
        """One line with performance data; the code is the level."""
        assert host("status") == (UNKNOWN, host("status").out, "")
        assert host("status").out.startswith("UNKNOWN - no run is recorded | failed=0;;;0 outbox_waiting=0")
        assert not (host.directory / "cache").exists()
        host.down.touch()
        host()
        done = host("status")
        assert (done.code, done.out.count("\n"), done.out.count("|")) == (CRITICAL, 1, 1)
        assert done.out.startswith(
            "CRITICAL - no run has ended well; 1 run failed: the broker is down; 2 messages"
        )

    def test_limits(self, host: Host) -> None:
        """Options override the configuration."""
        host()
        host.configure("[monitoring]\nexpect_every = 1m")
        assert host("status").code == OK
        assert host("status", "--warning", "0").code == WARNING
        assert host("status", "--critical", "0", "--warning", "0").code == CRITICAL
        done = host("status", "--warning", "6h", "--critical", "2h")
        assert (done.code, done.out) == (UNKNOWN, "UNKNOWN - --warning must not be more than --critical\n")

    def test_configuration(self, host: Host) -> None:
        """What cannot be looked at is unknown, in one line on standard output."""
        host.config.write_text("[sample]\nsource = a|b\n")
        done = host("status")
        assert (done.code, done.out.count("\n"), "|" in done.out, done.err) == (UNKNOWN, 1, False, "")
        assert "cache_dir" in done.out


class TestMetrics:
    """The file for Prometheus, read back by its own parser."""

    def values(self, directory: Path) -> dict[str, float]:
        (file,) = directory.glob("*.prom")
        assert file.name == "n6_my-provider.lines.SampleCollector.prom"
        assert file.stat().st_mode & 0o777 == 0o644
        values = {}
        for family in text_string_to_metric_families(file.read_text()):
            (sample,) = family.samples
            assert sample.labels == {"source": "my-provider.lines", "collector": "SampleCollector"}
            assert (family.type, bool(family.documentation)) == ("gauge", True)
            values[sample.name.removeprefix("n6_collector_")] = sample.value
        return values

    def test_values(self, journal: Journal, tmp_path: Path) -> None:
        """The last run, the last good one, the last with new data, and the outbox."""
        put(
            journal, run(START, messages=5), run(START + 60), run(START + 120, 69, 2, last_new_data=START + 5)
        )
        write_metrics(tmp_path, journal)
        values = self.values(tmp_path)
        assert values == {
            "last_run_timestamp_seconds": START + 125,
            "last_run_exit_code": 69,
            "last_run_duration_seconds": 5,
            "last_run_messages": 2,
            "last_success_timestamp_seconds": START + 65,
            "last_new_data_timestamp_seconds": START + 5,
            "failed_runs": 1,
            "first_run_timestamp_seconds": START,
            "broken_journals": 0,
            "outbox_waiting_messages": 0,
            "outbox_refused_messages": 0,
        }
        put(journal, run(START + 180, None), waiting=2, refused="x")
        write_metrics(tmp_path, journal)
        values = self.values(tmp_path)
        assert (values["last_run_exit_code"], values["outbox_waiting_messages"]) == (-1, 2)
        assert values["outbox_oldest_timestamp_seconds"] == journal.backlog().oldest

    def test_runs(self, host: Host, tmp_path: Path) -> None:
        """Each run replaces the file, a failed one too; one that was refused by another run does not."""
        host.configure(f"[monitoring]\ntextfile_dir = {tmp_path}")
        host()
        good = self.values(tmp_path)
        assert (good["last_run_exit_code"], good["last_run_messages"]) == (0, 2)
        journal = host.journal
        journal.lock()
        assert host().code == 75
        journal.unlock()
        assert self.values(tmp_path) == good
        host.collect(":source")
        assert self.values(tmp_path)["failed_runs"] == 1

    @pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Debian's package prometheus")
    def test_conventions(self, journal: Journal, tmp_path: Path) -> None:
        """Prometheus' own linter accepts names, units and texts."""
        put(journal, run(START), waiting=1)
        write_metrics(tmp_path, journal)
        (file,) = tmp_path.glob("*.prom")
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=file.read_text(), capture_output=True, text=True
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


class TestRuns:
    """The command `runs`."""

    def test_table(self, host: Host) -> None:
        """A line a run under a header, the newest first; `--last` and `--since` choose."""
        assert host("runs").out == f"{HEADER}\n"
        host()
        host.collect(":source gone")
        header, last, first = host("runs").out.splitlines()
        assert header == HEADER
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d\.\d +66 +0 +0 +0 +1  :source gone", last)
        assert re.search(r" 0 +2 +6 +0 +1$", first)
        assert host("runs", "--last", "1").out.splitlines() == [HEADER, last]
        assert len(host("runs", "--since", "1d").out.splitlines()) == 3

    def test_json(self, host: Host) -> None:
        """An object a line for programs."""
        assert host("runs", "--json").out == ""
        host()
        host.collect(":code")
        found = [json.loads(line) for line in host("runs", "--json").out.splitlines()]
        assert [record["outcome"] for record in found] == ["failed", "ok"]

    def test_line(self) -> None:
        """The columns stand under their names."""
        line = as_line(run(START, 69, 1234, "no broker", state_after=7, waiting=3))
        for name, value in {
            "SECONDS": "5.0",
            "EXIT": "69",
            "MESSAGES": "1,234",
            "WAITING": "3",
            "STATE": "7",
        }.items():
            assert line[: HEADER.index(name) + len(name)].endswith(f" {value}")
        assert line.index("no broker") == HEADER.index("NEWEST")
        assert as_line(run(START, None)).endswith("in progress")

    @pytest.mark.parametrize("kind", ["svg", "png"])
    def test_plot(self, kind: str, host: Host) -> None:
        """`--plot` draws them, and says where the file is."""
        host()
        file = host.directory / f"runs.{kind}"
        assert host("runs", "--plot", str(file)) == (0, f"the runs are drawn in {file}\n", "")
        assert file.stat().st_size > 5000
        done = host("runs", "--plot", str(host.directory / "runs.xyz"))
        assert (done.code, "runs.xyz: cannot be written" in done.err) == (78, True)

    def test_drawn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Good runs stand where they began, as high as their messages, and failures on the axis."""
        from matplotlib import figure

        drawn: list[Any] = []
        monkeypatch.setattr(figure.Figure, "savefig", lambda self, *args, **kwargs: drawn.append(self))
        found = [run(START, 0, 5), run(START + 60, 69), run(START + 7 * DAY, 0, 7)]
        plot(found, "a title", START + 14 * DAY, tmp_path / "runs.svg")
        (axes,) = drawn[0].axes
        times = [datetime.fromtimestamp(record["start"], UTC) for record in found]
        points = [
            list(zip(line.get_xdata(orig=True), line.get_ydata(), strict=True)) for line in axes.get_lines()
        ]
        assert points == [[(times[0], 5), (times[2], 7)], [(times[1], 0)]]
        left, right = axes.get_xlim()
        assert 14 < right - left < 15  # days


class TestHost:
    """`python -m n6_stateful.health DIR...`."""

    def collector(self, directory: Path, name: str, *runs: dict[str, Any], waiting: int = 0) -> Journal:
        journal = configured_journal(DEFAULTS, directory / f"{name}.sqlite")
        put(journal, *runs, waiting=waiting)
        journal.unlock()
        return journal

    def test_table(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A line a collector, the worst first, with the code of the worst."""
        now = time.time()
        one, two = tmp_path / "one", tmp_path / "two"
        self.collector(one, "a.good.Feed", run(now - 60, messages=3))
        (one / "a.good.Feed.pickle").touch()
        self.collector(one, "a.failing.Feed", run(now - 600), run(now - 60, 66, error="the source is gone"))
        self.collector(two, "a.daily.Feed", run(now - 30 * HOUR, expect_every="1d"))
        self.collector(two, "a.forgotten.Feed", run(now - 2 * DAY, last_new_data=None), waiting=4)
        (two / "other.sqlite").write_bytes(b"garbage" * 1000)
        assert main([str(one), str(two)]) == UNKNOWN
        header, *lines = capsys.readouterr().out.splitlines()
        assert header.split()[:2] == ["STATUS", "COLLECTOR"]
        assert [line.split()[:2] for line in lines] == [
            ["UNKNOWN", "other"],
            ["CRITICAL", "a.forgotten.Feed"],
            ["WARNING", "a.failing.Feed"],
            ["OK", "a.daily.Feed"],
            ["OK", "a.good.Feed"],
        ]
        assert re.search(r" 55 s +55 s +\d+ s +0 +0  ", lines[4])
        assert lines[2].endswith("the source is gone")
        assert re.search(r" 47 h +- +- +4 +0 .*has not run for a day", lines[1])

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """`--json` gives an object a line; the program changes nothing."""
        now = time.time()
        journal = self.collector(tmp_path, "a.good.Feed", run(now - 60, messages=3))
        before = journal.path.read_bytes()
        process = subprocess.run(
            [sys.executable, "-m", "n6_stateful.health", tmp_path, "--json"], capture_output=True, text=True
        )
        assert (process.returncode, process.stderr, journal.path.read_bytes()) == (OK, "", before)
        about = json.loads(process.stdout)
        assert about == {
            "name": "a.good.Feed", "status": "OK", "text": about["text"], "last_run": now - 60,
            "last_good": now - 55, "last_new_data": now - 55, "waiting": 0, "refused": 0, "state_file": None,
            "last_error": "",
        }  # fmt: skip
        assert main([str(tmp_path / "none")]) == UNKNOWN


class TestTexts:
    """Texts as they go into a record."""

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("first\nsecond", "first"),
            ("a\tb\x1b[31mc", r"a\tb\x1b[31mc"),
            ("see https://user:hunter2@host/feed?key=1", "see https://user:***@host/feed?***"),
            ("x" * 500, "x" * 197 + "..."),
        ],
    )
    def test_one_line(self, text: str, line: str) -> None:
        """One line, not too long, no control characters, no secrets."""
        assert one_line(text) == line

    def test_size(self) -> None:
        """Sizes are rounded."""
        sizes = [data_size(size) for size in (0, 1, 999, 12_345, 2_600_000, 5_000_000_000_000)]
        assert sizes == ["0 bytes", "1 byte", "999 bytes", "12 kB", "3 MB", "5,000 GB"]
