"""What a collector remembers, whatever happens to the file."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import http
import json
import logging
import os
import pickle
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import ConfigError, StateError, StateLockedError, settings
from n6_stateful.state.format import MARK
from tests.runtime.state_program import Program

NAME = "provider.channel.Program.pickle"
PROGRAM = Path(__file__).with_name("state_program.py")
PY2_STATES = Path(__file__).with_name("py2_states")


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make(cache_dir: Path) -> Iterator[Callable[..., Program]]:
    """Makes a program over the cache directory; the one before it has ended by then."""
    made: list[Program] = []

    def new(kind: type[Program] = Program, **config: Any) -> Program:
        for program in made:
            program.close_state()
        made.append(kind(cache_dir=str(cache_dir), **config))
        return made[-1]

    yield new
    for program in made:
        program.close_state()


class Admitting(Program):
    """The same collector, which admits more."""

    state_classes = ("logging.Filter", logging.LogRecord)


Admitting.__name__ = "Program"


def start(cache_dir: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, PROGRAM, cache_dir, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.endswith(".lock"))


def broken_variants(data: bytes) -> Iterator[bytes]:
    """Every single bit flipped, every cut, every byte taken out or doubled."""
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        yield data[:at]
        yield data[:at] + data[at + 1 :]
        yield data[:at] + data[at : at + 1] + data[at:]


class Text(str):
    """What a library may return in the place of a str."""

    __slots__ = ()


Text.__module__ = "a_library"
sys.modules["a_library"] = types.ModuleType("a_library")
sys.modules["a_library"].Text = Text  # type: ignore[attr-defined]


as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="runs as an ordinary user already: needs root to be another"
)


@pytest.fixture
def nobodys_directory() -> Iterator[Path]:
    import tempfile

    # pytest's own directories are closed to others.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


class Version2:
    """A class of the collector's own that cannot be made any more of what n6 has saved."""

    def __setstate__(self, state: dict[str, int]) -> None:
        self.value = state["new name"]


def n6s_pickle(value: object) -> bytes:
    return pickle.dumps({"value": value, "ids": list(range(100))}, 5)


PY2_EXPECTED = {
    "plain": {
        "when": datetime.datetime(2015, 10, 21, 7, 28, 0, 123456),
        "day": datetime.date(2015, 10, 21),
        "ids": {1, 2, 2**70},
        "frozen": frozenset(["a"]),
        "text": "zażółć",
        "unicode": "zażółć",
        "number": 2**70,
        "decimal": decimal.Decimal("1.50"),
        "list": ["a", ("b", None, True, 1.5)],
        "ż": 1,
    },
    "containers": {
        "ordered": collections.OrderedDict([("ż", 1), ("a", ["ż"])]),
        "counter": collections.Counter(["ż", "ż", "a"]),
        "default": collections.defaultdict(list, {"ż": ["ż"]}),
        "deque": collections.deque(["ż", "ż"], maxlen=3),
        "bytearray": bytearray(b"\xff\x00"),
        "fraction": fractions.Fraction(1, 3),
        "uuid": uuid.UUID(int=5),
        "delta": datetime.timedelta(1, 2, 3),
        "time": datetime.time(1, 2, 3),
        "complex": 1 + 2j,
    },
    "latin2": "za\udcbf\udcf3\udcb3\udce6",
}


