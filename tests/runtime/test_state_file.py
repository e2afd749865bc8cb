"""One file, its lock and its neighbours, below the mixin."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n6_stateful import StateError, StateLockedError
from n6_stateful.state.file import FileStore
from n6_stateful.state.format import MARK, SIGNATURE
from n6_stateful.state.store import BrokenStateError, Generation, StateStore
from tests.runtime.store_contract import Damage, MakeStore, StoreContract

# Begins a process that opens the state file named by its argument as `file`.
BEGIN = "import os, sys\nfrom n6_stateful.state.file import *\nfile = FileStore(Path(sys.argv[1]))\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "name.pickle"


@pytest.fixture
def file(path: Path) -> Iterator[FileStore]:
    """A state file whose lock is held by this process."""
    file = FileStore(path)
    file.lock()
    yield file
    file.unlock()


def dumped(state: Any, protocol: int = 5) -> Callable[[Any], None]:
    return lambda target: pickle.Pickler(target, protocol).dump(state)


def saved(file: FileStore, state: Any, number: int = 1) -> bytes:
    file.write(dumped(state), number)
    return file.path.read_bytes()


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir() if each.suffix != ".lock")


@contextmanager
def nobodys_directory() -> Iterator[Path]:
    """pytest's own directories are closed to others."""
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, 65534, 65534)
        yield Path(directory)


