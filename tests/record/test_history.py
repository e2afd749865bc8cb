"""The records of runs in a file: whatever cut them, and however many there are."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from n6_stateful.record.history import PLACE, FileHistory
from n6_stateful.record.run import RunRecord

KEPT = 10


def record(number: int, exit_code: int | None = 0, messages: int = 0, error: str = "") -> RunRecord:
    """The record of a run that began `number` minutes after the epoch's first day, and took 5 seconds."""
    start = 86_400.0 + 60 * number
    end = None if exit_code is None else start + 5
    error = error or "another run is in progress" * (exit_code == 75)
    return RunRecord(start, end, exit_code, messages, 10 * messages, error=error, host="host", pid=number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a state file, in a directory that is not there yet."""
    return tmp_path / "cache" / "state.pickle"


def history(path: Path) -> FileHistory:
    """As another process sees it."""
    return FileHistory(path, KEPT)


def run(path: Path, *records: RunRecord) -> None:
    """Put what each run puts."""
    for each in records:
        of_this_run = history(path)
        of_this_run.put(each._replace(end=None, exit_code=None))
        if each.end is not None:
            of_this_run.put(each)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file grows beyond `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


class TestRecords:
    """What comes back."""

    def test_none(self, path: Path) -> None:
        """Before the first run there are none, and asking makes no file."""
        assert history(path).records() == []
        assert not path.parent.exists()

    def test_begin_and_end(self, path: Path) -> None:
        """A run has one line, which changes when it ends; file and directory are for nobody else."""
        run(path, record(1, 0, 5), record(2, 69, error="no broker"))
        found = history(path)
        assert found.records() == [record(1, 0, 5), record(2, 69, error="no broker")]
        assert found.path.read_bytes().count(b"\n") == 2
        assert [each.stat().st_mode & 0o777 for each in (found.path, path.parent)] == [0o600, 0o700]

    def test_killed(self, path: Path) -> None:
        """A run that was killed says so by itself, before and after the next one."""
        run(path, record(1, None))
        run(path, record(2, 0))
        killed, good = history(path).records()
        assert (killed.exit_code, good.exit_code) == (None, 0)

    def test_clock(self, path: Path) -> None:
        """The last run is the one that was written last, also where the clock was ahead before it."""
        run(path, record(9), record(2, 69))
        assert history(path).records() == [record(9), record(2, 69)]

    def test_side_by_side(self, path: Path) -> None:
        """Runs that overlap, one of them turned away, keep to their own lines."""
        first, second = history(path), history(path)
        first.put(record(1, None))
        second.put(record(2, None))
        second.put(record(2, 75))
        first.put(record(1, 0, 3))
        assert history(path).records() == [record(1, 0, 3), record(2, 75)]

    def test_long(self, path: Path) -> None:
        """A record that has outgrown its place is there once all the same."""
        run(path, record(1, 69, error="x" * PLACE), record(2))
        assert history(path).records() == [record(1, 69, error="x" * PLACE), record(2)]

    @pytest.mark.parametrize(
        "damage",
        [
            b'{"start": 1',
            b"null",
            b"[]",
            b'{"new": 1}',
            b"\xff\xfe",
            b"5",
            b'{"start": {}}',
            b'{"start": "now"}',
        ],
        ids=["cut", "null", "list", "other", "binary", "number", "type", "text"],
    )
    def test_damage(self, damage: bytes, path: Path) -> None:
        """A line that was cut, or is not ours, costs only itself."""
        run(path, record(1))
        with history(path).path.open("ab") as file:
            file.write(damage)
        run(path, record(2))
        assert history(path).records() == [record(1), record(2)]

    def test_newer(self, path: Path) -> None:
        """A field of a newer version is passed over, one that an older version lacks has its default."""
        path.parent.mkdir()
        history(path).path.write_text('{"start": 86460.0, "colour": "red"}\n')
        assert history(path).records() == [RunRecord(86_460.0)]


class TestKept:
    """How many."""

    def test_last_ones(self, path: Path) -> None:
        """Of many the last ones are kept, never fewer than asked for, and the files stay small."""
        for number in range(1, 60):
            run(path, record(number, 0, 1))
            found = history(path).records()
            assert found == [record(each, 0, 1) for each in range(max(1, number - KEPT + 1), number + 1)]
        assert sum(each.stat().st_size for each in path.parent.iterdir()) <= 2 * KEPT * PLACE

    def test_first(self, path: Path) -> None:
        """As long as no run has brought data, the first of all is remembered: the silence began with it."""
        for number in range(1, 8 * KEPT):
            run(path, record(number))
        last = [record(each) for each in range(7 * KEPT, 8 * KEPT)]
        assert history(path).records() == [record(1), *last]

    def test_at_once(self, path: Path) -> None:
        """Of runs that end at the same time in a full file one begins a new file, and nothing is lost."""
        run(path, *(record(number, 0, 1) for number in range(1, KEPT)))
        first, second = history(path), history(path)
        for each, number in ((first, KEPT), (second, KEPT + 1)):
            each.put(record(number, None))
        for each, number in ((first, KEPT), (second, KEPT + 1)):
            each.put(record(number, 0, 1))
        assert history(path).records() == [record(number, 0, 1) for number in range(2, KEPT + 2)]

    def test_last_new_data(self, path: Path) -> None:
        """The last run that brought data is remembered, however many have come since that did not."""
        run(path, record(1, 0, 5), record(2, 0, 3))
        for number in range(3, 8 * KEPT):
            run(path, record(number))
            assert record(2, 0, 3) in history(path).records()
        assert len(history(path).records()) == KEPT + 1
        run(path, record(8 * KEPT, 0, 1))
        assert history(path).records() == [record(8 * KEPT - each, 0, not each) for each in range(KEPT)][::-1]
        assert sum(each.stat().st_size for each in path.parent.iterdir()) <= 2 * KEPT * PLACE

    def test_turned_away(self, path: Path) -> None:
        """What a run in progress has begun is not lost by those that are turned away meanwhile."""
        in_progress = history(path)
        in_progress.put(record(1, None))
        run(path, *(record(number, 75) for number in range(2, KEPT)))
        in_progress.put(record(1, 0, 3))
        assert history(path).records()[0] == record(1, 0, 3)

    def test_ended_late(self, path: Path) -> None:
        """A run that others have overtaken is not unfinished for ever: what is known of its end counts."""
        in_progress = history(path)
        in_progress.put(record(1, None))
        run(path, *(record(number) for number in range(2, KEPT + 2)))
        in_progress.put(record(1, 0, 3))
        assert [each for each in history(path).records() if each.pid == 1] in ([], [record(1, 0, 3)])


class TestFullDisk:
    """Where nothing can be written."""

    def test_filled_meanwhile(self, path: Path) -> None:
        """A run that has begun can tell how it ended."""
        of_this_run = history(path)
        of_this_run.put(record(1, None))
        with full_disk(PLACE):
            of_this_run.put(record(1, 74, error="no space"))
        assert history(path).records() == [record(1, 74, error="no space")]

    @pytest.mark.parametrize("room", [0, 1, 500])
    def test_full_before(self, room: int, path: Path) -> None:
        """A run that cannot begin a line can end it, if there is room then; what was cut spoils nothing."""
        run(path, record(1))
        of_this_run = history(path)
        with full_disk(PLACE + room):
            for each in (record(2, None), record(2, 74)):
                with pytest.raises(OSError, match=r"No space left|File too large"):
                    of_this_run.put(each)
        of_this_run.put(record(2, 74))
        run(path, record(3))
        assert history(path).records() == [record(1), record(2, 74), record(3)]


class TestPlace:
    """Where it is."""

    def test_link(self, path: Path, tmp_path: Path) -> None:
        """A link that somebody has put there is not followed."""
        path.parent.mkdir()
        (path.parent / "state.pickle.runs").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="symbolic links"):
            run(path, record(1))
        assert not (tmp_path / "elsewhere").exists()

    def test_pipe(self, path: Path) -> None:
        """A pipe that somebody has put there is an error and does not hold up the run."""
        path.parent.mkdir()
        os.mkfifo(path.parent / "state.pickle.runs")
        with pytest.raises(OSError, match="seek"):
            run(path, record(1))
