"""What many runs say."""

from __future__ import annotations

from n6_stateful.record.run import Health
from tests.record.test_history import record


class TestHealth:
    """The last run, the last good one, the last new data, and the failures since."""

    def test_none(self) -> None:
        """No runs say nothing."""
        assert Health.of([]) == (None, None, None, 0)

    def test_all(self) -> None:
        """Nothing new is good; a failure is not, and a run that did not end is one."""
        runs = [record(1, 0, 5), record(2, 0, 0), record(3, 69, 2), record(4, None)]
        assert Health.of(runs) == (runs[3], runs[1], runs[0], 2)

    def test_turned_away(self) -> None:
        """A run that another one in progress has turned away counts neither way."""
        assert Health.of([record(1, 0), record(2, 75)]) == (record(1, 0), record(1, 0), None, 0)
        assert Health.of([record(2, 75)]) == Health()

    def test_mail_to_be_tried_again(self) -> None:
        """A mail's run that ended with the same code since the broker was down has failed."""
        assert Health.of([record(1, 75, error="the broker cannot be reached")]).failed == 1

    def test_saved_in_the_middle(self) -> None:
        """What a run had saved before it failed is new data."""
        run = record(1, 69, 5)._replace(generation_before="a", generation_after="b")
        assert Health.of([run]).new == run
