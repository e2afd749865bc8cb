"""Killed or failing at any of its system calls, a save or a load leaves the old state or the new, whole."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crash.strace import CHANGING, LOOKING, Call, calls, need_strace, run
from tests.runtime import state_program

pytestmark = pytest.mark.slow

PROGRAM = Path(state_program.__file__)
NAME = "provider.channel.Program.pickle"
GARBAGE = b"garbage"
NO_LINKS = ("?link,linkat:error=EPERM",)


class Scenario(NamedTuple):
    """What is done to a cache directory, and which state is in force before and after."""

    prepare: Callable[[Path], None]
    action: tuple[str, ...]
    old: str
    new: str
    inject: tuple[str, ...] = ()


class Traced(NamedTuple):
    """A scenario whose directory is prepared, and the system calls of what is done to it."""

    scenario: Scenario
    prepared: Path
    here: str
    calls: list[Call]

    def run_once_more(self, cache_dir: Path, call: Call, what: str) -> subprocess.CompletedProcess[str]:
        """The same over a fresh copy of the directory, with `what` happening at `call`."""
        if self.prepared.exists():
            shutil.copytree(self.prepared, cache_dir)
            cache_dir.chmod(0o700)
        inject = f"{call.name}:{what}:when={call.number}"
        return run(PROGRAM, cache_dir, *self.scenario.action, inject=(*self.scenario.inject, inject))


def nothing(cache_dir: Path) -> None:
    """Not even the directory is there."""


def two_generations(cache_dir: Path) -> None:
    for value in ("oldest", "old"):
        program = state_program.Program(cache_dir=str(cache_dir))
        program.load_state()
        program.save_state({"value": value})
        program.close_state()


def a_broken_file(cache_dir: Path) -> None:
    two_generations(cache_dir)
    (cache_dir / NAME).write_bytes(GARBAGE)


def what_a_killed_save_leaves(cache_dir: Path) -> None:
    two_generations(cache_dir)
    oldest = (cache_dir / f"{NAME}.previous").read_bytes()
    for name, data in ((".kept.tmp", oldest), (".0123.tmp", oldest[:20])):
        path = cache_dir / f".{NAME}{name}"
        path.write_bytes(data)
        path.chmod(0o600)


def a_plain_pickle(cache_dir: Path) -> None:
    cache_dir.mkdir(0o700)
    path = cache_dir / NAME
    path.write_bytes(pickle.dumps({"value": "old", "more": "x" * 200_000}))
    path.chmod(0o600)


SCENARIOS = {
    "save": Scenario(two_generations, ("save", "new"), "old", "new"),
    "first-save": Scenario(nothing, ("save", "new"), "default", "new"),
    "save-of-nothing-new": Scenario(two_generations, ("replace", "new"), "old", "new"),
    "nothing-new-without-hard-links": Scenario(two_generations, ("replace", "new"), "old", "new", NO_LINKS),
    "save-after-a-killed-one": Scenario(what_a_killed_save_leaves, ("save", "new"), "old", "new"),
    "save-without-hard-links": Scenario(two_generations, ("save", "new"), "old", "new", NO_LINKS),
    "load-of-a-broken-file": Scenario(a_broken_file, ("load",), "oldest", "oldest"),
    "load-without-hard-links": Scenario(a_broken_file, ("load",), "oldest", "oldest", NO_LINKS),
}


def trace(scenario: Scenario, directory: Path, which: str = CHANGING) -> Traced:
    need_strace()
    prepared, here, log = directory / "prepared", directory / "traced", directory / "log"
    scenario.prepare(prepared)
    if prepared.exists():
        shutil.copytree(prepared, here)
        here.chmod(0o700)
    done = run(PROGRAM, here, *scenario.action, inject=scenario.inject, log=log, trace=which)
    assert done.returncode == 0, done.stderr
    every = calls(log)
    begin = next(at for at, call in enumerate(every) if str(here) in call.arguments)
    # What Python opens for itself, what is printed, and what fails by injection already, is none of ours.
    ours = [
        call
        for call in every[begin:]
        if (call.name != "openat" or str(directory) in call.arguments)
        and not (call.name == "write" and call.arguments.startswith(("1, ", "2, ")))
        and not (scenario.inject and call.name in ("link", "linkat"))
    ]
    return Traced(scenario, prepared, str(here), ours)


@pytest.fixture(params=SCENARIOS)
def traced(request: pytest.FixtureRequest, tmp_path: Path) -> Traced:
    """Each scenario, with the calls that change something."""
    return trace(SCENARIOS[request.param], tmp_path)


def loaded(cache_dir: Path) -> str:
    program = state_program.Program(cache_dir=str(cache_dir))
    try:
        value: str = program.load_state()["value"]
    finally:
        program.close_state()
    return value


def holds_nothing_odd(cache_dir: Path) -> bool:
    """Whether a load has left no half-written file, and no broken file but the one that was put there."""
    if list(cache_dir.glob(".*.tmp")):
        return False
    return all(path.read_bytes() == GARBAGE for path in cache_dir.glob("*.broken-*"))


def clear_error_and_old_state(
    scenario: Scenario, cache_dir: Path, call: Call, done: subprocess.CompletedProcess[str]
) -> bool:
    """Whether what failed was an error; if it was none, the new state must be there."""
    assert "Traceback" not in done.stderr, (call, done.stderr)
    if done.returncode == 0:
        # It could do without that call, for instance the sweeping of what was not there.
        assert loaded(cache_dir) == scenario.new, call
    else:
        assert done.returncode == 74, (call, done)
        assert loaded(cache_dir) == scenario.old, (call, done.stderr)
        assert re.search("No space left|Input/output error", done.stderr), (call, done.stderr)
    assert holds_nothing_odd(cache_dir), call
    return done.returncode != 0


class TestKilled:
    """Killed at any point."""

    def test_at_each_system_call(
        self,
        traced: Traced,
        tmp_path: Path,
        request: pytest.FixtureRequest,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Killed at each system call it leaves the old or the new state."""
        scenario, found = traced.scenario, {"old": 0, "new": 0}
        for number, call in enumerate(traced.calls):
            cache_dir = tmp_path / str(number)
            done = traced.run_once_more(cache_dir, call, "signal=KILL")
            assert done.returncode in (-9, 137), (call, done)
            value = loaded(cache_dir)
            assert value in (scenario.old, scenario.new), call
            found["new" if value == scenario.new else "old"] += 1
            assert loaded(cache_dir) == value, call
            assert holds_nothing_odd(cache_dir), call
            if scenario.prepare is a_broken_file:
                assert list(cache_dir.glob("*.broken-*")), call
            elif scenario.prepare is not nothing:
                # The state before is there as well.
                previous = (cache_dir / f"{NAME}.previous").read_bytes()
                replaced = scenario.action[0] == "replace"
                assert (b"oldest" if replaced or value == "old" else b"old") in previous, call
        with capsys.disabled():
            print(
                f"\n{len(traced.calls)} kills ({request.node.callspec.id}): "
                f"{found['old']} left the old state, {found['new']} the new one"
            )
        assert found["new"] > 0
        assert found["old"] > 5 or scenario.old == scenario.new


