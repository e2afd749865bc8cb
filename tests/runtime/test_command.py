"""The console command, from outside: what it prints, and the code it exits with."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.runtime import sample_collector

PROGRAM = Path(sample_collector.__file__)
CONFIG = """
[sample]
source = my-provider
cache_dir = {directory}/cache
url = {directory}/feed

[output]
url = spool:{directory}/spool
"""


class Host:
    """A directory with a configuration, a feed, and a way to run the command there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "60_sample.conf"
        self.config.write_text(CONFIG.format(directory=directory))
        self.feed = directory / "feed"
        self.feed.write_text("one\ntwo\n")
        self.env = {"HOME": str(directory), "PATH": os.environ["PATH"]}
        for name in ("PYTHONPATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "COVERAGE_FILE"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    def change_config(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, PROGRAM, *argv],
            env=self.env,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: str, config: bool = True) -> subprocess.CompletedProcess[str]:
        process = self.start(*argv, *(["--config", str(self.config)] if config else []))
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def one_clear_error(done: subprocess.CompletedProcess[str], code: int, *told: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("n6collector_sample: error: ")]
    assert len(errors) == 1, done.stderr
    for each in told:
        assert each in done.stderr


def test_no_arguments(host: Host) -> None:
    """Without arguments it runs, with the configuration of the environment."""
    host.env["N6_CONFIG"] = str(host.config)
    done = host.run(config=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("published 2 messages (6 bytes) to ")
    assert done.stdout.count("\n") == 1


def test_runs(host: Host) -> None:
    """The second run publishes nothing, and the third what is new."""
    host.run()
    assert host.run().stdout.startswith("published 0 messages; ")
    host.feed.write_text("one\ntwo\nthree\n")
    assert host.run().stdout.startswith("published 1 message (5 bytes) to ")


def test_closing_line(host: Host) -> None:
    """The closing line tells the state's generation that was saved."""
    generation = host.run().stdout.split("state generation ")[1].split(";")[0]
    assert generation in host.run("state", "show").stdout


def test_quiet(host: Host) -> None:
    """At level warning a good run logs nothing."""
    host.run()
    assert host.run("--log-level", "warning").stderr == ""


def test_output(host: Host) -> None:
    """--output wins over the configuration."""
    done = host.run("--output", f"spool:{host.directory}/other")
    assert done.returncode == 0, done.stderr
    assert (host.directory / "other").exists()
    assert not (host.directory / "spool").exists()


def test_dry_run(host: Host) -> None:
    """A dry run shows the messages and changes nothing."""
    done = host.run("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "raw my-provider.lines (3 bytes)" in done.stdout
    assert "| one" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("would have published 2 messages (6 bytes); ")
    assert not (host.directory / "spool").exists()
    assert host.run().stdout.startswith("published 2 messages")


def test_dry_run_without_output(host: Host) -> None:
    """A dry run needs no output."""
    host.change_config(f"[output]\nurl = spool:{host.directory}/spool\n", "")
    assert host.run("--dry-run").returncode == 0


def test_check(host: Host) -> None:
    """check tries everything and publishes nothing."""
    done = host.run("check")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["configuration", "state", "output"]
    assert host.run().stdout.startswith("published 2 messages")


def test_check_failure(host: Host) -> None:
    """check tells what fails, and tries the rest."""
    (host.directory / "cache").write_text("a file stands where the directory belongs")
    done = host.run("check")
    assert done.returncode == 74
    assert "output: ok" in done.stdout


def test_check_broken_state(host: Host) -> None:
    """check tells of a broken state, and leaves it to the next run."""
    host.run()
    (state,) = (host.directory / "cache").glob("*.pickle")
    state.write_bytes(b"garbage")
    done = host.run("check")
    assert done.returncode == 74
    assert "is not a pickle" in done.stdout
    assert "output: ok" in done.stdout
    assert state.read_bytes() == b"garbage"
    assert "the state is broken" in host.run().stderr


def test_version(host: Host) -> None:
    """--version names the runtime's version."""
    from n6_stateful import __version__

    done = host.run("--version", config=False)
    assert done.returncode == 0
    assert f"n6-stateful-runtime {__version__}" in done.stdout


@pytest.mark.parametrize(
    "argv", [["--no-such-option"], ["no-such-command"], ["state"], ["--log-level", "loud"], ["spool", "show"]]
)
def test_usage(host: Host, argv: list[str]) -> None:
    """Wrong usage exits with 2."""
    assert host.run(*argv, config=False).returncode == 2


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("[output]\nurll = amqp://127.0.0.1/", "urll"),
        ("[output]\nspool_when_down = /tmp/spool", "no output is configured"),
        ("[ouput]\nurl = amqp://127.0.0.1/", "there is [ouput]: should it be [output]?"),
    ],
)
def test_misspelt_output(section: str, told: str, host: Host) -> None:
    """A misspelt output is told as that."""
    host.change_config(f"[output]\nurl = spool:{host.directory}/spool\n", section + "\n")
    one_clear_error(host.run(), 78, told)


