"""The records of runs: kept beside the state, the last ones, whatever cut them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from n6_stateful.record.history import NOT_ENDED, FileHistory, records, write
from n6_stateful.record.run import RunRecord

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def record(number: int, exit_code: int | None = 0, messages: int = 0) -> RunRecord:
    """The record of a run at one minute past the one before."""
    started = f"2026-01-02T{number // 60:02}:{number % 60:02}:00.000000"
    ended = "" if exit_code is None else started
    return RunRecord(f"{number:016x}", started, ended, exit_code, messages)


@pytest.fixture
def history(tmp_path: Path) -> FileHistory:
    return FileHistory(tmp_path / "runs")


class TestRecords:
    """What comes back."""

    def test_none(self, history: FileHistory) -> None:
        """Before the first run there are none, and no file is made."""
        assert records(history) == records(None) == []
        assert not history.path.exists()

    def test_begin_and_end(self, history: FileHistory) -> None:
        """A run that has begun and ended is one record."""
        write(history, record(1, None), 10)
        write(history, record(1, 0, 5), 10)
        assert records(history) == [record(1, 0, 5)]

    def test_killed(self, history: FileHistory) -> None:
        """A run that was killed is told as one that did not end."""
        write(history, record(1, None), 10)
        write(history, record(2, 0), 10)
        killed, good = records(history)
        assert (killed.exit_code, killed.error) == (None, NOT_ENDED)
        assert good.is_good

    @pytest.mark.parametrize(
        "damage", ["", '{"run": "1"', "null", "[]", '{"run": 5}', "\udcff", '{"new": 1}']
    )
    def test_damage(self, damage: str, history: FileHistory) -> None:
        """A line that was cut, or is none of ours, costs only itself."""
        write(history, record(1), 10)
        with history.path.open("ab") as file:
            file.write(damage.encode("utf-8", "surrogateescape") + b"\n")
        write(history, record(2), 10)
        assert [each.run for each in records(history)][:1] == [record(1).run]
        assert record(2) in records(history)

    def test_newer(self, history: FileHistory) -> None:
        """A field of a newer version is passed over."""
        history.append_line(json.dumps({**record(1)._asdict(), "colour": "red"}), 10)
        assert records(history) == [record(1)]

    def test_trimmed(self, history: FileHistory) -> None:
        """Of many records the last ones are kept, and the file stays small."""
        for number in range(600):
            write(history, record(number), 10)
        kept = records(history)
        assert kept[-1] == record(599)
        assert 10 <= len(kept) < 200
        assert history.path.stat().st_mode & 0o777 == 0o600