class TestFailing:
    """With system calls that fail."""

    @pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
    def test_at_each_system_call(self, error: str, traced: Traced, tmp_path: Path) -> None:
        """Failing at each system call it says so and leaves the old state."""
        told = 0
        for number, call in enumerate(traced.calls):
            if call.name == "close":
                continue  # it fails on no local disk, and by then all has been synced
            cache_dir = tmp_path / str(number)
            done = traced.run_once_more(cache_dir, call, f"error={error}")
            told += clear_error_and_old_state(traced.scenario, cache_dir, call, done)
        assert told > 5

    @pytest.mark.parametrize(
        "scenario",
        [SCENARIOS["save"], SCENARIOS["first-save"], Scenario(a_plain_pickle, ("save", "new"), "old", "new")],
        ids=["save", "first-save", "save-after-n6"],
    )
    def test_at_each_look(self, scenario: Scenario, tmp_path: Path) -> None:
        """Failing at each look at a file it says so and takes no file for broken."""
        told = 0
        traced = trace(scenario, tmp_path, LOOKING)
        for number, call in enumerate(traced.calls):
            cache_dir = tmp_path / str(number)
            done = traced.run_once_more(cache_dir, call, "error=EIO")
            told += clear_error_and_old_state(scenario, cache_dir, call, done)
            assert not list(cache_dir.glob("*.broken-*")), call
        assert told > 5

    def test_interrupted(self, tmp_path: Path) -> None:
        """Interrupted system calls are taken up again or told."""
        traced = trace(SCENARIOS["save"], tmp_path)
        for number, call in enumerate(traced.calls):
            if call.name == "close":
                continue
            cache_dir = tmp_path / str(number)
            done = traced.run_once_more(cache_dir, call, "error=EINTR")
            assert "Traceback" not in done.stderr, call
            assert (done.returncode, loaded(cache_dir)) in ((0, "new"), (74, "old")), (call, done.stderr)
            if call.name in ("write", "fsync", "flock"):
                assert done.returncode == 0, call


class TestOrder:
    """The order of what reaches the disk."""

    def test_data_then_rename(self, tmp_path: Path) -> None:
        """The data is on disk before the rename and the rename before the end."""
        every = trace(SCENARIOS["save"], tmp_path).calls

        def first(name: str, begin: int, pattern: str = "") -> int:
            return next(
                at
                for at in range(begin, len(every))
                if every[at].name.startswith(name) and re.search(pattern, every[at].arguments)
            )

        created = first("openat", 0, "O_EXCL")
        descriptor = re.search(r"= (\d+)$", every[created].arguments)
        assert descriptor is not None
        written = first("write", created, rf"^{descriptor[1]}, ")
        synced = first("fsync", written, rf"^{descriptor[1]}\)")
        in_place = first("rename", synced, rf'\.tmp".*/{NAME}"[,)]')
        directory = first("openat", in_place, "O_DIRECTORY")
        descriptor = re.search(r"= (\d+)$", every[directory].arguments)
        assert descriptor is not None
        directory_synced = first("fsync", directory, rf"^{descriptor[1]}\)")
        assert created < written < synced < in_place < directory < directory_synced
        assert not [call for call in every[synced + 1 : in_place] if call.name == "write"]

    def test_directory_first(self, tmp_path: Path) -> None:
        """A directory that was made is in its parent before anything is saved in it."""
        every = trace(SCENARIOS["first-save"], tmp_path).calls
        made = next(at for at, call in enumerate(every) if call.name.startswith("mkdir"))
        opened, synced = every[made + 1 : made + 3]
        assert opened.name == "openat"
        assert f'"{tmp_path}"' in opened.arguments
        assert synced.name == "fsync"

    def test_not_killed(self, tmp_path: Path) -> None:
        """The program that is killed saves when it is not."""
        need_strace()
        assert run(PROGRAM, tmp_path / "cache", "save", "value").returncode == 0
        assert json.loads(run(PROGRAM, tmp_path / "cache", "load").stdout) == {"value": "value"}