class TestFile:
    """What is saved and where."""

    def test_default(self, make: Callable[..., Program], caplog: pytest.LogCaptureFixture) -> None:
        """Without a file there is the default state and the log says so."""
        assert make().load_state() == {"value": "default"}
        assert "there is no state" in caplog.text

    def test_saved_is_loaded(self, make: Callable[..., Program]) -> None:
        """What is saved is loaded."""
        make().save({"value": {1, 2}})
        assert make().load_state() == {"value": {1, 2}}

    def test_plain_pickle(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """Any pickle load reads the file."""
        make().save({"value": 5})
        with (cache_dir / NAME).open("rb") as file:
            assert pickle.load(file) == {"value": 5}
        assert pickle.loads((cache_dir / NAME).read_bytes()) == {"value": 5}

    def test_modes(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """Directory and files are the users own."""
        os.umask(0o022)
        make().save({"value": 5})
        assert stat.S_IMODE(cache_dir.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in cache_dir.iterdir()} == {0o600}

    def test_generations(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """Each save is a new generation and the one before is kept."""
        program = make()
        program.load_state()
        assert (program.state_generation, program.state_generations) == ("", ("",))
        generations = []
        for value in range(3):
            program.save_state({"value": value})
            generations.append(program.state_generation)
        assert len(set(generations)) == 3
        assert program.state_generations == (generations[2], generations[1])
        assert names(cache_dir) == [NAME, f"{NAME}.previous"]
        assert pickle.loads((cache_dir / f"{NAME}.previous").read_bytes()) == {"value": 1}
        again = make()
        again.load_state()
        assert again.state_generations == (generations[2], generations[1])

    def test_dry_run(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A dry run saves nothing."""
        with settings.use(settings.Settings(dry_run=True)):
            make().save({"value": 5})
        assert not (cache_dir / NAME).exists()

    def test_waits_for_output(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """Saving waits for the output first."""

        class Undelivered(Program):
            published_count = 0

            def flush_output(self) -> None:
                raise ConnectionError

        Undelivered.__name__ = "Program"
        program = make(Undelivered)
        with pytest.raises(ConnectionError):
            program.save({"value": 5})
        assert not (cache_dir / NAME).exists()

    def test_sweeps(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """Left over temporary files are swept."""
        make().save({"value": 5})
        (cache_dir / f".{NAME}.0123.tmp").write_bytes(b"half a sta")
        make().load_state()
        assert names(cache_dir) == [NAME]

    def test_taken_away(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A state that was taken away by hand is begun anew."""
        for value in ("old", "new"):
            make().save({"value": value})
        (cache_dir / NAME).unlink()
        assert make().load_state() == {"value": "default"}


class TestBroken:
    """A broken file costs no more than the run that wrote it."""

    def test_any_damage(
        self, make: Callable[..., Program], cache_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever happens to the file the state before is used and the file is kept."""
        program = make()
        program.save({"value": "old"})
        old_generation = program.state_generation
        program.save_state({"value": "new"})
        good = (cache_dir / NAME).read_bytes()
        before = (cache_dir / f"{NAME}.previous").read_bytes()
        tried = 0
        for data in broken_variants(good):
            if data == good:  # a byte doubled or taken out of a run of the same
                continue
            (cache_dir / NAME).write_bytes(data)
            (cache_dir / f"{NAME}.previous").write_bytes(before)
            again = make()
            assert again.load_state() == {"value": "old"}, data
            assert again.state_generation == old_generation
            (aside,) = cache_dir.glob("*.broken-*")
            assert aside.read_bytes() == data
            aside.unlink()
            assert (cache_dir / NAME).read_bytes() == before
            tried += 1
            caplog.clear()
        assert tried > 2000

    def test_no_save_after_it(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A run that saves nothing after a broken file leaves the state before it to the next run."""
        make().save({"value": "old"})
        make().save({"value": "new"})
        (cache_dir / NAME).write_bytes(b"garbage")
        generations = set()
        for _ in range(3):
            program = make()
            assert program.load_state() == {"value": "old"}
            generations.add(program.state_generation)
        assert len(generations) == 1
        assert len(list(cache_dir.glob("*.broken-*"))) == 1

    def test_dry_run(
        self, make: Callable[..., Program], cache_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A dry run uses the state before a broken one and moves nothing."""
        make().save({"value": "old"})
        make().save({"value": "new"})
        (cache_dir / NAME).write_bytes(b"garbage")
        before = {path: path.read_bytes() for path in cache_dir.iterdir() if path.suffix != ".lock"}
        with settings.use(settings.Settings(dry_run=True)):
            assert make().load_state() == {"value": "old"}
        assert {path: path.read_bytes() for path in cache_dir.iterdir() if path.suffix != ".lock"} == before
        assert "the state is broken" in caplog.text

    def test_no_good_one(
        self, make: Callable[..., Program], cache_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Without a good state before it the default is used and an error logged."""
        make().save({"value": "only"})
        (cache_dir / NAME).write_bytes((cache_dir / NAME).read_bytes()[:-1])
        assert make().load_state() == {"value": "default"}
        (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
        assert "broken" in record.getMessage()
        assert ".broken-" in record.getMessage()

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"garbage",
            b"\0" * 4096,
            MARK,
            b"{}",
            b"\x80\x05}q\x00.trailing",
            b"\x80\x05\x8e" + b"\xff" * 7 + b"\x0f.",  # says it holds an exabyte
        ],
    )
    def test_no_state(self, data: bytes, make: Callable[..., Program], cache_dir: Path) -> None:
        """Files that are no state are moved aside."""
        cache_dir.mkdir(0o700)
        (cache_dir / NAME).write_bytes(data)
        assert make().load_state() == {"value": "default"}
        (aside,) = cache_dir.glob("*.broken-*")
        assert aside.read_bytes() == data

    @pytest.mark.parametrize("previous", [None, b"", b"garbage too"])
    def test_fail_option(self, previous: bytes | None, make: Callable[..., Program], cache_dir: Path) -> None:
        """With broken state fail each run ends until a person comes."""
        make().save({"value": "old"})
        (cache_dir / NAME).write_bytes(b"garbage")
        if previous is not None:
            (cache_dir / f"{NAME}.previous").write_bytes(previous)
            (cache_dir / f"{NAME}.previous").chmod(0o600)
        before = names(cache_dir)
        for _ in range(2):
            with pytest.raises(StateError, match="broken_state = fail"):
                make(broken_state="fail").load_state()
        assert (cache_dir / NAME).read_bytes() == b"garbage"
        assert names(cache_dir) == before

    def test_fail_option_with_a_good_one(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """With broken state fail a good state before the broken one is used."""
        make().save({"value": "old"})
        make().save({"value": "new"})
        (cache_dir / NAME).write_bytes(b"garbage")
        assert make(broken_state="fail").load_state() == {"value": "old"}

    def test_both(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """If both states are broken both are kept and the default is used."""
        for value in ("old", "new"):
            make().save({"value": value})
        (cache_dir / NAME).write_bytes(b"one")
        (cache_dir / f"{NAME}.previous").write_bytes(b"two")
        assert make().load_state() == {"value": "default"}
        assert {path.read_bytes() for path in cache_dir.glob("*.broken-*")} == {b"one", b"two"}
        assert make().load_state() == {"value": "default"}

    def test_refused_before_it(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """If the state before a broken one is refused nothing is moved."""
        program = make(Admitting)
        program.save({"value": logging.LogRecord})
        program.save_state({"value": "new"})
        (cache_dir / NAME).write_bytes(b"garbage")
        before = names(cache_dir)
        for _ in range(2):
            with pytest.raises(StateError, match="state_classes"):
                make().load_state()
        assert names(cache_dir) == before

    def test_second_broken(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A second broken file does not replace the first."""
        for data in (b"first", b"second"):
            make().save({"value": 1})
            (cache_dir / NAME).write_bytes(data)
            make().load_state()
        kept = {path.read_bytes() for path in cache_dir.glob("*.broken-*")}
        assert {b"first", b"second"} <= kept

    def test_save_after_it(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """The state after a broken one keeps the good one beside."""
        make().save({"value": "good"})
        make().save({"value": "broken"})
        (cache_dir / NAME).write_bytes(b"x")
        program = make()
        program.load_state()
        program.save_state({"value": "newest"})
        assert pickle.loads((cache_dir / f"{NAME}.previous").read_bytes()) == {"value": "good"}


class TestRefusals:
    """What is not taken, and what is said of it."""

    def test_class_not_admitted(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A class that is not admitted is refused and the file stays."""
        make(Admitting).save({"value": logging.LogRecord})
        before = (cache_dir / NAME).read_bytes()
        with pytest.raises(StateError, match=r"logging\.LogRecord.*state_classes"):
            make().load_state()
        assert (cache_dir / NAME).read_bytes() == before

    def test_state_classes(self, make: Callable[..., Program]) -> None:
        """State classes admits more."""
        make(Admitting).save({"value": logging.LogRecord, "more": logging.Filter})
        assert make(Admitting).load_state() == {"value": logging.LogRecord, "more": logging.Filter}

    @pytest.mark.parametrize(
        ("state", "told"),
        [
            ({"last": Text("5")}, r"the class a_library.Text .*state_classes"),
            ({"code": http.HTTPStatus.OK}, r"the class http.HTTPStatus is not"),
            ([logging.LogRecord], r"the class logging.LogRecord is not"),
            ([re.compile("a")], r"re._compile is not a class"),
            ([ValueError("x")], r"the class builtins.ValueError is not"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_not_loadable_again(
        self, state: Any, told: str, make: Callable[..., Program], cache_dir: Path
    ) -> None:
        """A state that no later run could load is refused before the file is touched."""
        make().save({"value": "good"})
        before = (cache_dir / NAME).read_bytes()
        with pytest.raises(StateError, match=told) as refused:
            make().save(state)
        assert str(cache_dir / NAME) in str(refused.value)
        assert (cache_dir / NAME).read_bytes() == before
        assert names(cache_dir) == [NAME]

    def test_newer_version(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A file of a newer version is refused and stays."""
        import hashlib

        make().save({"value": 1})
        pickled, footer = (cache_dir / NAME).read_bytes().rsplit(b"\n#n6-stateful 1 ", 1)
        line = b"\n#n6-stateful 2 " + footer[: footer.index(b"check=") + 6]
        newer = pickled + line + hashlib.sha256(line).hexdigest()[:16].encode() + b"\n"
        (cache_dir / NAME).write_bytes(newer)
        with pytest.raises(StateError, match="newer n6-stateful-runtime"):
            make().load_state()
        assert (cache_dir / NAME).read_bytes() == newer

    @pytest.mark.parametrize(
        ("state", "told"),
        [
            ({"session": {"lock": threading.Lock()}}, r"cannot pickle '_thread.lock' object"),
            ([1, (2, iter("abc").__next__)], "builtins.getattr is not admitted"),
            (threading.Event(), "the class threading.Event is not admitted"),
        ],
    )
    def test_not_picklable(
        self, state: Any, told: str, make: Callable[..., Program], cache_dir: Path
    ) -> None:
        """A state that does not pickle is refused naming what."""
        make().save({"value": "good"})
        before = (cache_dir / NAME).read_bytes()
        with pytest.raises(StateError, match=told):
            make().save(state)
        assert (cache_dir / NAME).read_bytes() == before
        assert names(cache_dir) == [NAME]

    @pytest.mark.parametrize("mode", [0o720, 0o702])
    def test_directory_others_may_write(
        self, mode: int, make: Callable[..., Program], cache_dir: Path
    ) -> None:
        """A directory that others may write is refused with the chmod that mends it."""
        cache_dir.mkdir()
        cache_dir.chmod(mode)
        with pytest.raises(StateError, match=f"chmod go-w {cache_dir}"):
            make().load_state()
        subprocess.check_call(["chmod", "go-w", cache_dir])
        make().load_state()

    def test_file_others_may_write(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A file that others may write is refused."""
        make().save({"value": 1})
        (cache_dir / NAME).chmod(0o620)
        with pytest.raises(StateError, match=f"chmod go-w {cache_dir / NAME}"):
            make().load_state()

    def test_symbolic_link(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A symbolic link is refused."""
        make().save({"value": 1})
        (cache_dir / NAME).rename(cache_dir / "elsewhere")
        (cache_dir / NAME).symlink_to(cache_dir / "elsewhere")
        with pytest.raises(StateError, match="symbolic link"):
            make().load_state()

    def test_file_for_directory(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A file where the directory belongs is one clear error."""
        cache_dir.write_text("")
        with pytest.raises(StateError, match=f"{cache_dir}"):
            make().load_state()

    @pytest.mark.parametrize("begin", [os.mkfifo, os.mkdir])
    def test_no_file(
        self, begin: Callable[[Path], None], make: Callable[..., Program], cache_dir: Path
    ) -> None:
        """What is not a file is refused and not waited for."""
        cache_dir.mkdir(0o700)
        begin(cache_dir / NAME)
        with pytest.raises(StateError, match=f"{cache_dir / NAME}: .*(is not a regular file|Is a directory)"):
            make().load_state()

    def test_no_cache_dir(self) -> None:
        """Without cache dir in config spec it says what to add."""
        with pytest.raises(ConfigError, match="cache_dir :: path"):
            Program()

    @pytest.mark.parametrize(
        ("option", "value"), [("cache_dir", "relative/path"), ("broken_state", "ignore")]
    )
    def test_wrong_options(self, option: str, value: str, tmp_path: Path) -> None:
        """Wrong options are errors of the configuration."""
        with pytest.raises(ConfigError, match=value):
            Program(**{"cache_dir": str(tmp_path), option: value})

    @as_root
    def test_other_owner(self, nobodys_directory: Path) -> None:
        """What belongs to another user is refused."""
        os.chown(nobodys_directory, 65534, 65534)
        process = start(nobodys_directory, "load")
        _, told = process.communicate(timeout=60)
        assert process.returncode == 74
        assert "belongs to another user (uid 65534" in told

    @as_root
    def test_root_in_a_users_directory(self, nobodys_directory: Path) -> None:
        """Root makes nothing in another user's directory, who would be locked out."""
        os.chown(nobodys_directory, 65534, 65534)
        process = start(nobodys_directory / "cache", "load")
        _, told = process.communicate(timeout=60)
        assert process.returncode == 74
        assert "belongs to uid 65534" in told
        assert not list(nobodys_directory.iterdir())

    @as_root
    def test_no_right_to_write(self, nobodys_directory: Path) -> None:
        """A directory without the right to write is one clear error."""
        cache_dir = nobodys_directory / "cache"
        code = (
            "import os, sys\n"
            "from n6_stateful.state.file import Path, StateError, FileStore\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "try: FileStore(Path(sys.argv[1])).lock()\n"
            "except StateError as error: print(error)"
        )
        for mode in (0o755, 0o500):
            nobodys_directory.chmod(mode)
            argv = [sys.executable, "-c", code, str(cache_dir / NAME)]
            done = subprocess.run(argv, capture_output=True, text=True)
            assert f"{cache_dir}: cannot be used: Permission denied" in done.stdout, done.stderr


class TestOneRun:
    """One run at a time has the state."""

    def test_ten_at_once(self, cache_dir: Path) -> None:
        """Of ten runs at once one goes on and nine end with 75 naming it."""
        processes = [start(cache_dir, "hold") for _ in range(10)]
        finished: dict[subprocess.Popen[str], str] = {}
        while len(finished) < 9:
            for process in processes:
                if process not in finished and process.poll() is not None:
                    finished[process] = process.communicate()[1]
        (holder,) = (process for process in processes if process not in finished)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert {process.returncode for process in finished} == {75}
        # Since when is told by those who look after it has said so.
        assert all(f"(process {holder.pid}" in told for told in finished.values())
        assert any(f"process {holder.pid}, since 20" in told for told in finished.values())
        holder.communicate(timeout=60)
        assert holder.returncode == 0

    def test_killed_run(self, cache_dir: Path) -> None:
        """A killed run and the lock file it leaves block nobody."""
        holder = start(cache_dir, "hold")
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        assert (cache_dir / f"{NAME}.lock").exists()
        process = start(cache_dir, "load")
        assert json.loads(process.communicate(timeout=60)[0]) == {"value": "default"}

    def test_forked_child(self, cache_dir: Path) -> None:
        """A forked child does not release the lock."""
        holder = start(cache_dir, "fork")
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        process = start(cache_dir, "load")
        process.communicate(timeout=60)
        assert process.returncode == 75
        holder.communicate(timeout=60)

    def test_same_process(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A second collector in the same process is another run."""
        make().load_state()
        with pytest.raises(StateLockedError):
            Program(cache_dir=str(cache_dir)).load_state()


class TestFromN6:
    """States that n6 has left."""

    def test_plain_pickle(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A plain pickle as n6 writes it is loaded."""
        cache_dir.mkdir(0o700)
        state = {"last_utc": datetime.datetime(2026, 1, 1), "ids": {1, 2}}
        (cache_dir / NAME).write_bytes(pickle.dumps(state, 5))
        program = make()
        assert program.load_state() == state
        assert program.state_generation == ""

    def test_class_fails(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A pickle of n6 that is whole but whose class fails stays where it is."""
        made = Version2()
        vars(made)["old name"] = 5
        cache_dir.mkdir(0o700)
        (cache_dir / NAME).write_bytes(n6s_pickle(made))
        for _ in range(2):
            with pytest.raises(StateError, match=r"cannot be loaded: KeyError: 'new name'.*stays as it is"):
                make().load_state()
        assert names(cache_dir) == [NAME]

    def test_cut_off(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A pickle of n6 that was cut off is broken."""
        data = n6s_pickle("value")
        cache_dir.mkdir(0o700)
        for cut in range(len(data)):
            (cache_dir / NAME).write_bytes(data[:cut])
            assert make().load_state() == {"value": "default"}
        assert len(list(cache_dir.glob("*.broken-*"))) == len(data)

    def test_short_of_memory(self, cache_dir: Path) -> None:
        """Memory that is short is no broken state."""
        cache_dir.mkdir(0o700)
        (cache_dir / NAME).write_bytes(n6s_pickle("x" * 300_000_000))
        size = (cache_dir / NAME).stat().st_size

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (250_000_000, resource.RLIM_INFINITY))

        argv = [sys.executable, str(PROGRAM), str(cache_dir), "load"]
        done = subprocess.run(argv, capture_output=True, text=True, preexec_fn=limit, timeout=60)
        assert (done.returncode, "cannot be loaded: MemoryError" in done.stderr) == (74, True), done.stderr
        assert names(cache_dir) == [NAME]
        assert (cache_dir / NAME).stat().st_size == size

    @pytest.mark.parametrize("protocol", [0, 1, 2])
    @pytest.mark.parametrize("name", sorted(PY2_EXPECTED))
    def test_python_2(self, name: str, protocol: int, make: Callable[..., Program], cache_dir: Path) -> None:
        """A state that n6 saved under Python 2 is loaded without losing a byte."""
        cache_dir.mkdir(0o700)
        (cache_dir / NAME).write_bytes((PY2_STATES / f"{name}-{protocol}.pickle").read_bytes())
        state = make().load_state()
        expected = PY2_EXPECTED[name]
        assert state == expected
        if isinstance(expected, dict):
            assert {key: type(item) for key, item in state.items()} == {
                key: type(item) for key, item in expected.items()
            }

    def test_bytes_of_python_2(self) -> None:
        """Bytes of Python 2 that are no UTF-8 can be had back."""
        latin2 = PY2_EXPECTED["latin2"]
        assert isinstance(latin2, str)
        assert latin2.encode("utf-8", "surrogateescape").decode("iso-8859-2") == "zażółć"

    def test_hooks(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """The hooks of n6 for Python 2 are called."""

        class Adjusting(Program):
            def get_py2_pickle_load_kwargs(self) -> dict[str, str]:
                return {"encoding": "iso-8859-2", "errors": "strict"}

            def adjust_state_from_py2_pickle(self, state: Any) -> Any:
                return {"adjusted": state}

        Adjusting.__name__ = "Program"
        cache_dir.mkdir(0o700)
        (cache_dir / NAME).write_bytes((PY2_STATES / "latin2-2.pickle").read_bytes())
        assert make(Adjusting).load_state() == {"adjusted": "zażółć"}

    def test_hook_fails(self, make: Callable[..., Program], cache_dir: Path) -> None:
        """A hook that fails fails the run and leaves the file."""

        class Failing(Program):
            def adjust_state_from_py2_pickle(self, state: Any) -> Any:
                raise KeyError("a mistake of the collector's own")

        Failing.__name__ = "Program"
        cache_dir.mkdir(0o700)
        before = (PY2_STATES / "plain-2.pickle").read_bytes()
        (cache_dir / NAME).write_bytes(before)
        with pytest.raises(KeyError, match="mistake"):
            make(Failing).load_state()
        assert (cache_dir / NAME).read_bytes() == before

    @pytest.mark.parametrize("encoding", ["ascii", "utf-8", "no-such-encoding"])
    def test_encoding_does_not_fit(
        self, encoding: str, make: Callable[..., Program], cache_dir: Path
    ) -> None:
        """An encoding that does not fit is told and leaves the file."""

        class Strict(Program):
            def get_py2_pickle_load_kwargs(self) -> dict[str, str]:
                return {"encoding": encoding, "errors": "strict"}

        Strict.__name__ = "Program"
        cache_dir.mkdir(0o700)
        before = (PY2_STATES / "latin2-2.pickle").read_bytes()
        (cache_dir / NAME).write_bytes(before)
        with pytest.raises(StateError, match="get_py2_pickle_load_kwargs"):
            make(Strict).load_state()
        assert (cache_dir / NAME).read_bytes() == before

    @pytest.mark.parametrize("protocol", [-1, *range(pickle.HIGHEST_PROTOCOL + 1)])
    def test_old_protocol_of_ours(self, protocol: int, make: Callable[..., Program], cache_dir: Path) -> None:
        """A state of ours in an old protocol is not taken for one of Python 2."""

        class Old(Program):
            pickle_protocol = protocol

        Old.__name__ = "Program"
        state = {"value": b"\xff", "empty": b"", "set": {1}, "uuid": uuid.UUID(int=5)}
        make(Old).save(state)
        assert make().load_state() == state
        assert pickle.loads((cache_dir / NAME).read_bytes()) == state
