"""What matters of many records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from n6_stateful.record.run import RunRecord

BUSY = 75


class Summary(NamedTuple):
    """The runs that tell whether a collector is alive.

    Attributes:
        last_good: the last run that ended well.
        last_new_data: the last run that published anything, and ended well.
        failed_in_a_row: how many have failed since the last good one. A run that found another in progress
            has neither failed nor been good.
    """

    last_good: RunRecord | None
    last_new_data: RunRecord | None
    failed_in_a_row: int

    @classmethod
    def of(cls, records: Sequence[RunRecord]) -> Summary:
        """The summary of records, oldest first."""
        newest_first = [each for each in reversed(records) if each.exit_code != BUSY]
        failed = next((at for at, each in enumerate(newest_first) if each.is_good), len(newest_first))
        return cls(
            next((each for each in newest_first if each.is_good), None),
            next((each for each in newest_first if each.is_good and each.messages), None),
            failed,
        )
