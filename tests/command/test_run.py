"""`run` and `check`: what they print, record and exit with."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from n6_stateful import AbstractBaseCollector, __version__, progress
from tests.command.conftest import Host, SampleCollector


class TestClosingLine:
    """The one line of a good run."""

    def test_delivered(self, host: Host) -> None:
        """It says what was collected, delivered and saved."""
        done = host()
        assert re.fullmatch(
            r"collected 2 messages \(6 bytes\), delivered 2, 0 waiting; state 1; \d\.\d s\n", done.out
        )
        assert (done.code, done.err, host.delivered) == (0, "", ["one", "two"])
        assert host.collect("x" * 12_000).out.startswith(
            "collected 1 message (12 kB), delivered 1, 0 waiting"
        )
        assert host().out.startswith("collected 0 messages, delivered 0, 0 waiting; state 3;")

    def test_leftovers(self, host: Host) -> None:
        """With a broker that was down it says what waits, then that all of it was delivered."""
        host.down.touch()
        done = host()
        assert (done.code, "collected 2 messages (6 bytes), delivered 0, 2 waiting; state 1" in done.out) == (
            69,
            True,
        )
        assert done.err == "n6collector_sample: error: the broker is down; 2 messages wait\n"
        host.down.unlink()
        assert host.collect("three").out.startswith(
            "collected 1 message (5 bytes), delivered 3, 0 waiting; state 2"
        )
        assert host.delivered == ["one", "two", "three"]

    def test_outbox(self, host: Host) -> None:
        """With the outbox as the destination it says what waits there."""
        assert host("--output", "outbox:").out.startswith(
            "collected 2 messages (6 bytes), 2 waiting in the outbox;"
        )

    def test_other_base(self, host: Host) -> None:
        """A class of n6's that is no more than a runnable one works, too."""

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
        assert (done.code, "one" in done.out, "two" in done.out) == (0, True, False)
        assert done.out.splitlines()[-1].startswith(
            "would have collected 2 messages (6 bytes); state none, unchanged"
        )
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
    """Whose fault it is that a run failed."""

    @pytest.mark.parametrize(
        ("line", "code", "text"),
        [
            (":source https://u:hunter2@h/x?key=hunter2 gone", 66, ":source https://u:***@h/x?*** gone"),
            (":code", 1, "the collector's own code failed (ValueError in tests.command.conftest, line "),
            (":interrupted", 130, "interrupted; the next run goes on from the last saved state"),
        ],
    )
    def test_one_line(
        self, line: str, code: int, text: str, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        """There is one line without secrets; the traceback is in the log, and nothing was saved."""
        host.feed.write_text("")
        done = host.collect("one", line)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith(f"n6collector_sample: error: {text}")
        assert (done.err.count("\n"), "hunter2" in done.err) == (1, False)
        levels = [record.levelno for record in caplog.records if record.exc_info]
        assert levels == [logging.ERROR] * (code == 1)
        assert (host.delivered, host.journal.generations()) == ([], [])

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
        assert host.last_run["outcome"] == "interrupted"
        assert not host.journal.generations()

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
        *_, traceback, error = map(json.loads, err.splitlines())
        assert {"timestamp", "levelname", "name", "message", "exc_info"} == {*traceback, *error} - {
            "exit_code"
        }
        assert ("Traceback" in traceback["exc_info"], error["exit_code"], "hunter2" in err) == (
            True,
            1,
            False,
        )

    def test_another_run(self, host: Host) -> None:
        """A second run ends with 75, names the first one, and leaves no record and no metrics."""
        host()
        before = host.last_run
        journal = host.journal
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
        assert record.pop("first_run") <= record.pop("last_new_data")
        assert (record.pop("host"), record.pop("pid")) == (os.uname().nodename, os.getpid())
        assert record == {
            "exit_code": 0, "outcome": "ok", "messages": 2, "bytes": 6, "delivered": 2, "waiting": 0,
            "refused": 0, "state_before": 0, "state_after": 1, "newest": "", "warnings": 0, "error": "",
            "printed": True,
            "log": ["there is no state yet: beginning with the default state"],
            "locked": True, "expect_every": "", "version": __version__,
        }  # fmt: skip

    def test_failed(self, host: Host) -> None:
        """A failed run is recorded with its error, without secrets."""
        host.collect(":source https://u:hunter2@h/")
        record = host.last_run
        assert (record["exit_code"], record["outcome"], record["messages"]) == (66, "failed", 2)
        assert record["error"] == ":source https://u:***@h/"

    def test_does_not_fail_a_run(self, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """A record that cannot be made is a warning."""

        class Shy(SampleCollector):
            def describe_state(self) -> str:
                raise ValueError("no idea")

        host.collector = Shy
        host.configure("[monitoring]\ntextfile_dir = /no/such/directory")
        assert host().code == 0
        assert "describe_state() failed: ValueError: no idea" in caplog.text
        assert "/no/such/directory" in caplog.text
        assert host.last_run["outcome"] == "ok"


@contextmanager
def own_log() -> Iterator[None]:
    """A log as a process has it, without pytest's handlers."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = before


class TestQuietRepeats:
    """`run --quiet-repeats`, as cron calls it."""

    def run(self, host: Host) -> str:
        with own_log():
            return host("--quiet-repeats", "--log-level", "warning").err

    def test_when_it_changes(self, host: Host) -> None:
        """Errors and warnings are printed when the outcome changes; the records have them all."""
        assert "WARNING n6_stateful.state: there is no state yet" in self.run(host)
        assert self.run(host) == ""
        host.collect(":source 17")
        assert ":source 17" in host.last_run["error"]
        host.feed.write_text(host.feed.read_text().replace("17", "18"))
        assert self.run(host) == ""
        assert (host.last_run["error"], host.last_run["printed"]) == (":source 18", False)
        host.feed.write_text(host.feed.read_text().replace(":source", ":code"))
        assert "Traceback" in self.run(host)
        assert self.run(host) == ""

    def test_once_a_day(self, host: Host) -> None:
        """The same outcome is printed again after a day."""
        host.feed.write_text(":source\n")
        assert ":source" in self.run(host)
        journal = host.journal
        (record,) = journal.runs()
        (row,) = journal._select("SELECT started FROM n6_run")
        journal._execute("DELETE FROM n6_run")
        journal.put_run(row[0] - 86_400, record)
        journal.unlock()
        assert ":source" in self.run(host)
        assert self.run(host) == ""


class TestProgress:
    """The line that moves."""

    def test_terminal_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is written to a terminal, changes in place, and goes away; elsewhere there is nothing."""
        monkeypatch.setattr(progress, "FIRST_AFTER_SECONDS", 0)
        monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0)
        main, terminal = pty.openpty()
        with os.fdopen(terminal, "w") as err:
            monkeypatch.setattr("sys.stderr", err)
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

    def test_no_terminal(self, host: Host) -> None:
        """Under cron a run shows none."""
        with host.process("--log-level", "error", stderr=subprocess.PIPE) as process:
            assert process.communicate()[1] == ""


class TestCheck:
    """`check`."""

    def check(self, host: Host) -> dict[str, str]:
        done = host("check", "--output", "outbox:")
        lines = dict(line.split(": ", 1) for line in done.out.splitlines())
        return {**lines, "code": str(done.code)}

    def test_all(self, host: Host) -> None:
        """It tries everything but the source, says so, and makes nothing."""
        before = sorted(host.directory.rglob("*"))
        lines = self.check(host)
        assert sorted(host.directory.rglob("*")) == before
        assert list(lines) == ["configuration", "state", "output", "metrics", "source", "code"]
        assert lines["state"].startswith(f"ok, none yet; the first run makes {host.directory}/cache/")
        assert lines["source"] == "not asked; `run --dry-run` does"
        assert lines["code"] == "0"
        host()
        assert self.check(host)["state"].startswith("ok, number 1 of 20")

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ("textfile_dir = /no/such", "/no/such: not a directory"),
            ("expect_every = often", "expect_every = often: "),
        ],
    )
    def test_metrics(self, options: str, problem: str, host: Host) -> None:
        """It tries the metrics, too, and the code is that of the first failure."""
        host.configure(f"[monitoring]\n{options}")
        lines = self.check(host)
        assert (lines["code"], problem in lines["metrics"], "source" in lines) == ("78", True, True)

    def test_broken_state(self, host: Host) -> None:
        """It reports a damaged state file, and leaves it."""
        cache = host.directory / "cache"
        cache.mkdir(0o700)
        file = cache / "my-provider.lines.SampleCollector.pickle"
        file.write_bytes(b"garbage")
        assert (self.check(host)["code"], file.read_bytes()) == ("74", b"garbage")

    def test_configuration(self, host: Host) -> None:
        """A wrong configuration is one error that names all problems."""
        host.config.write_text("[sample]\nfeeed = /x\n[output]\nurll = x\n")
        done = host("check")
        assert done.code == 78
        for name in ("source", "cache_dir", "feeed", "urll"):
            assert name in done.err
