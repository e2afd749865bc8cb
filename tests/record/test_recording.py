"""What a run of the command leaves behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

import n6_stateful
from n6_stateful import __version__
from n6_stateful.record.history import FileHistory
from n6_stateful.record.recording import one_line
from n6_stateful.record.run import RunRecord
from tests.broker.private_node import until
from tests.record import watched_collector
from tests.record.conftest import NAME, Host
from tests.record.watched_collector import BODY

NOBODY = "amqp://guest:hunter2@127.0.0.1:9/"


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The first line of the error on standard error."""
    (error,) = re.findall(r"^n6collector_watched: error: (.*)$", done.stderr, re.MULTILINE)
    return str(error)


class TestEnds:
    """Good, nothing new, failed, killed."""

    def test_good(self, host: Host) -> None:
        """A good run tells what it did."""
        before = time.time()
        done = host.collect("publish publish")
        (record,) = host.records
        assert (record.exit_code, record.messages, record.bytes) == (0, 2, 2 * len(BODY))
        assert (record.error, record.newest) == ("", "2026-01-02 03:04:05")
        assert record.generation_before == ""
        assert f"state generation {record.generation_after[:8]};" in done.stdout
        assert record.end is not None
        assert before - 0.001 <= record.start <= record.end <= time.time()
        assert record.host == os.uname().nodename
        assert record.versions == f"n6-stateful-runtime {__version__}"

    def test_nothing_new(self, host: Host) -> None:
        """Nothing new is good, too; its generation before is the one that the run before has left."""
        host.collect("publish")
        host.collect()
        first, second = host.records
        assert (second.exit_code, second.messages, second.error) == (0, 0, "")
        assert second.generation_before == first.generation_after

    def test_refused_broker(self, host: Host) -> None:
        """A broker that cannot be reached tells in the record what it tells on standard error."""
        done = host.collect("publish", "--output", NOBODY)
        (record,) = host.records
        assert (done.returncode, record.exit_code) == (69, 69)
        assert told(done).startswith(record.error.removesuffix("..."))
        assert "hunter2" not in str(host.lines())

    def test_own_code(self, host: Host) -> None:
        """The collector's own code that failed is named with its place, not with what it quotes."""
        done = host.collect("publish fail")
        (record,) = host.records
        assert (done.returncode, record.exit_code, record.messages) == (1, 1, 1)
        assert record.error == told(done)
        assert re.search(r"own code failed \(ValueError in __main__, line \d+, see", record.error)
        assert BODY.decode() in done.stderr
        assert BODY.decode() not in str(host.lines())

    def test_configuration(self, host: Host) -> None:
        """Where the configuration does not say where the state is, there is no place for a record."""
        host.config.write_text(host.config.read_text().replace("cache_dir", "cash_dir"))
        assert host.collect("publish").returncode == 78
        assert not host.cache.exists()

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_terminated(self, number: signal.Signals, code: int, host: Host) -> None:
        """A run that was told to end is recorded as that."""
        process = host.collect_and_wait()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        (record,) = host.records
        assert (process.returncode, record.exit_code, record.messages) == (code, code, 1)
        assert record.error
        assert f"error: {record.error}" in err

    def test_killed(self, host: Host) -> None:
        """A run that was killed is recorded as one that did not end, and the next one as itself."""
        process = host.collect_and_wait()
        process.kill()
        process.communicate(timeout=60)
        (killed,) = host.records
        host.collect("publish")
        assert host.records[0] == killed
        assert (killed.end, killed.exit_code, killed.pid) == (None, None, process.pid)
        assert killed.error.startswith("did not end")
        assert [each.exit_code for each in host.records] == [None, 0]

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
    def test_closed_directory(self, host: Host) -> None:
        """A directory of Python's path that this user may not list is no reason to fail."""
        with tempfile.TemporaryDirectory() as name:
            closed = Path(name, "closed")
            closed.mkdir(0o711)
            os.chown(name, 65534, 65534)
            config = Path(name, "60_watched.conf")
            config.write_text(host.config.read_text().replace(str(host.directory), name))
            Path(name, "feed").write_text("publish")
            # Where an installation is editable, not everybody may read where it says so.
            source = Path(n6_stateful.__file__).parents[1]
            nobody = "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"
            done = subprocess.run(
                [*nobody, sys.executable, watched_collector.__file__, "--config", str(config)],
                env={"HOME": name, "PYTHONPATH": f"{closed}:{source}"},
                capture_output=True,
                text=True,
            )
        assert done.returncode == 0, done.stderr

    def test_turned_away(self, host: Host) -> None:
        """A run that another one turned away is recorded; the one in progress is not over yet."""
        process = host.collect_and_wait()
        assert host.command().returncode == 75
        in_progress, turned_away = host.records
        assert (in_progress.error, turned_away.exit_code) == ("in progress", 75)
        process.kill()
        process.communicate(timeout=60)
        assert [each.exit_code for each in host.records] == [None, 75]

    def test_dry_run(self, host: Host) -> None:
        """A dry run writes nothing, so no record either."""
        assert host.collect("publish", "--dry-run").returncode == 0
        assert not list(host.cache.glob("*.runs"))


