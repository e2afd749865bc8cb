"""`run` and `check`: what they print, record and exit with."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from n6_stateful import AbstractBaseCollector, __version__, progress
from tests.command.conftest import Host, SampleCollector
from tests.journal.conftest import make_database as make_database  # the fixture

ERROR = "n6collector_sample: error: "


def test_closing_line(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what was collected, delivered and saved, and what waits; of any class how long it took."""
    host.down.touch()
    done = host()
    assert done.out.startswith("collected 2 messages (6 bytes), delivered 0, 2 waiting; state 1;")
    assert (done.code, done.err) == (69, f"{ERROR}the broker is down; 2 messages wait\n")
    kept = host("--output", "outbox:").out
    assert kept.startswith("collected 0 messages, 2 waiting in the outbox; state 2;")
    host.down.unlink()
    done = host.collect("x" * 12_000)
    line = r"collected 1 message \(12 kB\), delivered 3, 0 waiting; state 3; \d\.\d s\n"
    assert (done.code, done.err, re.fullmatch(line, done.out) is None) == (0, "", False)
    monkeypatch.setattr(AbstractBaseCollector, "run", lambda self: None)
    host.collector = AbstractBaseCollector  # type: ignore[assignment]
    assert re.fullmatch(r"\d\.\d s\n", host().out)


def test_dry_run(host: Host) -> None:
    """It shows messages, at most `--limit`, and neither needs an output nor makes anything."""
    host.config.write_text(host.config.read_text().partition("[output]")[0])
    done = host("--dry-run", "--limit", "1")
    assert ("raw my-provider.lines (3 bytes)\n" in done.out, "  | one\n" in done.out) == (True, True)
    assert "| two" not in done.out
    assert "\nwould have collected 2 messages (6 bytes); state none, unchanged;" in done.out
    assert (done.code, (host.directory / "cache").exists()) == (0, False)


def test_reader_gone(host: Host) -> None:
    """If the reader of the output leaves early, there is no traceback."""
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
            (":code", 1, "the collector's own code failed (ValueError, see the traceback)"),
            (":interrupted", 130, "interrupted; the next run goes on from the last saved state"),
        ],
    )
    def test_one_line(self, line: str, code: int, text: str, host: Host) -> None:
        """There is one line without secrets, and the same in the record; nothing was saved."""
        host.feed.write_text("")
        done = host.collect("one", line)
        assert (done.code, done.out, done.err.count("\n"), "hunter2" in done.err) == (code, "", 1, False)
        assert done.err.startswith(f"{ERROR}{text}")
        assert (host.delivered, host.journal.generations()) == ([], [])
        record = host.last_run
        assert (record["exit_code"], record["messages"], record["last_new_data"]) == (code, 1, None)
        assert f"{ERROR}{record['error']}\n" == done.err

    def test_swallowed(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """A signal that the collector swallows ends the run all the same."""

        def run_handling(self: SampleCollector) -> None:
            with suppress(BaseException):
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(SampleCollector, "run_handling", run_handling)
        assert (host().code, host.last_run["outcome"]) == (143, "interrupted")

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
        with host.locked() as journal:
            host.fails(75, f"process {os.getpid()}", "--quiet-repeats")
            assert journal.runs() == []


def test_record(host: Host) -> None:
    """A good run is recorded with all that it did, without any published data."""
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
        "locked": True, "expect_every": "", "to_outbox": False, "version": __version__,
    }  # fmt: skip


def test_no_record(host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that cannot be recorded is a warning."""
    monkeypatch.setattr(SampleCollector, "describe_state", lambda self: self.state["x"])
    host.configure("[monitoring]\ntextfile_dir = /no/such/directory")
    assert host().code == 0
    assert "describe_state() failed: KeyError: 'x'" in caplog.text
    assert "/no/such/directory" in caplog.text
    assert host.last_run["outcome"] == "ok"


def test_quiet_repeats(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors and warnings are printed when the outcome changes, then once a day; records have them all."""

    def run() -> str:
        monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a process
        return host("--quiet-repeats", "--log-level", "warning").err

    assert "WARNING n6_stateful.state: there is no state yet" in run()
    assert run() == ""
    host.feed.write_text("one\ntwo\n:source 17\n")
    assert "error: :source 17" in run()
    host.feed.write_text("one\ntwo\n:source 18\n")
    assert (run(), host.last_run["error"]) == ("", ":source 18")
    record, journal = host.last_run, host.journal
    journal.put_run(record["start"], record | {"printed": record["printed"] - 86_400})
    journal.unlock()
    assert "error: :source 18" in run()
    assert run() == ""
    host.feed.write_text("one\ntwo\n:code\n")
    assert "Traceback" in run()


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A progress line is shown at a terminal, updated in place, and removed; elsewhere there is none."""
    monkeypatch.setattr(progress, "FIRST_AFTER_SECONDS", 0)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0)
    shown = "\r\x1b[Kdelivering 5 ...\r\x1b[Kdelivering 9 ...\r\x1b[K"
    for is_terminal, expected in ((lambda: True, shown), (lambda: False, "")):
        stream = io.StringIO()
        stream.isatty = is_terminal  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stderr", stream)
        line = progress.Progress("delivering")
        line.show("5")
        line.show("9")
        line.end()
        assert stream.getvalue() == expected


class TestCheck:
    """`check`."""

    def check(self, host: Host) -> tuple[int, dict[str, str]]:
        done = host("check", "--output", "outbox:")
        return done.code, dict(line.split(": ", 1) for line in done.out.splitlines())

    def test_all(self, host: Host) -> None:
        """It tries everything but the source, reports it, and creates nothing; it goes on after a failure."""
        before = sorted(host.directory.rglob("*"))
        code, lines = self.check(host)
        assert sorted(host.directory.rglob("*")) == before
        assert (code, [*lines]) == (0, ["configuration", "state", "output", "metrics", "source"])
        assert lines["state"].startswith(f"ok, none yet; the first run makes {host.directory}/cache/")
        assert lines["source"] == "not asked; `run --dry-run` does"
        for section, option in ("monitoring", "textfile_dir = /no/such"), ("sample", "expect_every = often"):
            host.configure(f"[{section}]\n{option}")
            code, lines = self.check(host)
            assert (code, option in lines["metrics"], "source" in lines) == (78, True, True)

    def test_state(self, host: Host, make_database: Callable[[str], str]) -> None:
        """It reports a damaged state file, and what the run would end with where a database has no state, but
        `cache_dir` has one."""
        host()
        assert self.check(host)[1]["state"].startswith("ok, number 1 of 20")
        host.journal.path.unlink()
        file = host.journal.path.with_suffix(".pickle")
        file.write_bytes(b"garbage")
        code, lines = self.check(host)
        assert (code, str(file) in lines["state"], file.read_bytes()) == (74, True, b"garbage")
        host.configure(f"[journal]\nurl = {make_database('postgresql')}")
        code, lines = self.check(host)
        assert (code, "run `state import " in lines["state"]) == (74, True)
        assert host().err == f"{ERROR}{lines['state']}\n"

    def test_configuration(self, host: Host) -> None:
        """A wrong configuration is one error that names all problems."""
        host.config.write_text("[sample]\nfeeed = /x\n[output]\nurll = x\n")
        done = host("check")
        names = ("source", "cache_dir", "feeed", "urll")
        assert (done.code, [name for name in names if name not in done.err]) == (78, [])
