"""One file, its lock and its neighbours, below the mixin."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n6_stateful import StateError, StateLockedError
from n6_stateful.state.file import FileStore
from n6_stateful.state.format import MARK, SIGNATURE
from n6_stateful.state.store import BrokenStateError

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


# What is in it


def test_the_footer_is_one_line_that_people_can_read(file: FileStore) -> None:
    footer = file.write(dumped({"a": 1}), 7)
    line = file.path.read_bytes().splitlines()[-1].decode("ascii")
    assert line.startswith(f"#n6-stateful 1 generation={footer.id} number=7 saved=20")
    assert file.read(pickle.load) == ({"a": 1}, footer)
    assert file.generations() == [footer]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [0, 1, 600, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_states_of_any_size_and_protocol_come_back(size: int, protocol: int, file: FileStore) -> None:
    state = {"bytes": os.urandom(size), "text": "x" * size}
    file.write(dumped(state, protocol), 1)
    assert file.read(pickle.load)[0] == state
    assert pickle.loads(file.path.read_bytes()) == state


@pytest.mark.parametrize("text", [SIGNATURE, SIGNATURE * 50, MARK, SIGNATURE + b"1 generation="])
def test_a_state_that_holds_what_looks_like_a_footer_comes_back(text: bytes, file: FileStore) -> None:
    state = [text, text.decode("latin1")]
    data = saved(file, state)
    assert file.read(pickle.load)[0] == state
    for cut in range(1, 600):
        file.path.write_bytes(data[:-cut])
        with pytest.raises(BrokenStateError):
            file.read(pickle.load)


def test_a_file_whose_end_never_reached_the_disk_is_broken(file: FileStore) -> None:
    data = saved(file, {"value": list(range(100))})
    for written in range(len(data)):
        file.path.write_bytes(data[:written] + bytes(len(data) - written))
        with pytest.raises(BrokenStateError):
            file.read(pickle.load)


@given(st.data())
def test_any_change_to_any_part_of_the_file_is_found(tmp_path_factory: Any, data: st.DataObject) -> None:
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


def test_a_footer_of_another_state_does_not_fit(file: FileStore) -> None:
    one, other = saved(file, {"value": 1}), saved(file, {"value": 2})
    assert len(one) == len(other)
    at = one.index(SIGNATURE)
    file.path.write_bytes(one[:at] + other[at:])
    with pytest.raises(BrokenStateError, match="not what was saved"):
        file.read(pickle.load)


def test_two_files_in_one_are_broken(file: FileStore) -> None:
    one, other = saved(file, {"value": 1}), saved(file, {"value": 2})
    file.path.write_bytes(one + other)
    with pytest.raises(BrokenStateError):
        file.read(pickle.load)


def test_a_plain_pickle_has_no_footer_and_nothing_may_follow_it(file: FileStore) -> None:
    plain = pickle.dumps({"value": 1})
    file.path.write_bytes(plain)
    file.path.chmod(0o600)
    assert file.read(pickle.load)[1]._replace(where="") == ("", 0, "", len(plain), "", "")
    file.path.write_bytes(plain + b"\n")
    with pytest.raises(BrokenStateError, match="follows the pickle"):
        file.read(pickle.load)


def test_a_pickle_whose_loading_fails_is_broken_unless_it_is_what_was_saved(file: FileStore) -> None:
    def failing(binary: Any) -> Any:
        raise RuntimeError("a mistake in a class of the collector")

    data = saved(file, {"value": 1})
    with pytest.raises(StateError, match="cannot be loaded: RuntimeError: a mistake") as told:
        file.read(failing)
    assert not isinstance(told.value, BrokenStateError)
    assert file.path.read_bytes() == data


def test_whoever_reads_while_another_saves_sees_one_whole_state_or_the_next(path: Path) -> None:
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


# Writing


def test_a_dump_that_fails_half_way_leaves_everything_as_it_was(file: FileStore) -> None:
    before = saved(file, {"value": "good"})

    def failing(target: Any) -> None:
        target.write(b"half a pickle")
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        file.write(failing, 2)
    assert file.path.read_bytes() == before
    assert names(file.path) == ["name.pickle"]


@pytest.mark.parametrize("had_one", [True, False])
def test_a_full_disk_is_one_error_and_leaves_everything_as_it_was(had_one: bool, path: Path) -> None:
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
def test_on_a_file_system_without_hard_links_the_state_before_is_kept_too(
    code: int, file: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
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


# What a killed save has left


def test_a_save_killed_between_its_two_renames_is_finished(file: FileStore) -> None:
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
def test_a_save_killed_before_its_first_rename_leaves_the_state_before_as_it_was(
    linked: bool, file: FileStore
) -> None:
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


def test_what_other_programs_keep_in_the_directory_stays(file: FileStore) -> None:
    others = [".other.pickle.kept.tmp", ".name.pickle2.0123.tmp", "name.pickle.tmp", "name.pickle.broken-x"]
    for name in others:
        (file.path.parent / name).touch()
    file.unlock()
    file.lock()
    assert names(file.path) == sorted(others)


def test_broken_files_never_replace_one_another(file: FileStore) -> None:
    for number in range(5):
        file.path.write_bytes(str(number).encode())
        file.path.chmod(0o600)
        file.set_aside(file.generations()[0])
    kept = [each.read_bytes() for each in file.path.parent.glob("name.pickle.broken-*")]
    assert sorted(kept) == [b"0", b"1", b"2", b"3", b"4"]


# The lock


def test_the_lock_can_be_taken_again_when_it_was_given_back(path: Path) -> None:
    for _ in range(3):
        file = FileStore(path)
        file.lock()
        file.lock()  # that it is ours already is no error
        with pytest.raises(StateLockedError, match=f"process {os.getpid()}, since 20"):
            FileStore(path).lock()
        file.unlock()
        file.unlock()


@pytest.mark.parametrize("said_before", ["", "999999999 2020-01-01T00:00:00Z\n"])
def test_a_holder_that_has_not_said_yet_who_it_is_is_named_all_the_same(said_before: str, path: Path) -> None:
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


def test_looking_who_holds_the_lock_keeps_nobody_from_taking_it(path: Path) -> None:
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


def test_a_lock_file_that_says_nothing_is_no_matter(file: FileStore) -> None:
    file.path.with_name("name.pickle.lock").write_bytes(b"")
    with pytest.raises(StateLockedError, match=f"process {os.getpid()}\\)"):
        FileStore(file.path).lock()


def test_a_lock_file_that_is_removed_just_before_it_is_locked_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_symbolic_link_in_the_place_of_the_lock_file_is_refused_and_not_followed(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    target = path.parent / "precious"
    target.write_bytes(b"precious")
    path.with_name("name.pickle.lock").symlink_to(target)
    with pytest.raises(StateError, match="symbolic links"):
        FileStore(path).lock()
    assert target.read_bytes() == b"precious"


def test_a_lock_that_fails_half_way_is_given_back(path: Path) -> None:
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


def test_a_program_that_was_started_meanwhile_does_not_keep_the_lock(path: Path) -> None:
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


def test_a_forked_child_that_goes_on_keeps_the_lock_until_it_ends(path: Path) -> None:
    code = (
        "file.lock()\nif os.fork(): os._exit(0)\nprint('child', flush=True)\nsys.stdin.read()\nos._exit(0)\n"
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


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_directories_are_made_for_the_user_alone_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    code = f"os.umask({umask})\nfile.lock()\nfile.write(lambda target: target.write(b'N.'), 1)\n"
    path = tmp_path / "one" / "two" / "name.pickle"
    out, err = python(code, path).communicate(timeout=60)
    assert (out, err) == ("", "")
    for each in (path.parent, path.parent.parent):
        assert each.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}