class TestHarmless:
    """A record never fails a run that was good."""

    def test_not_writable(self, host: Host) -> None:
        """A record that cannot be written is one warning."""
        host.cache.mkdir(0o700)
        (host.cache / f"{NAME}.runs").mkdir()
        done = host.collect("publish", "--log-level", "warning")
        assert done.returncode == 0
        assert "published 1 message" in done.stdout
        warnings = [line for line in done.stderr.splitlines() if "there is no state" not in line]
        assert len(warnings) == 1, done.stderr
        assert "WARNING n6_stateful.record.recording: this run could not be recorded" in warnings[0]

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
    def test_root(self, host: Host) -> None:
        """A run of root in another user's directory ends with one error, and leaves nothing there."""
        host.cache.mkdir(0o700)
        os.chown(host.cache, 65534, 65534)
        done = host.collect("publish")
        assert done.returncode == 74
        (line,) = done.stderr.splitlines()
        assert line.endswith("run as that user")
        assert not [path for path in host.cache.iterdir() if ".runs" in path.name]

    def test_unreadable(self, host: Host) -> None:
        """Where the records cannot be read, it is one error of the state, and of nobody's own code."""
        (host.cache / f"{NAME}.runs").mkdir(parents=True)
        done = host.command("runs")
        assert done.returncode == 74
        (line,) = done.stderr.splitlines()
        assert f"{NAME}.runs: cannot be read: Is a directory" in line
        assert "own code" not in line

    def run_own(self, host: Host, code: str) -> subprocess.CompletedProcess[str]:
        """A good run of an `OwnCollector`, of which `code` is the beginning."""
        from tests.record import watched_collector

        program = host.directory / "own.py"
        program.write_text(
            "from tests.record.watched_collector import WatchedCollector\n"
            f"{code}\nOwnCollector.run_script()\n"
        )
        host.feed.write_text("publish")
        root = Path(watched_collector.__file__).parents[2]
        done = subprocess.run(
            [sys.executable, program, "--config", host.config],
            env={**host.env, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    def test_own_hook(self, host: Host) -> None:
        """A `describe_state` that fails is one warning, and costs the record nothing but itself."""
        done = self.run_own(
            host,
            "class OwnCollector(WatchedCollector):\n"
            "    def describe_state(self): raise ValueError('no idea')\n"
            "    def get_cache_file_name(self): return 'own'",
        )
        assert done.stderr.count("WARNING n6_stateful.record") == 1
        (file,) = host.cache.glob("*.runs")
        assert '"exit_code": 0' in file.read_text()

    def test_error_without_text(self, host: Host) -> None:
        """A record that fails without a word is a warning all the same, by the kind of the error."""
        done = self.run_own(
            host,
            "from n6_stateful.record.history import FileHistory\n"
            "def put(self, record): raise MemoryError\n"
            "FileHistory.put = put\n"
            "class OwnCollector(WatchedCollector): pass",
        )
        assert "this run could not be recorded: MemoryError" in done.stderr

    def test_full_disk(self, host: Host) -> None:
        """On a full disk the error is told as ever; with room again the next run is recorded."""
        if os.geteuid():
            pytest.skip("needs root, to mount a small file system")
        host.cache.mkdir(0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", host.cache], check=True)
        try:
            host.collect("publish")
            with suppress(OSError):
                (host.cache / "filler").write_bytes(bytes(1 << 20))
            done = host.collect("publish")
            assert done.returncode == 74
            assert "No space left" in told(done)
            (host.cache / "filler").unlink()
            host.collect("publish")
            codes = [each.exit_code for each in host.records]
            # The second one's record fits where the first one's page has room.
            assert codes in ([0, 0], [0, 74, 0])
        finally:
            subprocess.run(["umount", host.cache], check=True)

    def test_filled_while_running(self, host: Host) -> None:
        """A run whose disk fills up while it is running can still tell why it failed."""
        if os.geteuid():
            pytest.skip("needs root, to mount a small file system")
        host.cache.mkdir(0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", host.cache], check=True)
        try:
            process = host.collect_and_wait()
            with suppress(OSError):
                (host.cache / "filler").write_bytes(bytes(1 << 20))
            process.terminate()
            process.communicate(timeout=60)
            assert [each.exit_code for each in host.records] == [143]
        finally:
            subprocess.run(["umount", host.cache], check=True)

    def test_old_directory(self, host: Host) -> None:
        """A directory of an older version, without records, works."""
        host.collect("publish")
        (host.cache / f"{NAME}.runs").unlink()
        assert host.records == []
        assert host.command("runs").returncode == 0
        host.collect("publish")
        assert len(host.records) == 1

    def test_keep_runs(self, host: Host) -> None:
        """`keep_runs` bounds them."""
        host.configure("monitoring", keep_runs="2")
        for _ in range(5):
            host.collect("publish")
        assert len(host.records) == 2


class TestWithoutState:
    """A collector of mails, which keeps no state: its runs are recorded in its `cache_dir`."""

    PROGRAM = """
from n6_stateful.bases import BaseSimpleEmailCollector

class MailCollector(BaseSimpleEmailCollector):
    type = "stream"
    source_channel = "mails"
    config_spec = "[watched]\\nsource :: str\\ncache_dir :: path\\nfeed :: path"

    def obtain_data_body(self):
        return self.get_email_msg_text().encode()

MailCollector.run_script()
"""

    def begin(self, host: Host, *argv: str) -> subprocess.Popen[str]:
        """A run that waits for its mail, or another command."""
        program = host.directory / "mail.py"
        program.write_text(self.PROGRAM)
        pipe = subprocess.PIPE
        argv = (sys.executable, str(program), "--config", str(host.config), *argv)
        return subprocess.Popen(argv, env=host.env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def command(self, host: Host, *argv: str, mail: str = "") -> tuple[int | None, str]:
        """The exit code and the output of a command, or of a run with that mail."""
        process = self.begin(host, *argv)
        out, _ = process.communicate(mail, timeout=60)
        return process.returncode, out

    def test_good(self, host: Host) -> None:
        """A mail is a run, and `status` is content with it."""
        assert self.command(host, mail="Subject: s\n\ntext\n")[0] == 0
        assert (host.cache / "my-provider.MailCollector.runs").exists()
        (line,) = self.command(host, "runs", "--json")[1].splitlines()
        assert ('"exit_code": 0' in line, '"messages": 1' in line) == (True, True)
        code, told = self.command(host, "status")
        assert (code, told[:18]) == (0, "OK - last good run")

    def test_failed(self, host: Host) -> None:
        """A mail that is to be delivered again, since the broker is down, is a run that has failed."""
        assert self.command(host, "--output", NOBODY, mail="Subject: s\n\ntext\n")[0] == 75
        code, told = self.command(host, "status")
        assert (code, told[:52]) == (2, "CRITICAL - no run has ended well; 1 run failed: amqp")

    def test_several(self, host: Host) -> None:
        """Mails that are read at the same time are all in progress; one that was killed is not."""
        waiting = [self.begin(host) for _ in range(3)]
        file = host.cache / "my-provider.MailCollector.runs"
        until(lambda: file.exists() and file.read_bytes().count(b"\n") == 3, "three runs")
        waiting[1].kill()
        waiting[1].wait(60)
        told = self.command(host, "runs")[1]
        assert (told.count("in progress"), told.count("did not end")) == (2, 1)
        for each in waiting:
            each.communicate("Subject: s\n\ntext\n" if each.returncode is None else None, timeout=60)
        told = self.command(host, "runs")[1]
        assert (told.count("in progress"), told.count("did not end")) == (0, 1)

    def test_number_of_a_process(self, host: Host) -> None:
        """A run that was killed is not in progress, though another process has got its number since."""
        killed = RunRecord(86_400.0, host=os.uname().nodename, pid=os.getpid())
        FileHistory(host.cache / "my-provider.MailCollector", 10).put(killed)
        told = self.command(host, "runs")[1]
        assert (told.count("in progress"), told.count("did not end")) == (0, 1)


class TestOneLine:
    """Texts as they go into a record."""

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("first\nsecond", "first"),
            ("a\tb\x1b[31mc", r"a\tb\x1b[31mc"),
            ("see https://user:hunter2@host/feed?key=1", "see https://user:***@host/feed?***"),
            ("żółw", "żółw"),
            ("", ""),
        ],
    )
    def test_text(self, text: str, line: str) -> None:
        """One line, no control characters, no secrets."""
        assert one_line(text) == line

    def test_long(self) -> None:
        """No longer than a record has room for."""
        assert one_line("x" * 500) == "x" * 197 + "..."
