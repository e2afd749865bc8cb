"""What the records of runs show about a collector: `status`, metrics, `runs`, and the view over a host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from n6_stateful import health
from n6_stateful.command.runs import HEADER
from n6_stateful.health import CRITICAL, OK, UNKNOWN, WARNING, Health, Limits, judge, main
from n6_stateful.journal import DEFAULTS, Journal, configured_journal
from n6_stateful.message import Message
from tests.command.conftest import Host
from tests.command.conftest import host as host  # the fixture

HOUR, DAY = 3600, 86_400
NOW = 1_700_000_000.0
USUAL, DAILY = Limits(), Limits.expecting("1d")


def run(ago: float, exit_code: int | None = 0, **others: Any) -> dict[str, Any]:
    """The record of a run that ended so long ago, having begun five seconds earlier."""
    outcome = {0: "ok", None: "in progress"}.get(exit_code, "failed")
    record = {"start": NOW - ago - 5, "end": NOW - ago, "exit_code": exit_code, "outcome": outcome, "pid": 1}
    record |= {"end": None} if exit_code is None else {}
    return record | {"last_new_data": NOW - ago, "locked": True, "host": "gone", "error": ""} | others


def put(journal: Journal, *runs: dict[str, Any], waiting: int = 0, refused: bool = False) -> None:
    for record in runs:
        journal.put_run(record["start"], record)
    for number in range(waiting):
        journal.put(Message("raw", "a.b", b"x", {"message_id": str(number)}))
    journal.commit()
    journal.refuse({1: "no queue"} if refused else {})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal as runs leave it."""
    journal = configured_journal(DEFAULTS, tmp_path / "cache/my-provider.lines.SampleCollector.sqlite")
    yield journal
    journal.unlock()


class TestJudge:
    """Which level, and which text comes first."""

    @pytest.mark.parametrize(
        ("level", "text", "runs", "limits"),
        [
            (UNKNOWN, "no run is recorded", [], USUAL),
            (OK, "last good run 60 s ago; last new data 60 s ago", [run(60)], USUAL),
            (OK, "last good run 119 min ago", [run(2 * HOUR - 1)], USUAL),
            (WARNING, "last good run 2 h ago", [run(2 * HOUR)], USUAL),
            (CRITICAL, "last good run 6 h ago", [run(6 * HOUR)], USUAL),
            (WARNING, "last good run 2 days ago", [run(2 * DAY)], DAILY),
            (CRITICAL, "no run has succeeded yet; 2 runs failed in a row: a / b",
             [run(90, 66), run(60, 69, error="a | b")], USUAL),
            (WARNING, "1 run failed: x; last good run 2 min ago", [run(120), run(60, 66, error="x")], USUAL),
            (OK, "last good run 60 s ago", [run(120, 66), run(60)], USUAL),
            (WARNING, "1 run failed: did not end: it was killed", [run(120), run(60, None)], USUAL),
            (CRITICAL, "no run has succeeded yet; 1 run failed: did", [run(HOUR, None, locked=False)], USUAL),
            (OK, "a run has been in progress for 65 s", [run(60, None, locked=False)], USUAL),
            (WARNING, "last new data 7 days ago", [run(60, last_new_data=NOW - 7 * DAY)], USUAL),
            (WARNING, "no new data since the first run, 8 days ago",
             [run(60, last_new_data=None, first_run=NOW - 8 * DAY)], USUAL),
            (WARNING, "3 rows or items were left out in the last run", [run(60, warnings=3)], USUAL),
            (WARNING, "the last run is dated more than five minutes in the future", [run(-HOUR)], USUAL),
            (OK, "last good run 0 s ago", [run(-299)], USUAL),
        ],
    )  # fmt: skip
    def test_runs(
        self, level: int, text: str, runs: list[dict[str, Any]], limits: Limits, journal: Journal
    ) -> None:
        """The age of the last good run and of new data decide, failures since, and other problems."""
        put(journal, *runs)
        check = judge(Health.read(journal, NOW), limits)
        assert (check.level, check.text[: len(text)], "|" in check.text) == (level, text, False)

    def test_in_progress(self, journal: Journal) -> None:
        """A run that has not ended and holds the lock is in progress; the limits apply to it, too."""
        journal.lock()
        put(journal, run(7 * HOUR), run(6 * HOUR, None, host=os.uname().nodename, pid=os.getpid()))
        levels = [judge(Health.read(journal, NOW - ago), USUAL).level for ago in (5.9 * HOUR, 4 * HOUR, 0)]
        assert levels == [OK, WARNING, CRITICAL]

    def test_outbox(self, journal: Journal) -> None:
        """Messages must not wait longer than the limits, nor be refused, nor left alone for a day; a corrupt
        journal is a warning until it is removed."""

        def after(ago: float, limits: Limits) -> health.Check:
            return judge(Health.read(journal, now + ago), limits)

        now = time.time()
        put(journal, run(NOW - now), waiting=2, refused=True)
        level, text, perfdata = after(0, USUAL)
        assert (level, text[:35]) == (WARNING, "1 message was refused by the broker")
        assert "2 messages wait in the outbox, since 0 s" in text
        assert {"outbox_waiting=2;;;0", "outbox_refused=1;;;0"} < {*perfdata.split()}
        assert after(6 * HOUR, DAILY).level == WARNING
        level, text, _ = after(7 * DAY, DAILY)
        assert (level, "has not run for a day (`outbox deliver`)" in text) == (CRITICAL, True)

        for name in (".broken-1-a", ".broken-1-a-journal"):
            Path(f"{journal.path}{name}").touch()
        assert "; 1 broken journal was moved aside (`state show`)" in after(0, USUAL).text


