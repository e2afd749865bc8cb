"""`status`: what it says of a collector, by its records and the time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from n6_stateful.command.status import Around, judge
from n6_stateful.record.run import RunRecord
from n6_stateful.record.summary import Summary
from tests.record.test_history import record

HOURS = 3600
QUIET = Around(0, 0, 0, False)


def status(*records: RunRecord, around: Around = QUIET, minutes: int = 1) -> tuple[int, str]:
    """The verdict so many minutes after the start of the last run, with 2 h and 6 h for the limits."""
    now = records[-1].start_time + timedelta(minutes=minutes) if records else None
    return judge(records, around, now or record(0).start_time, 2 * HOURS, 6 * HOURS)


class TestLevels:
    """OK, WARNING, CRITICAL, UNKNOWN."""

    @pytest.mark.parametrize(
        ("minutes", "level"), [(1, 0), (119, 0), (120, 1), (359, 1), (360, 2), (7 * 24 * 60, 2)]
    )
    def test_age(self, minutes: int, level: int) -> None:
        """The age of the last good run decides; a week of silence is critical."""
        found, text = status(record(1, 0, 5), minutes=minutes)
        assert found == level
        assert "the last good run was" in text

    def test_never_run(self) -> None:
        """Before the first run nothing is known."""
        assert status()[0] == 3

    def test_never_good(self) -> None:
        """Runs that have all failed are critical, and the last error is told."""
        level, text = status(record(1, 69), record(2, 66)._replace(error="the source is down"))
        assert level == 2
        assert "2 failed since: the source is down" in text

    def test_failed_since(self) -> None:
        """A failure after a good run is a warning at once."""
        level, text = status(record(1, 0), record(2, 69)._replace(error="no broker"))
        assert (level, "1 failed since: no broker" in text) == (1, True)

    def test_busy(self) -> None:
        """A run that found another in progress is no failure."""
        assert status(record(1, 0), record(2, 75))[0] == 0

    @pytest.mark.parametrize(("minutes", "level"), [(1, 0), (121, 1), (361, 2)])
    def test_in_progress(self, minutes: int, level: int) -> None:
        """A run in progress is no failure, but for one that lasts too long."""
        running = Around(0, 0, 0, True)
        found, text = status(record(1, 0), record(2, None), around=running, minutes=minutes)
        assert found == level, text

    def test_killed(self) -> None:
        """A run that was killed counts as a failure."""
        assert status(record(1, 0), record(2, None))[0] == 1

    @pytest.mark.parametrize(
        ("around", "level", "told"),
        [
            (Around(7, 0, 0, False), 0, "7 messages wait in the spool"),
            (Around(7, 2, 0, False), 1, "2 messages in the spool are refused"),
            (Around(0, 0, 1, False), 1, "1 broken states"),
        ],
    )
    def test_around(self, around: Around, level: int, told: str) -> None:
        """What lies about is told, and what needs a person is a warning."""
        found, text = status(record(1, 0, 1), around=around)
        assert (found, told in text) == (level, True), text


class TestLine:
    """The line as plugins have it."""

    def test_performance_data(self) -> None:
        """Behind one bar come the figures, with their limits and units."""
        _, text = status(record(1, 0, 5), record(3, 0, 0), minutes=2)
        _, data = text.split(" | ")
        assert data.split() == [
            "last_good=120s;7200;21600;0",
            "new_data=240s;;;0",
            "failed=0;;;0",
            "spool_waiting=0;;;0",
            "spool_set_apart=0;;;0",
            "broken_states=0;;;0",
        ]

    def test_one_bar(self) -> None:
        """An error with a bar or a line break in it does not break the line."""
        _, text = status(record(1, 0), record(2, 1)._replace(error="a | b\nc"))
        assert text.count("|") == 1
        assert "\n" not in text

    def test_summary(self) -> None:
        """New data is what a good run has published."""
        found = Summary.of([record(1, 0, 5), record(2, 69, 3), record(3, 0, 0)])
        assert (found.last_new_data, found.last_good, found.failed_in_a_row) == (
            record(1, 0, 5),
            record(3, 0, 0),
            0,
        )
