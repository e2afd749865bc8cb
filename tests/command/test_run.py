"""`run` and `check`: what they print, record and exit with."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from n6_stateful import AbstractBaseCollector, __version__, progress
from tests.command.conftest import Host, SampleCollector
from tests.journal.conftest import make_database as make_database  # the fixture


class TestClosingLine:
    """The one line of a good run."""

    def test_delivered(self, host: Host) -> None:
        """It says what was collected, delivered and saved."""
        done = host()
        line = r"collected 2 messages \(6 bytes\), delivered 2, 0 waiting; state 1; \d\.\d s\n"
        assert re.fullmatch(line, done.out)
        assert (done.code, done.err, host.delivered) == (0, "", ["one", "two"])
        line = "collected 1 message (12 kB), delivered 1, 0 waiting; state 2;"
        assert host.collect("x" * 12_000).out.startswith(line)
        assert host().out.startswith("collected 0 messages, delivered 0, 0 waiting; state 3;")

    def test_leftovers(self, host: Host) -> None:
        """With a broker that was down it says what waits, then that all of it was delivered."""
        host.down.touch()
        done = host()
        line = "collected 2 messages (6 bytes), delivered 0, 2 waiting; state 1;"
        assert (done.code, done.out[: len(line)]) == (69, line)
        assert done.err == "n6collector_sample: error: the broker is down; 2 messages wait\n"
        host.down.unlink()
        line = "collected 1 message (5 bytes), delivered 3, 0 waiting; state 2;"
        assert host.collect("three").out.startswith(line)
        assert host.delivered == ["one", "two", "three"]

    def test_others(self, host: Host) -> None:
        """It says what waits where the outbox is the destination, and of any class how long it took."""
        line = "collected 2 messages (6 bytes), 2 waiting in the outbox; state 1;"
        assert host("--output", "outbox:").out.startswith(line)

        class Plain(AbstractBaseCollector):
            def run(self) -> None:
                """Do nothing."""

        host.collector = Plain  # type: ignore[assignment]
        assert re.fullmatch(r"\d\.\d s\n", host().out)


class TestDryRun:
    """`run --dry-run`."""

    def test_shows(self, host: Host) -> None:
        """It shows messages, at most `--limit`, and neither needs an output nor makes anything."""
        host.config.write_text(host.config.read_text().partition("[output]")[0])
        done = host("--dry-run", "--limit", "1")
        assert done.code == 0
        assert ("raw my-provider.lines (3 bytes)\n" in done.out, "  | one\n" in done.out) == (True, True)
        assert "| two" not in done.out
        assert "\nwould have collected 2 messages (6 bytes); state none, unchanged;" in done.out
        assert not (host.directory / "cache").exists()

    def test_reader_gone(self, host: Host) -> None:
        """Nobody has to read all of what is printed; there is no traceback."""
        host.feed.write_text("".join(f"{'x' * 100} {number}\n" for number in range(5_000)))
        with host.process("--dry-run", "--log-level", "error") as process:
            assert process.stdout
            assert process.stderr
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode == 0


class TestFailures:
    """How a run ends that fails."""

    @pytest.mark.parametrize(
        ("line", "code", "text"),
        [
            (":source https://u:hunter2@h/x?key=hunter2", 66, ":source https://u:***@h/x?***"),
            (":code", 1, "the collector's own code failed (ValueError in tests.command.conftest, line "),
            (":interrupted", 130, "interrupted; the next run goes on from the last saved state"),
        ],
    )
    def test_one_line(self, line: str, code: int, text: str, host: Host) -> None:
        """There is one line without secrets, and the same in the record; nothing was saved."""
        host.feed.write_text("")
        done = host.collect("one", line)
        assert (done.code, done.out, done.err.count("\n"), "hunter2" in done.err) == (code, "", 1, False)
        assert done.err.startswith(f"n6collector_sample: error: {text}")
        assert (host.delivered, host.journal.generations()) == ([], [])
        record = host.last_run
        assert (record["exit_code"], record["messages"], record["last_new_data"]) == (code, 1, None)
        assert record["error"] == done.err.removeprefix("n6collector_sample: error: ").rstrip()

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_signal(self, number: signal.Signals, code: int, host: Host) -> None:
        """A process that is interrupted in the middle ends at once, saves nothing, and is recorded."""
        host.feed.unlink()
        os.mkfifo(host.feed)  # the collector waits until somebody writes
        with host.process() as process:
            writer = os.open(host.feed, os.O_WRONLY)
            process.send_signal(number)
            out, err = process.communicate()
            os.close(writer)
        assert (process.returncode, out, "Traceback" in err) == (code, "", False)
        assert (host.last_run["outcome"], host.journal.generations()) == ("interrupted", [])

    def test_swallowed(self, host: Host) -> None:
        """A signal that the collector swallows ends the run all the same."""

        class Deaf(SampleCollector):
            def run_handling(self) -> None:
                with suppress(BaseException):
                    os.kill(os.getpid(), signal.SIGTERM)

        host.collector = Deaf
        assert host().code == 143

    def test_json_log(self, host: Host) -> None:
        """With `--log-format json` standard error is one object a line, the error among them."""
        host.feed.write_text(":code https://u:hunter2@h/x\n")
        with host.process("--log-format", "json") as process:
            _, err = process.communicate()
        first, *_, traceback, error = map(json.loads, err.splitlines())
        assert {*first} == {"timestamp", "levelname", "name", "message"}
        assert ("Traceback" in traceback["exc_info"], error["exit_code"]) == (True, 1)
        assert "hunter2" not in err

    def test_another_run(self, host: Host) -> None:
        """A second run ends with 75, names the first one even with `--quiet-repeats`, and is not recorded."""
        host()
        before, journal = host.last_run, host.journal
        journal.lock()
        done = host("--quiet-repeats")
        assert (done.code, f"process {os.getpid()}" in done.err) == (75, True)
        assert journal.runs(1) == [before]
        journal.unlock()


class TestRecord:
    """What a run leaves for `runs` and `status`."""

    def test_good(self, host: Host) -> None:
        """A good run is recorded with all that it did, and nothing that it published."""
        before = time.time()
        host()
        record = host.last_run
        assert before - 0.001 <= record.pop("start") <= record.pop("end") <= time.time()
        assert record.pop("first_run") == record.pop("printed") <= record.pop("last_new_data")
        assert (record.pop("host"), record.pop("pid")) == (os.uname().nodename, os.getpid())
        assert record == {
            "exit_code": 0, "outcome": "ok", "messages": 2, "bytes": 6, "delivered": 2, "waiting": 0,
            "refused": 0, "state_before": 0, "state_after": 1, "newest": "", "warnings": 0, "error": "",
            "log": ["there is no state yet: beginning with the default state"],
            "locked": True, "expect_every": "", "version": __version__,
        }  # fmt: skip

    def test_does_not_fail_a_run(self, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """What cannot be recorded is a warning."""

        class Shy(SampleCollector):
            def describe_state(self) -> str:
                raise ValueError("no idea")

        host.collector = Shy
        host.configure("[monitoring]\ntextfile_dir = /no/such/directory")
        assert host().code == 0
        assert "describe_state() failed: ValueError: no idea" in caplog.text
        assert "/no/such/directory" in caplog.text
        assert host.last_run["outcome"] == "ok"


class TestQuietRepeats:
    """`run --quiet-repeats`, as cron calls it: what goes to standard error."""

    @pytest.fixture(autouse=True)
    def own_log(self) -> Iterator[None]:
        """A log as a process has it, without pytest's handlers."""
        root = logging.getLogger()
        before = root.handlers
        yield
        root.handlers = before

    def run(self, host: Host) -> str:
        logging.getLogger().handlers = []
        return host("--quiet-repeats", "--log-level", "warning").err

    def test_when_it_changes(self, host: Host) -> None:
        """Errors and warnings are printed when the outcome changes; the records have them all."""
        assert "WARNING n6_stateful.state: there is no state yet" in self.run(host)
        assert self.run(host) == ""
        host.collect(":source 17")
        host.feed.write_text(host.feed.read_text().replace("17", "18"))
        assert self.run(host) == ""
        assert host.last_run["error"] == ":source 18"
        host.feed.write_text(host.feed.read_text().replace(":source", ":code"))
        assert "Traceback" in self.run(host)
        assert self.run(host) == ""

    def test_once_a_day(self, host: Host) -> None:
        """The same outcome is printed again after a day."""
        host.feed.write_text(":source\n")
        assert ":source" in self.run(host)
        record, journal = host.last_run, host.journal
        journal.put_run(record["start"], record | {"printed": record["printed"] - 86_400})
        journal.unlock()
        assert ":source" in self.run(host)
        assert self.run(host) == ""


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of progress is written to a terminal, changes in place, and goes away; else there is none."""
    monkeypatch.setattr(progress, "FIRST_AFTER_SECONDS", 0)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0)
    main, terminal = pty.openpty()
    for stream in (os.fdopen(terminal, "w"), Path(os.devnull).open("w")):  # noqa: SIM115
        with stream:
            monkeypatch.setattr("sys.stderr", stream)
            line = progress.Progress("delivering")
            line.show("5 of 10")
            line.show("9 of 10")
            line.end()
    expected = b"\r\x1b[Kdelivering 5 of 10 ...\r\x1b[Kdelivering 9 of 10 ...\r\x1b[K"
    shown = b""
    while len(shown) < len(expected):
        shown += os.read(main, 1000)
    os.close(main)
    assert shown == expected


class TestCheck:
    """`check`."""

    def check(self, host: Host) -> tuple[int, dict[str, str]]:
        done = host("check", "--output", "outbox:")
        return done.code, dict(line.split(": ", 1) for line in done.out.splitlines())

    def test_all(self, host: Host) -> None:
        """It tries everything but the source, says so, and makes nothing."""
        before = sorted(host.directory.rglob("*"))
        code, lines = self.check(host)
        assert sorted(host.directory.rglob("*")) == before
        assert (code, [*lines]) == (0, ["configuration", "state", "output", "metrics", "source"])
        assert lines["state"].startswith(f"ok, none yet; the first run makes {host.directory}/cache/")
        assert lines["source"] == "not asked; `run --dry-run` does"
        host()
        assert self.check(host)[1]["state"].startswith("ok, number 1 of 20")

    @pytest.mark.parametrize("option", ["textfile_dir = /no/such", "expect_every = often"])
    def test_metrics(self, option: str, host: Host) -> None:
        """It tries the metrics and goes on; the code is that of the first failure."""
        host.configure(f"[monitoring]\n{option}")
        code, lines = self.check(host)
        assert (code, option in lines["metrics"], "source" in lines) == (78, True, True)

    def test_broken_state(self, host: Host) -> None:
        """It reports a damaged state file, and leaves it."""
        (host.directory / "cache").mkdir(0o700)
        file = host.directory / "cache/my-provider.lines.SampleCollector.pickle"
        file.write_bytes(b"garbage")
        code, lines = self.check(host)
        assert (code, str(file) in lines["state"], file.read_bytes()) == (74, True, b"garbage")

    def test_left_behind(self, host: Host, make_database: Callable[[str], str]) -> None:
        """Where a database has no state, but `cache_dir` has one, it reports what the run would end with."""
        host()
        host.configure(f"[journal]\nurl = {make_database('postgresql')}")
        code, lines = self.check(host)
        assert (code, "run `state import " in lines["state"]) == (74, True)
        assert host().err == f"n6collector_sample: error: {lines['state']}\n"

    def test_configuration(self, host: Host) -> None:
        """A wrong configuration is one error that names all problems."""
        host.config.write_text("[sample]\nfeeed = /x\n[output]\nurll = x\n")
        done = host("check")
        names = ("source", "cache_dir", "feeed", "urll")
        assert (done.code, [name for name in names if name not in done.err]) == (78, [])