def test_status(host: Host) -> None:
    """One line with performance data; the code is the level; nothing is made."""
    done = host("status")
    assert done.out.startswith("UNKNOWN - no run is recorded | failed=0;;;0 outbox_waiting=0;;;0")
    assert (done.code, (host.directory / "cache").exists()) == (UNKNOWN, False)
    host.down.touch()
    host()
    done = host("status")
    assert (done.code, done.out.count("\n"), done.out.count("|")) == (CRITICAL, 1, 1)
    assert done.out.startswith("CRITICAL - no run has succeeded yet; 1 run failed: the broker is down; 2 m")
    host("run", "--output", "outbox:")  # where messages are to stay, they are not a problem
    done = host("status")
    assert (done.code, "outbox_waiting=2" in done.out, "in the outbox" in done.out) == (OK, True, False)


def test_status_limits(host: Host) -> None:
    """Options override `expect_every`; what is wrong is UNKNOWN, in one line."""
    host.configure("[sample]\nexpect_every = 1m")
    host()
    options = ("", "--warning 0", "--warning=0 --critical=0")
    assert [host("status", *argv.split()).code for argv in options] == [OK, WARNING, CRITICAL]
    done = host("status", "--warning", "6h", "--critical", "2h")
    assert (done.code, done.out) == (UNKNOWN, "UNKNOWN - --warning must not be more than --critical\n")
    host.config.write_text("[sample]\nsource = a|b\n")
    done = host("status")
    assert (done.code, done.out.count("\n"), "|" in done.out, done.err) == (UNKNOWN, 1, False, "")


def test_metrics(host: Host, tmp_path: Path) -> None:
    """Each run replaces the file, which Prometheus' own parser reads, a failed one too; one that ends with 75
    does not."""

    def values() -> dict[str, float]:
        (file,) = tmp_path.glob("*.prom")
        assert (file.name, file.stat().st_mode & 0o777) == (f"n6_{host.journal.name}.prom", 0o644)
        samples = {}
        for family in text_string_to_metric_families(file.read_text()):
            (sample,) = family.samples
            assert sample.labels == {"source": "my-provider.lines", "collector": "SampleCollector"}
            assert (family.type, bool(family.documentation)) == ("gauge", True)
            samples[sample.name.removeprefix("n6_collector_")] = sample.value
        return samples

    host.configure(f"[monitoring]\ntextfile_dir = {tmp_path}")
    host()
    first, good = host.last_run, values()
    assert good == {
        "last_run_timestamp_seconds": first["end"], "last_run_exit_code": 0, "last_run_messages": 2,
        "last_run_duration_seconds": first["end"] - first["start"], "failed_runs": 0, "broken_journals": 0,
        "last_success_timestamp_seconds": first["end"], "last_new_data_timestamp_seconds": first["end"],
        "first_run_timestamp_seconds": first["start"], "outbox_waiting_messages": 0,
        "outbox_refused_messages": 0,
    }  # fmt: skip
    with host.locked():
        assert (host().code, values()) == (75, good)
    host.down.touch()
    host.collect("three")
    changed = {name: value for name, value in values().items() if "seconds" not in name}
    assert (changed.pop("last_run_exit_code"), changed.pop("failed_runs")) == (69, 1)
    assert (changed.pop("outbox_waiting_messages"), changed.pop("last_run_messages")) == (1, 1)
    assert not any(changed.values())
    assert values()["outbox_oldest_timestamp_seconds"] == host.journal.backlog().oldest


