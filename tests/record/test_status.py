"""`status`: what a monitoring system is told, by the records and the time."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from n6_stateful import settings
from n6_stateful.command.status import CRITICAL, IN_FUTURE, OK, UNKNOWN, WARNING, judge
from n6_stateful.record.history import FileHistory
from n6_stateful.record.run import RunRecord
from n6_stateful.state.file import FileStore
from tests.record import watched_collector
from tests.record.conftest import NAME, Host
from tests.record.test_history import record
from tests.record.test_metrics import PAGE
from tests.record.watched_collector import WatchedCollector

HOUR, DAY = 3600, 86_400
LIMITS = Namespace(warning=2 * HOUR, critical=6 * HOUR, no_data=7 * DAY)
Judge = Callable[..., tuple[int, str]]


@pytest.fixture
def judged(host: Host) -> Iterator[Judge]:
    """The verdict so many seconds after the end of the last of these runs."""

    def judged(*runs: RunRecord, after: float = 60) -> tuple[int, str]:
        for each in runs:
            FileHistory(host.cache / NAME, 1000).put(each)
        found = FileHistory(host.cache / NAME, 1000).records()
        return judge(WatchedCollector(), LIMITS, max([each.heard for each in found] or [DAY]) + after)

    with settings.use(settings.Settings(config_paths=(str(host.config),))):
        yield judged


class TestAge:
    """The last good run, and the last new data."""

    def test_never_new_data_for_longer_than_the_history(self, judged: Judge) -> None:
        """Nor is that forgotten by a collector that has run more often than is recorded."""
        runs = [record(5 * number) for number in range(1, 2500)]
        level, text = judged(*runs)
        assert (level, "no new data since the first run that is recorded, 8 days ago" in text) == (
            WARNING,
            True,
        )

    @pytest.mark.parametrize(
        ("age", "level", "told"),
        [
            (60, OK, "last good run 60 s ago"),
            (2 * HOUR - 1, OK, "last good run 119 min ago"),
            (2 * HOUR, WARNING, "last good run 2 h ago"),
            (6 * HOUR - 1, WARNING, "last good run 5 h ago"),
            (6 * HOUR, CRITICAL, "last good run 6 h ago"),
            (7 * DAY, CRITICAL, "last good run 7 days ago"),
        ],
    )
    def test_good_run(self, age: int, level: int, told: str, judged: Judge) -> None:
        """The age of the last good run decides; a week of silence is critical."""
        found, text = judged(record(1, 0, 5), after=age)
        assert (found, text.startswith(told)) == (level, True), text

    def test_no_new_data(self, judged: Judge) -> None:
        """A collector that runs well, and has brought nothing for a week, is a warning."""
        week = record(7 * 24 * 60)
        assert judged(record(1, 0, 5), week, after=59)[0] == OK
        level, text = judged()
        assert (level, text.startswith("last new data 7 days ago; last good run 60 s ago")) == (WARNING, True)

    def test_never_new_data(self, judged: Judge) -> None:
        """So is one that has never brought anything, a week after its first run."""
        assert judged(record(1), record(7 * 24 * 60), after=59)[0] == OK
        level, text = judged()
        expected = "no new data since the first run that is recorded, 7 days ago; last good run 60 s ago"
        assert (level, text.startswith(expected)) == (WARNING, True)

    def test_silent_for_longer_than_the_history(self, host: Host, judged: Judge) -> None:
        """Nor is a silence hidden by all the runs that are recorded since."""
        judged(record(1, 0, 5))
        judged(*(record(number) for number in range(2, 2500)))
        level, text = judge(WatchedCollector(), LIMITS, record(2500).start + 7 * DAY)
        assert (level, "last new data 8 days ago" in text) == (CRITICAL, True)

    def test_never_run(self, judged: Judge) -> None:
        """Before the first run nothing is known; a run that was turned away says nothing either."""
        assert judged() == (UNKNOWN, "no run is recorded")
        assert judged(record(1, 75)) == (UNKNOWN, "no run is recorded")

    def test_never_good(self, judged: Judge) -> None:
        """Runs that have all failed are critical, and the last error is told."""
        level, text = judged(record(1, 69, error="no broker"), record(2, 66, error="the source is down"))
        assert level == CRITICAL
        assert text.startswith("no run has ended well; 2 runs failed in a row: the source is down |")

    def test_failed_since(self, judged: Judge) -> None:
        """A failure after a good run is a warning at once, and over with the next good one."""
        level, text = judged(record(1, 0), record(2, 69, error="no broker"))
        assert (level, text.startswith("1 run failed: no broker; last good")) == (WARNING, True)
        assert judged(record(3, 0))[0] == OK

    def test_killed(self, judged: Judge) -> None:
        """A run that was killed counts as a failure."""
        level, text = judged(record(1, 0), record(2, None)._replace(error="did not end"))
        assert (level, "did not end" in text) == (WARNING, True)


class TestLine:
    """The line as plugins have it."""

    def test_performance_data(self, judged: Judge) -> None:
        """Behind a bar come the figures, with their units and limits."""
        _, text = judged(record(1, 0, 5), record(3, 0, 0), after=120)
        assert text.split(" | ")[1].split() == [
            "last_good=120s;7200;21600;0",
            "new_data=240s;604800;;0",
            "failed=0;;;0",
            "spool_waiting=0;;;0",
            "spool_refused=0;;;0",
            "broken_states=0;;;0",
        ]

    def test_one_bar(self, judged: Judge) -> None:
        """An error with a bar in it does not break the line."""
        _, text = judged(record(1, 0), record(2, 1, error="a | b"))
        assert text.count("|") == 1

    def test_clock(self, judged: Judge) -> None:
        """A clock that was put back gives no negative ages."""
        level, text = judged(record(1, 0), after=-60)
        assert (level, "last_good=0s" in text) == (OK, True)

    def test_future(self, judged: Judge) -> None:
        """A good run of the future is a warning, once, and none that was good a short time ago."""
        level, text = judged(record(1, 0, 5), after=-HOUR)
        assert (level, text.startswith(f"{IN_FUTURE} | failed=0")) == (WARNING, True), text

    def test_after_future(self, host: Host, judged: Judge) -> None:
        """Once the clock is right again the runs since decide, good or failed."""
        judged(record(1, 0, 5), record(60 * 24 * 365, 0, 5), record(2, 0, 5))
        assert judge(WatchedCollector(), LIMITS, record(3).start)[0] == OK
        judged(record(4, 69, error="no broker"))
        level, text = judge(WatchedCollector(), LIMITS, record(5).start)
        assert (level, text.startswith("1 run failed: no broker; last good")) == (WARNING, True)


class TestAround:
    """What there is beside the records, on a real machine."""

    def test_good(self, host: Host) -> None:
        """A good run, and a spool that waits to be forwarded."""
        host.collect("publish publish")
        done = host.command("status")
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(
            r"OK - last good run \d+ s ago; last new data \d+ s ago; "
            r"2 messages wait in the spool, the oldest for \d+ s \| .* spool_waiting=2;;;0 .*\n",
            done.stdout,
        )

    def test_waiting(self, host: Host) -> None:
        """A message that waits longer than the limit is a warning, or critical."""
        host.collect("publish")
        host.collect()
        assert host.command("status", "--warning", "0").returncode == CRITICAL - 1
        done = host.command("status", "--warning", "0", "--critical", "0")
        assert (done.returncode, done.stdout.startswith("CRITICAL - ")) == (CRITICAL, True)

    def test_in_progress(self, host: Host) -> None:
        """A run that holds the state for longer than the limit is told."""
        host.collect("publish")
        process = host.collect_and_wait()
        try:
            assert "; a run has been in progress for" in host.command("status").stdout
            late = host.command("status", "--warning", "0", "--critical", "0")
            assert late.returncode == CRITICAL
        finally:
            process.kill()
            process.communicate(timeout=60)
        assert "running=" not in host.command("status").stdout

    def test_not_this_process(self, host: Host) -> None:
        """A run that was killed is not in progress while a command has the lock."""
        host.collect("publish")
        killed = host.collect_and_wait()
        killed.kill()
        killed.communicate(timeout=60)
        store = FileStore(host.cache / NAME)
        store.lock()
        assert "running=" not in host.command("status").stdout
        store.unlock()

    def test_broken_state(self, host: Host) -> None:
        """A broken state that was set aside is a warning until a person has taken it away."""
        host.collect("publish")
        (host.cache / NAME).write_bytes(b"garbage")
        host.collect("publish")
        done = host.command("status")
        assert (done.returncode, "1 broken state was set aside" in done.stdout) == (WARNING, True)
        for each in host.cache.glob("*.broken-*"):
            each.unlink()
        assert host.command("status").returncode == OK

    def test_broken_spool(self, host: Host) -> None:
        """A spool that cannot be read is a warning, and hides nothing of what the runs say."""
        host.collect("publish")
        (host.directory / "spool").write_bytes(bytes(4096))
        done = host.command("status")
        assert done.returncode == WARNING
        assert re.match(r"WARNING - the spool .* not a spool.*; last good run", done.stdout)
        host.collect("publish")
        assert "; 1 run failed: the spool" in host.command("status").stdout

    def test_not_recorded(self, host: Host) -> None:
        """Records that cannot be written are a warning, since what is not recorded shows nowhere else."""
        host.collect("publish")
        file = host.cache / f"{NAME}.runs"
        if subprocess.run(["chattr", "+i", file], capture_output=True).returncode:
            pytest.skip("cannot make a file immutable here")
        try:
            done = host.command("status")
        finally:
            subprocess.run(["chattr", "-i", file], check=True)
        assert (done.returncode, "the next run cannot be recorded: " in done.stdout) == (WARNING, True)

    def test_limits(self, host: Host) -> None:
        """Limits of which the first would never be told are refused."""
        host.collect("publish")
        done = host.command("status", "--warning", "6h", "--critical", "2h")
        assert (done.returncode, done.stdout[:21]) == (UNKNOWN, "UNKNOWN - --warning m")

    def test_configuration(self, host: Host) -> None:
        """What cannot be looked at is unknown, told in one line on standard output."""
        host.config.write_text("[watched]\nsource = my-provider\n")
        done = host.command("status")
        assert done.returncode == UNKNOWN
        (line,) = done.stdout.splitlines()
        assert line.startswith("UNKNOWN - ")
        assert "is missing" in line

    def test_harmless(self, host: Host) -> None:
        """It makes nothing that was not there."""
        before = sorted(host.directory.iterdir())
        assert host.command("status").returncode == UNKNOWN
        assert sorted(host.directory.iterdir()) == before


class TestRunners:
    """Programs that run plugins."""

    @pytest.fixture
    def plugin(self, host: Host, tmp_path: Path) -> Path:
        """The command as a plugin."""
        script = tmp_path / "check_n6"
        script.write_text(
            f"#!/bin/sh\nexec {sys.executable} {watched_collector.__file__} status --config {host.config}\n"
        )
        script.chmod(0o755)
        return script

    def test_sudoers(self) -> None:
        """The lines of docs/monitoring.md for sudo admit the command lines that stand there, and no other."""
        page = PAGE.read_text().replace('", "', " ")
        used = re.findall(r'sudo -n -H -u n6 (/.*?status[^"\n]*?)"?(?: \])?$', page, re.MULTILINE)
        admitted = re.findall(r"^nagios ALL=\(n6\) NOPASSWD: (.*)$", page, re.MULTILINE)
        assert used == admitted != []
        assert page.count("sudo -") == len(used)
        assert "*" not in "".join(admitted)

    def test_negate(self, plugin: Path, host: Host) -> None:
        """`negate`, of Debian's monitoring-plugins-basic, reads state and line."""
        negate = shutil.which("negate", path="/usr/lib/nagios/plugins")
        if negate is None:
            pytest.skip("needs Debian's package monitoring-plugins-basic")
        host.collect("publish")
        done = subprocess.run(
            [negate, "-s", "--ok=CRITICAL", plugin], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout[:11]) == (CRITICAL, "CRITICAL - ")
        assert "| last_good=" in done.stdout