def told_to_nobody(code: str, path: Path) -> str:
    """The error of `code`, which ends with what is tried, when nobody (the user) runs it."""
    code = f"os.setgid(65534); os.setuid(65534)\n{code}except StateError as error: print(error)\n"
    done = subprocess.run([sys.executable, "-c", BEGIN + code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


class TestContract(StoreContract):
    """The file store owes what every store owes."""

    @pytest.fixture
    def make_store(self, path: Path) -> MakeStore:
        return lambda: FileStore(path)

    @pytest.fixture
    def damage(self) -> Damage:
        def damage(store: StateStore, generation: Generation) -> None:
            data = bytearray(Path(generation.where).read_bytes())
            data[30] ^= 1
            Path(generation.where).write_bytes(data)

        return damage


class TestProof:
    """That a state can be saved is proven before anything is published."""

    @pytest.fixture
    def tiny_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A directory on a file system of 64 KiB."""
        directory = tmp_path / "tiny"
        directory.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", directory]).returncode:
            pytest.skip("needs root to mount a file system")
        yield directory
        subprocess.run(["umount", directory], check=True)

    def test_full_disk(self, tiny_disk: Path) -> None:
        """On a full disk it fails, says so and leaves nothing; with room it goes on."""
        file = FileStore(tiny_disk / "name.pickle")
        file.lock()
        file.write(dumped("x" * 20_000), 1)
        file.prove_writable()
        with suppress(OSError), (tiny_disk / "fill").open("wb", buffering=0) as fill:
            while True:
                fill.write(bytes(4096))
        before = names(file.path)
        for _ in range(2):
            with pytest.raises(StateError, match="no new state could be saved: No space left"):
                file.prove_writable()
        assert names(file.path) == before
        (tiny_disk / "fill").write_bytes(
            bytes(20_000)
        )  # a hole is left, but not for as much as the last state
        with suppress(OSError), (tiny_disk / "fill2").open("wb", buffering=0) as fill:
            for _ in range(3):
                fill.write(bytes(4096))
        with pytest.raises(StateError, match="No space left"):
            file.prove_writable()
        (tiny_disk / "fill").unlink()
        file.prove_writable()
        file.unlock()

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
    def test_directory_read_only(self) -> None:
        """The lock file is there, but nothing can be made beside it: that is found too."""
        code = (
            "file.lock(); file.write(lambda target: target.write(b'N.'), 1)\n"
            "os.chmod(file.path.parent, 0o500)\n"
            "try: file.prove_writable()\n"
        )
        with nobodys_directory() as directory:
            told = told_to_nobody(code, directory / "cache" / "name.pickle")
        assert "no new state could be saved: Permission denied" in told

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
    def test_of_root(self) -> None:
        """A state that root has put there, for itself alone, is told with the chown that mends it."""
        with nobodys_directory() as directory:
            path = directory / "name.pickle"
            path.write_bytes(b"N.")
            path.chmod(0o600)
            told = told_to_nobody("try: file.read(lambda source: source.read())\n", path)
        assert "belongs to another user (uid 0, this is uid 65534)" in told
        assert f"chown 65534 {path}" in told

    def test_immutable_file(self, file: FileStore) -> None:
        """A file that was made immutable could not be replaced."""
        file.write(dumped(1), 1)
        if subprocess.run(["chattr", "+i", file.path], capture_output=True).returncode:
            pytest.skip("needs root, and a file system that knows immutable files")
        try:
            with pytest.raises(StateError, match="no new state could be saved: Operation not permitted"):
                file.prove_writable()
        finally:
            subprocess.run(["chattr", "-i", file.path], check=True)

    def test_killed(self, path: Path) -> None:
        """What a run that is killed meanwhile leaves is swept by the next one."""
        (FileStore(path)).lock()
        left = path.with_name(".name.pickle.0123.tmp")
        left.write_bytes(bytes(1000))
        FileStore(path.with_name("other.pickle")).lock()
        assert left.exists()


class TestContents:
    """What is in the file."""

    def test_footer(self, file: FileStore) -> None:
        """The footer is one line that people can read."""
        footer = file.write(dumped({"a": 1}), 7)
        line = file.path.read_bytes().splitlines()[-1].decode("ascii")
        assert line.startswith(f"#n6-stateful 1 generation={footer.id} number=7 saved=20")
        assert file.read(pickle.load) == ({"a": 1}, footer)
        assert file.generations() == [footer]

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize("size", [0, 1, 600, 1 << 20, (1 << 20) + 1, 5_000_000])
    def test_any_size_and_protocol(self, size: int, protocol: int, file: FileStore) -> None:
        """States of any size and protocol come back."""
        state = {"bytes": os.urandom(size), "text": "x" * size}
        file.write(dumped(state, protocol), 1)
        assert file.read(pickle.load)[0] == state
        assert pickle.loads(file.path.read_bytes()) == state

    @pytest.mark.parametrize("text", [SIGNATURE, SIGNATURE * 50, MARK, SIGNATURE + b"1 generation="])
    def test_looks_like_a_footer(self, text: bytes, file: FileStore) -> None:
        """A state that holds what looks like a footer comes back."""
        state = [text, text.decode("latin1")]
        data = saved(file, state)
        assert file.read(pickle.load)[0] == state
        for cut in range(1, 600):
            file.path.write_bytes(data[:-cut])
            with pytest.raises(BrokenStateError):
                file.read(pickle.load)

    def test_end_never_written(self, file: FileStore) -> None:
        """A file whose end never reached the disk is broken."""
        data = saved(file, {"value": list(range(100))})
        for written in range(len(data)):
            file.path.write_bytes(data[:written] + bytes(len(data) - written))
            with pytest.raises(BrokenStateError):
                file.read(pickle.load)

    @given(st.data())
    def test_any_change(self, tmp_path_factory: Any, data: st.DataObject) -> None:
        """Any change to any part of the file is found."""
        file = FileStore(tmp_path_factory.mktemp("any") / "name.pickle")
        file.lock()
        good = saved(file, {"value": "good"})
        begin = data.draw(st.integers(0, len(good)))
        end = data.draw(st.integers(begin, len(good)))
        changed = good[:begin] + data.draw(st.binary(max_size=20)) + good[end:]
        file.path.write_bytes(changed)
        if changed == good:
            assert file.read(pickle.load)[0] == {"value": "good"}
        elif changed.startswith(MARK) or SIGNATURE in changed:
            with pytest.raises(BrokenStateError):
                file.read(pickle.load)
        file.unlock()

    def test_foreign_footer(self, file: FileStore) -> None:
        """A footer of another state does not fit."""
        one, other = saved(file, {"value": 1}), saved(file, {"value": 2})
        assert len(one) == len(other)
        at = one.index(SIGNATURE)
        file.path.write_bytes(one[:at] + other[at:])
        with pytest.raises(BrokenStateError, match="not what was saved"):
            file.read(pickle.load)

    def test_two_in_one(self, file: FileStore) -> None:
        """Two files in one are broken."""
        one, other = saved(file, {"value": 1}), saved(file, {"value": 2})
        file.path.write_bytes(one + other)
        with pytest.raises(BrokenStateError):
            file.read(pickle.load)

    def test_plain_pickle(self, file: FileStore) -> None:
        """A plain pickle has no footer and nothing may follow it."""
        plain = pickle.dumps({"value": 1})
        file.path.write_bytes(plain)
        file.path.chmod(0o600)
        assert file.read(pickle.load)[1]._replace(where="") == ("", 0, "", len(plain), "", "")
        file.path.write_bytes(plain + b"\n")
        with pytest.raises(BrokenStateError, match="follows the pickle"):
            file.read(pickle.load)

    def test_loading_fails(self, file: FileStore) -> None:
        """A pickle whose loading fails is broken unless it is what was saved."""

        def failing(binary: Any) -> Any:
            raise RuntimeError("a mistake in a class of the collector")

        data = saved(file, {"value": 1})
        with pytest.raises(StateError, match="cannot be loaded: RuntimeError: a mistake") as told:
            file.read(failing)
        assert not isinstance(told.value, BrokenStateError)
        assert file.path.read_bytes() == data

    def test_reading_while_saving(self, path: Path) -> None:
        """Whoever reads while another saves sees one whole state or the next."""
        saver = python(
            "import pickle\nfile.lock()\n"
            "for number in range(1, 201):\n"
            "    file.write(lambda target: target.write(pickle.dumps([number] * 20_000)), number)\n"
            "    if number == 1: print('saving', flush=True)\n",
            path,
        )
        assert said(saver) == "saving\n"
        seen = []
        while saver.poll() is None:
            state, footer = FileStore(path).read(pickle.load)
            assert footer is not None
            assert state == [footer.number] * 20_000
            seen.append(footer.number)
        saver.communicate()
        assert saver.returncode == 0
        assert seen == sorted(seen)
        assert len(set(seen)) > 3

    def test_nonsense_in_footer(self, file: FileStore) -> None:
        """A footer whose checksum is right but that says nonsense is broken."""
        saved(file, 1)
        for line in (b"1 check=", b"x y=z check=", b"1 generation=a number=x saved= length=1 sha256= check="):
            whole = SIGNATURE + line
            whole += hashlib.sha256(whole).hexdigest()[:16].encode() + b"\n"
            file.path.write_bytes(MARK + b"N." + whole)
            with pytest.raises(StateError):
                file.read(pickle.load)


class TestWriting:
    """A save that fails, or that cannot do all it would like to."""

    def test_dump_fails(self, file: FileStore) -> None:
        """A dump that fails half way leaves everything as it was."""
        before = saved(file, {"value": "good"})

        def failing(target: Any) -> None:
            target.write(b"half a pickle")
            raise KeyError("half way")

        with pytest.raises(KeyError, match="half way"):
            file.write(failing, 2)
        assert file.path.read_bytes() == before
        assert names(file.path) == ["name.pickle"]

    @pytest.mark.parametrize("had_one", [True, False])
    def test_file_too_large(self, had_one: bool, path: Path) -> None:
        """A full disk is one error and leaves everything as it was."""
        code = (
            "import pickle, resource\n"
            "file.lock()\n"
            f"if {had_one}: file.write(lambda target: target.write(pickle.dumps('good')), 1)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
            "try: file.write(lambda target: target.write(pickle.dumps('x' * 9000)), 2)\n"
            "except StateError as error: print(error)\n"
        )
        out, err = python(code, path).communicate(timeout=60)
        assert "the state could not be saved: File too large" in out, err
        assert "the state is what it was" in out
        assert names(path) == (["name.pickle"] if had_one else [])
        if had_one:
            assert FileStore(path).read(pickle.load)[0] == "good"

    @pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
    def test_no_hard_links(self, code: int, file: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a file system without hard links the state before is kept too."""

        def no_links(*args: Any, **kwargs: Any) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "link", no_links)
        one, two = saved(file, 1), saved(file, 2)
        assert (file.path.read_bytes(), file.previous.read_bytes()) == (two, one)
        assert file.previous.stat().st_mode & 0o777 == 0o600
        file.path.write_bytes(b"garbage")
        aside = Path(file.set_aside(file.generations()[0]))
        assert (file.path.read_bytes(), aside.read_bytes()) == (one, b"garbage")
        assert names(file.path) == sorted(["name.pickle", aside.name])

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_umask(self, umask: int, tmp_path: Path) -> None:
        """Directories are made for the user alone whatever the umask."""
        code = f"os.umask({umask})\nfile.lock()\nfile.write(lambda target: target.write(b'N.'), 1)\n"
        path = tmp_path / "one" / "two" / "name.pickle"
        out, err = python(code, path).communicate(timeout=60)
        assert (out, err) == ("", "")
        for each in (path.parent, path.parent.parent):
            assert each.stat().st_mode & 0o777 == 0o700
        assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


class TestLeftOver:
    """What a killed save has left."""

    def test_between_renames(self, file: FileStore) -> None:
        """A save killed between its two renames is finished."""
        one, two = saved(file, 1), saved(file, 2)
        three = saved(file, 3)
        kept = file.path.with_name(f".{file.path.name}.kept.tmp")
        # As it was then: the new state is in place, the one before it not yet under its name.
        kept.write_bytes(two)
        file.previous.write_bytes(one)
        file.unlock()
        file.lock()
        assert (file.path.read_bytes(), file.previous.read_bytes()) == (three, two)
        assert names(file.path) == ["name.pickle", "name.pickle.previous"]

    @pytest.mark.parametrize("linked", [True, False])
    def test_before_rename(self, linked: bool, file: FileStore) -> None:
        """A save killed before its first rename leaves the state before as it was."""
        one, two = saved(file, 1), saved(file, 2)
        kept = file.path.with_name(f".{file.path.name}.kept.tmp")
        if linked:
            kept.hardlink_to(file.path)
        else:
            kept.write_bytes(two)
        file.unlock()
        file.lock()
        assert (file.path.read_bytes(), file.previous.read_bytes()) == (two, one)
        assert names(file.path) == ["name.pickle", "name.pickle.previous"]

    def test_other_files(self, file: FileStore) -> None:
        """What other programs keep in the directory stays."""
        others = [
            ".other.pickle.kept.tmp",
            ".name.pickle2.0123.tmp",
            "name.pickle.tmp",
            "name.pickle.broken-x",
        ]
        for name in others:
            (file.path.parent / name).touch()
        file.unlock()
        file.lock()
        assert names(file.path) == sorted(others)

    def test_broken_files(self, file: FileStore) -> None:
        """Broken files never replace one another."""
        for number in range(5):
            file.path.write_bytes(str(number).encode())
            file.path.chmod(0o600)
            file.set_aside(file.generations()[0])
        kept = [each.read_bytes() for each in file.path.parent.glob("name.pickle.broken-*")]
        assert sorted(kept) == [b"0", b"1", b"2", b"3", b"4"]


class TestLock:
    """The lock, whoever dies, forks, looks or removes."""

    def test_again(self, path: Path) -> None:
        """The lock can be taken again when it was given back."""
        for _ in range(3):
            file = FileStore(path)
            file.lock()
            file.lock()  # that it is ours already is no error
            with pytest.raises(StateLockedError, match=f"process {os.getpid()}, since 20"):
                FileStore(path).lock()
            file.unlock()
            file.unlock()

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
    def test_same_inode(self, tmp_path: Path) -> None:
        """A lock on another file system, of a file with the same inode, is not this one's."""
        files = []
        for name in ("ours", "other"):
            (tmp_path / name).mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", tmp_path / name], check=True)
            path = tmp_path / name / "name.pickle"
            path.with_name("name.pickle.lock").write_text("1 2026-01-01T00:00:00Z")
            files.append(FileStore(path))
        ours, other = files
        try:
            inodes = {each.path.with_name("name.pickle.lock").stat().st_ino for each in files}
            assert len(inodes) == 1
            other.lock()
            assert ours.holder() is None
            assert f"process {os.getpid()}," in str(other.holder())
        finally:
            other.unlock()
            for name in ("ours", "other"):
                subprocess.run(["umount", tmp_path / name], check=True)

    @pytest.mark.parametrize("said_before", ["", "999999999 2020-01-01T00:00:00Z\n"])
    def test_holder_not_written_yet(self, said_before: str, path: Path) -> None:
        """A holder that has not said yet who it is is named all the same."""
        # Its first system calls, one at a time.
        code = (
            "import fcntl\n"
            "path = Path(sys.argv[1] + '.lock')\n"
            "lock = path.open('r+')\n"
            "fcntl.flock(lock, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "sys.stdin.readline()\n"
        )
        path.parent.mkdir(mode=0o700)
        path.with_name("name.pickle.lock").write_text(said_before)
        holder = python(code, path)
        assert said(holder) == "held\n"
        with pytest.raises(StateLockedError, match=f"process {holder.pid}"):
            FileStore(path).lock()
        assert FileStore(path).holder() == f"process {holder.pid}"
        holder.communicate()
        assert FileStore(path).holder() is None

    def test_looking(self, path: Path) -> None:
        """Looking who holds the lock keeps nobody from taking it."""
        file = FileStore(path)
        file.lock()
        file.unlock()
        looking = python(
            "print('looking', flush=True)\nwhile True: file.holder()\n",
            path,
        )
        assert said(looking) == "looking\n"
        try:
            for _ in range(300):
                # Each run is a process of its own, and the one before it has ended.
                path.with_name("name.pickle.lock").write_text("999999999 2020-01-01T00:00:00Z\n")
                file.lock()
                file.unlock()
        finally:
            looking.kill()
            looking.communicate()

    def test_empty_lock_file(self, file: FileStore) -> None:
        """A lock file that says nothing is no matter."""
        file.path.with_name("name.pickle.lock").write_bytes(b"")
        with pytest.raises(StateLockedError, match=f"process {os.getpid()}\\)"):
            FileStore(file.path).lock()

    def test_lock_file_removed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lock file that is removed just before it is locked is made anew."""
        lock_path = path.with_name("name.pickle.lock")
        flock = fcntl.flock
        removed: list[int] = []

        def flock_after_a_removal(descriptor: int, operation: int) -> None:
            if len(removed) < 3:
                lock_path.unlink()
                removed.append(descriptor)
            flock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", flock_after_a_removal)
        file = FileStore(path)
        file.lock()
        assert len(removed) == 3
        with pytest.raises(StateLockedError):
            FileStore(path).lock()
        file.unlock()

    def test_symbolic_link(self, path: Path) -> None:
        """A symbolic link in the place of the lock file is refused and not followed."""
        path.parent.mkdir(mode=0o700)
        target = path.parent / "precious"
        target.write_bytes(b"precious")
        path.with_name("name.pickle.lock").symlink_to(target)
        with pytest.raises(StateError, match="symbolic links"):
            FileStore(path).lock()
        assert target.read_bytes() == b"precious"

    def test_fails_half_way(self, path: Path) -> None:
        """A lock that fails half way is given back."""
        code = (
            "import resource\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
            "for _ in range(2):\n"
            "    try: file.lock()\n"
            "    except StateError as error: print(type(error).__name__)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
            "file.lock()\n"
            "print('locked')\n"
        )
        out, err = python(code, path).communicate(timeout=60)
        assert out == "StateError\nStateError\nlocked\n", err

    def test_program_started_meanwhile(self, path: Path) -> None:
        """A program that was started meanwhile does not keep the lock."""
        code = (
            "import subprocess\n"
            "file.lock()\n"
            "started = subprocess.Popen(['cat'], stdin=0, stdout=subprocess.DEVNULL, close_fds=False)\n"
            "print(started.pid, flush=True)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        holder = python(code, path)
        started = int(said(holder))
        assert holder.wait(60) == -signal.SIGKILL
        os.kill(started, 0)  # it is still there
        file = FileStore(path)
        file.lock()
        file.unlock()
        holder.communicate()

    def test_forked_child(self, path: Path) -> None:
        """A forked child that goes on keeps the lock until it ends."""
        code = (
            "file.lock()\n"
            "if os.fork(): os._exit(0)\n"
            "print('child', flush=True)\n"
            "sys.stdin.read()\n"
            "os._exit(0)\n"
        )
        parent = python(code, path)
        assert said(parent) == "child\n"
        assert parent.wait(60) == 0
        with pytest.raises(StateLockedError):
            FileStore(path).lock()
        assert parent.stdin is not None
        parent.stdin.close()
        assert parent.stdout is not None
        assert parent.stdout.read() == ""  # at its end the child has ended
        file = FileStore(path)
        file.lock()
        file.unlock()
        assert parent.stderr is not None
        parent.stdout.close()
        parent.stderr.close()