def test_runs(host: Host) -> None:
    """A line a run under a header, the newest first; options choose; a record carries what is older on."""
    assert host("runs").out == f"{HEADER}\n"
    host()
    host.collect(":source gone")
    header, last, first = host("runs").out.splitlines()
    assert header == HEADER
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d\.\d +66 +0 +0 +0 +1  :source gone", last)
    assert re.search(r" 0 +2 +6 +0 +1$", first)
    assert host("runs", "--last", "1").out.splitlines() == [HEADER, last]
    assert len(host("runs", "--since", "1d").out.splitlines()) == 3
    failed, good = [json.loads(line) for line in host("runs", "--json").out.splitlines()]
    assert (failed["outcome"], good["outcome"]) == ("failed", "ok")
    assert (failed["first_run"], failed["last_new_data"]) == (good["start"], good["end"])


def test_runs_plot(host: Host) -> None:
    """`--plot` draws them, and says where the file is."""
    host()
    file = host.directory / "runs.svg"
    assert host("runs", "--plot", str(file)) == (0, f"the runs are drawn in {file}\n", "")
    assert "messages of a run" in file.read_text()
    host.fails(78, "runs.xyz: Format 'xyz' is not supported", "runs", "--plot", "runs.xyz")
    host.fails(74, "/no/such/directory", "runs", "--plot", "/no/such/directory/x.svg")


class TestHost:
    """`python -m n6_stateful.health DIR...`."""

    def collector(self, directory: Path, name: str, *runs: dict[str, Any], waiting: int = 0) -> Journal:
        journal = configured_journal(DEFAULTS, directory / f"{name}.sqlite")
        shift = time.time() - NOW
        for record in runs:
            record["start"] += shift
            record["end"] += shift
        put(journal, *runs, waiting=waiting)
        journal.unlock()
        return journal

    def test_table(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A line a collector, or an object, the worst first, with its exit code; nothing is changed, not
        even by SQLite."""
        one, two = tmp_path / "one", tmp_path / "two"
        none: dict[str, Any] = {"last_new_data": None}
        self.collector(one, "a.good.Feed", run(60, last_new_data=time.time()))
        (one / "a.good.Feed.pickle").touch()
        self.collector(one, "a.failing.Feed", run(600, **none), run(60, 66, error="it is gone", **none))
        self.collector(two, "a.daily.Feed", run(30 * HOUR, expect_every="1d", **none))
        self.collector(two, "a.forgotten.Feed", run(2 * DAY, **none), waiting=4)
        (two / "other.sqlite").write_bytes(b"garbage" * 1000)
        before = [path.read_bytes() for path in sorted(tmp_path.glob("*/*.sqlite"))]
        assert main([str(one), str(two)]) == UNKNOWN
        header, *lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:2] for line in lines] == [
            ["UNKNOWN", "other"], ["CRITICAL", "a.forgotten.Feed"], ["WARNING", "a.failing.Feed"],
            ["OK", "a.daily.Feed"], ["OK", "a.good.Feed"],
        ]  # fmt: skip
        assert header.split()[:2] == ["STATUS", "COLLECTOR"]
        assert re.search(r" 2 days +- +- +4 +0 .*has not run for a day", lines[1])
        assert lines[2].endswith("it is gone")
        assert re.search(r" 60 s +0 s +\d+ s +0 +0  ", lines[4])
        argv = [sys.executable, "-m", "n6_stateful.health", str(one), "--json"]
        process = subprocess.run(argv, capture_output=True, text=True)
        keys = "name status text last_run last_good last_new_data waiting refused state_file last_error"
        assert (process.returncode, process.stderr) == (WARNING, "")
        assert [{*json.loads(line)} for line in process.stdout.splitlines()] == [{*keys.split()}] * 2
        assert [path.read_bytes() for path in sorted(tmp_path.glob("*/*.sqlite"))] == before
        assert main([str(tmp_path / "none")]) == UNKNOWN


def test_texts() -> None:
    """A text is one line, not too long, without control characters and secrets; sizes are rounded."""
    url = "see https://user:hunter2@host/feed?key=1"
    lines = [health.one_line(text) for text in ("first\nsecond", "a\tb\x1b[31mc", url, "x" * 500)]
    assert lines == ["first", r"a\tb\x1b[31mc", "see https://user:***@host/feed?***", "x" * 197 + "..."]
    sizes = [health.data_size(size) for size in (0, 1, 999, 12_345, 2_600_000, 5_000_000_000_000)]
    assert sizes == ["0 bytes", "1 byte", "999 bytes", "12 kB", "3 MB", "5,000 GB"]