def test_missing_file(host: Host) -> None:
    """A configuration file that is not there is named."""
    host.env["N6_CONFIG"] = str(host.directory / "no-such.conf")
    one_clear_error(host.run(config=False), 78, "no-such.conf")


def test_missing_section(host: Host) -> None:
    """A missing section is named with its options."""
    host.config.write_text("")
    one_clear_error(host.run(), 78, "[sample]", "source", "cache_dir")


def test_all_problems(host: Host) -> None:
    """All problems of the configuration are told at once."""
    host.config.write_text("[sample]\ncache_dir = relative\nurll = /feed\n")
    one_clear_error(host.run(), 78, "source", "cache_dir", "urll", "[output]", "[rabbitmq]")


def test_own_code(host: Host) -> None:
    """A collector whose own code fails leaves a traceback, and exits with 1."""
    host.feed.unlink()
    done = host.run()
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "FileNotFoundError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("n6collector_sample: error: ")
    assert done.stdout == ""


def test_unwritable_cache_dir(host: Host) -> None:
    """An unusable cache_dir is one clear error, and nothing is published."""
    (host.directory / "cache").write_text("a file stands where the directory belongs")
    one_clear_error(host.run(), 74, str(host.directory / "cache"))
    assert not (host.directory / "spool").exists()


def test_broker_down(host: Host) -> None:
    """A broker that is down is one clear error, and the state stays."""
    host.run()
    before = host.run("state", "show").stdout
    host.feed.write_text("one\ntwo\nthree\n")
    one_clear_error(host.run("--output", "amqp://127.0.0.1:9/"), 69, "127.0.0.1:9")
    assert host.run("state", "show").stdout == before


def test_password_in_url(host: Host) -> None:
    """A password in an output's URL is not shown."""
    done = host.run("--log-level", "debug", "--output", "amqp://user:hunter2@127.0.0.1:9/")
    assert done.returncode == 69
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(host: Host, number: signal.Signals, code: int) -> None:
    """An interrupted run exits at once, and saves nothing."""
    host.feed.unlink()
    os.mkfifo(host.feed)  # the collector waits in its own code until somebody writes
    process = host.start("--config", str(host.config))
    writer = os.open(host.feed, os.O_WRONLY)  # returns once the collector has opened the other end
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert out == ""
    assert not list((host.directory / "cache").glob("*.pickle"))


def test_reader_gone(host: Host) -> None:
    """Nobody has to read all of a dry run."""
    host.feed.write_text("x" * 150 + "\n" + "".join(f"{number}\n" for number in range(5_000)))
    process = host.start("--dry-run", "--config", str(host.config))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0


def test_progress(host: Host) -> None:
    """A long run shows its progress, on a terminal only."""
    code = (
        "from n6_stateful import progress; progress.FIRST_AFTER_SECONDS = progress.SECONDS_BETWEEN = 0\n"
        "from tests.runtime.sample_collector import SampleCollector; SampleCollector.run_script()"
    )
    argv = [sys.executable, "-c", code, "--config", str(host.config)]
    root = str(PROGRAM.parents[2])
    env = {**host.env, "PYTHONPATH": root}
    main, terminal = pty.openpty()
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=terminal, text=True, timeout=60)
    os.close(terminal)
    shown = os.read(main, 100_000).decode()
    os.close(main)
    assert done.returncode == 0, shown
    assert "published 2 messages, 0.0 MiB" in shown

    silent = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert "MiB" not in silent.stderr


OWN_RUN = """
import os, signal, socket, sys
from tests.runtime.sample_collector import SampleCollector

class Own(SampleCollector):
    def start_publishing(self):
        {body}

Own.__name__ = Own.__qualname__ = "SampleCollector"
Own.run_script()
"""


