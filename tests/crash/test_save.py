"""A save, killed or failing at each of its system calls: the state is the old one or the new one, whole."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.crash.strace import Call, calls, need_strace, run
from tests.runtime import state_program

PROGRAM = Path(state_program.__file__)
NAME = "provider.channel.Program.pickle"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Call]]:
    """A cache directory with two generations, and the calls of a save that comes on top of them."""
    need_strace()
    directory = tmp_path_factory.mktemp("prepared")
    for value in ("oldest", "old"):
        assert run(PROGRAM, directory / "cache", "save", value).returncode == 0
    shutil.copytree(directory / "cache", directory / "traced")
    log = directory / "log"
    assert run(PROGRAM, directory / "traced", "save", "new", log=log).returncode == 0
    every = calls(log)
    begin = next(at for at, call in enumerate(every) if str(directory / "traced") in call.arguments)
    here = str(directory / "traced")
    # Python's own files are none of ours.
    ours = [call for call in every[begin:] if call.name != "openat" or here in call.arguments]
    return directory / "cache", ours


def fresh(prepared: Path, tmp_path: Path, number: int) -> Path:
    target = tmp_path / str(number)
    shutil.copytree(prepared, target)
    target.chmod(0o700)
    return target


def loaded(cache_dir: Path) -> str:
    program = state_program.Program(cache_dir=str(cache_dir))
    try:
        value: str = program.load_state()["value"]
    finally:
        program.close_state()
    return value


def test_killed_at_each_system_call_a_save_leaves_the_old_or_the_new_state(
    prepared: tuple[Path, list[Call]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, every = prepared
    found: dict[str, int] = {"old": 0, "new": 0}
    for number, call in enumerate(every):
        cache_dir = fresh(original, tmp_path, number)
        done = run(PROGRAM, cache_dir, "save", "new", inject=f"{call.name}:signal=KILL:when={call.number}")
        assert done.returncode in (-9, 137), (call, done)
        value = loaded(cache_dir)
        found[value] += 1
        assert not list(cache_dir.glob("*.broken-*")), call
        assert not list(cache_dir.glob(".*.tmp")), call
        # The state before the last good one is there as well.
        previous = (cache_dir / f"{NAME}.previous").read_bytes()
        assert (b"oldest" if value == "old" else b"old") in previous, call
    with capsys.disabled():
        print(
            f"\n{len(every)} kills of a save left the old state {found['old']} times, the new {found['new']}"
        )
    assert found["old"] > 5
    assert found["new"] > 0


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_failing_at_each_system_call_a_save_says_so_and_leaves_the_old_state(
    error: str, prepared: tuple[Path, list[Call]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, every = prepared
    told = survived = 0
    for number, call in enumerate(every):
        if call.name == "close":
            continue  # it fails on no local disk, and by then all has been synced
        cache_dir = fresh(original, tmp_path, number)
        done = run(PROGRAM, cache_dir, "save", "new", inject=f"{call.name}:error={error}:when={call.number}")
        assert "Traceback" not in done.stderr, (call, done.stderr)
        value = loaded(cache_dir)
        if done.returncode == 0:
            # It could do without that call, for instance the sweeping of what was not there.
            assert value == "new", call
            survived += 1
        else:
            assert done.returncode == 74, (call, done)
            assert value == "old", (call, done.stderr)
            assert re.search("No space left|Input/output error", done.stderr), (call, done.stderr)
            told += 1
        assert not list(cache_dir.glob("*.broken-*")), call
    with capsys.disabled():
        print(
            f"\n{told + survived} times {error} in a save: {told} errors told, {survived} calls done without"
        )
    assert told > 5


def test_interrupted_system_calls_are_taken_up_again_or_told(
    prepared: tuple[Path, list[Call]], tmp_path: Path
) -> None:
    original, every = prepared
    for number, call in enumerate(every):
        if call.name == "close":
            continue
        cache_dir = fresh(original, tmp_path, number)
        done = run(PROGRAM, cache_dir, "save", "new", inject=f"{call.name}:error=EINTR:when={call.number}")
        assert "Traceback" not in done.stderr, call
        assert (done.returncode, loaded(cache_dir)) in ((0, "new"), (74, "old")), (call, done.stderr)
        if call.name in ("write", "fsync", "flock"):
            assert done.returncode == 0, call


def test_the_data_is_on_disk_before_the_rename_and_the_rename_before_the_end(
    prepared: tuple[Path, list[Call]],
) -> None:
    _, every = prepared
    temporary = next(
        at for at, call in enumerate(every) if call.name == "openat" and "O_EXCL" in call.arguments
    )
    descriptor = r"^\d+\)"
    written = next(at for at in range(temporary, len(every)) if every[at].name == "write")
    synced = next(at for at in range(written, len(every)) if every[at].name == "fsync")
    assert re.match(descriptor, every[synced].arguments)
    renames = [at for at, call in enumerate(every) if call.name.startswith("rename")]
    in_place = next(
        at
        for at in renames
        if re.search(rf'/{NAME}"[,)]', every[at].arguments) and ".tmp" in every[at].arguments
    )
    directory = next(
        at
        for at in range(in_place, len(every))
        if every[at].name == "openat" and "O_DIRECTORY" in every[at].arguments
    )
    directory_synced = next(at for at in range(directory, len(every)) if every[at].name == "fsync")
    assert temporary < written < synced < in_place < directory < directory_synced
    assert not [call for call in every[synced + 1 : in_place] if call.name == "write"]


def test_the_program_that_is_killed_saves_when_it_is_not(tmp_path: Path) -> None:
    need_strace()
    assert run(PROGRAM, tmp_path / "cache", "save", "value").returncode == 0
    assert json.loads(run(PROGRAM, tmp_path / "cache", "load").stdout) == {"value": "value"}
