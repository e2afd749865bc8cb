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


def test_killed_at_each_system_call_it_leaves_the_old_or_the_new_state(
    traced: Traced, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
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
            assert (b"oldest" if value == "old" else b"old") in previous, call
    with capsys.disabled():
        print(
            f"\n{len(traced.calls)} kills ({request.node.callspec.id}): "
            f"{found['old']} left the old state, {found['new']} the new one"
        )
    assert found["new"] > 0
    assert found["old"] > 5 or scenario.old == scenario.new


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_failing_at_each_system_call_it_says_so_and_leaves_the_old_state(
    error: str, traced: Traced, tmp_path: Path
) -> None:
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
def test_failing_at_each_look_at_a_file_it_says_so_and_takes_no_file_for_broken(
    scenario: Scenario, tmp_path: Path
) -> None:
    told = 0
    traced = trace(scenario, tmp_path, LOOKING)
    for number, call in enumerate(traced.calls):
        cache_dir = tmp_path / str(number)
        done = traced.run_once_more(cache_dir, call, "error=EIO")
        told += clear_error_and_old_state(scenario, cache_dir, call, done)
        assert not list(cache_dir.glob("*.broken-*")), call
    assert told > 5


def clear_error_and_old_state(
    scenario: Scenario, cache_dir: Path, call: Call, done: subprocess.CompletedProcess[str]
) -> bool:
    """Whether what failed was an error; if it was none, the new state has to be there."""
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


def test_interrupted_system_calls_are_taken_up_again_or_told(tmp_path: Path) -> None:
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


def test_the_data_is_on_disk_before_the_rename_and_the_rename_before_the_end(tmp_path: Path) -> None:
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


def test_a_directory_that_was_made_is_in_its_parent_before_anything_is_saved_in_it(tmp_path: Path) -> None:
    every = trace(SCENARIOS["first-save"], tmp_path).calls
    made = next(at for at, call in enumerate(every) if call.name.startswith("mkdir"))
    opened, synced = every[made + 1 : made + 3]
    assert opened.name == "openat"
    assert f'"{tmp_path}"' in opened.arguments
    assert synced.name == "fsync"


def test_the_program_that_is_killed_saves_when_it_is_not(tmp_path: Path) -> None:
    need_strace()
    assert run(PROGRAM, tmp_path / "cache", "save", "value").returncode == 0
    assert json.loads(run(PROGRAM, tmp_path / "cache", "load").stdout) == {"value": "value"}