def run_own(host: Host, body: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a collector whose `start_publishing` has this body."""
    return subprocess.run(
        [sys.executable, "-c", OWN_RUN.format(body=body), "--config", str(host.config), *argv],
        env={**host.env, "PYTHONPATH": str(PROGRAM.parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )


def saved_state(host: Host) -> list[Path]:
    return list((host.directory / "cache").glob("*.pickle"))


class TestSourceAndOwnCode:
    """Whose fault it is that a run failed."""

    def test_source_is_down(self, host: Host) -> None:
        """One masked line, exit code 66, and the traceback only at level DEBUG."""
        body = "import requests; requests.get('http://127.0.0.1:9/feed?key=hunter2', timeout=9)"
        done = run_own(host, body)
        one_clear_error(done, 66, "the source failed: ConnectionError: ")
        debug = run_own(host, body, "--log-level", "debug")
        assert debug.returncode == 66
        assert "Traceback" in debug.stderr
        assert "hunter2" not in done.stderr + debug.stderr
        assert not saved_state(host)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ("raise BrokenPipeError(32, 'Broken pipe')", 66),
            ("reader, writer = os.pipe(); os.close(reader); os.write(writer, b'x')", 66),
            ("raise NameError('x')", 1),
            ("sys.exit(0)", 1),
            ("sys.exit('enough')", 1),
        ],
    )
    def test_never_0(self, host: Host, body: str, code: int) -> None:
        """No error of the collector's own passes for a good run, and nothing is saved."""
        done = run_own(host, body)
        assert done.returncode == code, done.stderr
        assert done.stderr.splitlines()[-1].startswith("n6collector_sample: error: ")
        assert done.stdout == ""
        assert not saved_state(host)

    def test_traceback_is_masked(self, host: Host) -> None:
        """A traceback may quote a URL too."""
        done = run_own(host, "raise RuntimeError('https://u:hunter2@h/x?key=hunter2')")
        assert done.returncode == 1
        assert "https://u:***@h/x?***" in done.stderr
        assert "hunter2" not in done.stderr

    @pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
    @pytest.mark.parametrize("then", ["self.inner_stop()", "return super().start_publishing()"])
    def test_swallowed_signal(self, host: Host, number: str, code: int, then: str) -> None:
        """A signal that the collector swallows ends the run all the same, and no state is saved."""
        body = f"""try:
            os.kill(os.getpid(), signal.{number})
        except BaseException:
            pass
        {then}"""
        one_clear_error(run_own(host, body), code)
        assert not saved_state(host)

    def test_signal_swallowed_at_the_end(self, host: Host) -> None:
        """Even one that is swallowed when everything is saved is told."""
        body = """super().start_publishing()
    def run_handling(self):
        super().run_handling()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            pass"""
        assert run_own(host, body).returncode == 143


class TestStandardStreams:
    """Standard streams as odd schedulers leave them."""

    def shell(self, host: Host, redirections: str, *argv: str) -> subprocess.CompletedProcess[str]:
        command = f'"$@" {redirections}'
        words = [sys.executable, str(PROGRAM), "--config", str(host.config), *argv]
        return subprocess.run(
            ["sh", "-c", command, "sh", *words],
            env=host.env,
            cwd=host.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @pytest.mark.parametrize(
        "redirections",
        ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"],
    )
    def test_run(self, host: Host, redirections: str) -> None:
        """The run collects, saves and ends with 0; what cannot be printed is a warning at most."""
        done = self.shell(host, redirections)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert saved_state(host)
        assert host.run().stdout.startswith("published 0 messages")
        if redirections == ">/dev/full":
            assert "WARNING n6_stateful.command: standard output cannot be written: No space" in done.stderr

    def test_would_block(self, host: Host) -> None:
        """So it is with a pipe that is full and does not wait."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        command = [sys.executable, str(PROGRAM), "--config", str(host.config)]
        done = subprocess.run(
            command, env=host.env, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
        )
        os.close(reader)
        os.close(writer)
        assert done.returncode == 0, done.stderr
        assert "standard output cannot be written" in done.stderr
        assert host.run("runs", "--json").stdout.count('"exit_code": 0') == 1

    @pytest.mark.parametrize("argv", [["state", "show"], ["--dry-run"], ["check"], ["spool", "list"]])
    def test_commands(self, host: Host, argv: list[str]) -> None:
        """What is there to show something fails if it cannot, in one clear line."""
        host.run()
        one_clear_error(
            self.shell(host, ">/dev/full", *argv), 1, "standard output cannot be written: No space"
        )

    @pytest.mark.parametrize("argv", [["--help"], ["--version"], ["--no-such-option"]])
    @pytest.mark.parametrize("redirections", [">&- 2>&-", ">/dev/full 2>/dev/full"])
    def test_help(self, host: Host, argv: list[str], redirections: str) -> None:
        """Help, version and usage errors keep their exit codes."""
        assert self.shell(host, redirections, *argv).returncode == (2 if "such" in argv[0] else 0)

    def test_no_traceback_of_help(self, host: Host) -> None:
        """`--help` with a closed standard output says nothing."""
        assert "Traceback" not in self.shell(host, ">&-", "--help").stderr


class TestTerminal:
    """What others have written has no power over a terminal."""

    def test_state(self, host: Host) -> None:
        """The name of a class in a state, in an error and where the state is shown."""
        host.run()
        (state,) = host.directory.glob("cache/*.pickle")
        state.write_bytes(b"\x80\x04\x8c\x01m\x8c\x0aC\x1b]0;own\x07:\x93)\x81.")
        for argv, code in (([], 74), (["state", "show"], 0)):
            done = host.run(*argv)
            assert done.returncode == code
            assert "C\\x1b]0;own\\x07:" in done.stdout + done.stderr
            assert "\x1b" not in done.stdout + done.stderr


class TestFork:
    """A child that a collector forks."""

    @pytest.mark.parametrize("does", ["return b'2026-01,a'", "sys.exit(0)", "raise ValueError"])
    def test_download(self, host: Host, does: str) -> None:
        """One that comes back from the download is ended: it publishes, saves and records nothing."""
        program = host.directory / "forking.py"
        program.write_text(f"""
import os, sys
from n6_stateful.bases import BaseTimeOrderedRowsCollector

class SampleCollector(BaseTimeOrderedRowsCollector):
    source_channel = "rows"
    config_spec = "[sample]\\nsource :: str\\ncache_dir :: path\\nurl :: str\\n"
    def obtain_orig_data(self):
        child = os.fork()
        if not child:
            {does}
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        return b"2026-01,a"
    def pick_raw_row_time(self, row):
        return row[:7]
    def clean_row_time(self, raw_row_time):
        return raw_row_time

SampleCollector.run_script()
""")
        argv = [sys.executable, str(program), "--config", str(host.config)]
        done = subprocess.run(argv, env=host.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "a forked child came back into its parent's run, and was ended there" in done.stderr
        assert done.stdout.count("published 1 message") == 1
        assert "error:" not in done.stderr
        listed = host.run("spool", "list", "--json").stdout
        assert listed.count("message_id") == 1

    def test_terminated_child(self, host: Host) -> None:
        """A child that is ended by a signal cleans up, and the run goes on."""
        program = host.directory / "forking.py"
        program.write_text(f"""
import os, signal
from multiprocessing import get_context
from pathlib import Path
from tests.runtime.sample_collector import SampleCollector as Base

def wait(ready, left):
    try:
        ready.set()
        signal.pause()
    finally:
        left.touch()

class SampleCollector(Base):
    def start_publishing(self):
        fork, left = get_context("fork"), Path({str(host.directory / "left")!r})
        ready = fork.Event()
        child = fork.Process(target=wait, args=(ready, left))
        child.start()
        ready.wait()
        child.terminate()
        child.join()
        assert left.exists()
        super().start_publishing()

SampleCollector.run_script()
""")
        argv = [sys.executable, str(program), "--config", str(host.config)]
        root = str(Path(__file__).resolve().parents[2])
        env = host.env | {"PYTHONPATH": os.pathsep.join((root, host.env.get("PYTHONPATH", "")))}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "a forked child came back" not in done.stderr


class TestCheck:
    """`check` changes nothing."""

    def test_makes_nothing(self, host: Host) -> None:
        """What is not there yet is not made, since it may be root who tries."""
        before = {path for path in host.directory.rglob("*") if "spool" not in path.name}
        done = host.run("check")
        assert done.returncode == 0, done.stderr
        assert f"state: ok, none saved yet; the first run makes {host.directory}/cache" in done.stdout
        assert {path for path in host.directory.rglob("*") if "spool" not in path.name} == before

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
    def test_as_root(self, host: Host) -> None:
        """Where the directory is another user's, root is told so, and leaves nothing there."""
        cache = host.directory / "cache"
        cache.mkdir(0o700)
        os.chown(cache, 65534, 65534)
        done = host.run("check")
        assert done.returncode == 74
        assert "belongs to another user (uid 65534" in done.stdout
        assert list(cache.iterdir()) == []
