"""What one run did, and what many runs say about whether their collector is alive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from n6_stateful.errors import BusyError

AHEAD = 300  # seconds by which the clock of another machine may be ahead
IN_PROGRESS = "in progress"


class RunRecord(NamedTuple):
    """What one run did. None of it is a secret, or a part of what was published.

    Attributes:
        start: seconds since the epoch.
        end: the same; None as long as the run has not ended, and for ever if it was killed.
        exit_code: of the process; None as long as `end` is.
        messages: how many were handed to the output.
        bytes: of their bodies.
        generation_before: id of the state that was loaded; empty if none was.
        generation_after: id of the state that was saved last, or else loaded.
        newest: how far the source was taken, as `describe_state` says it; empty if the run failed.
        error: the first line of what was told on standard error; empty if the run ended well.
        host: the machine.
        pid: the process.
        versions: of the collector's distribution, if it is known, and of the runtime.
    """

    start: float
    end: float | None = None
    exit_code: int | None = None
    messages: int = 0
    bytes: int = 0
    generation_before: str = ""
    generation_after: str = ""
    newest: str = ""
    error: str = "did not end: it was killed, or the machine stopped"
    host: str = ""
    pid: int = 0
    versions: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or was killed; `find_records` finds out which are in progress."""
        return self.end is not None or self.error != IN_PROGRESS

    @property
    def turned_away(self) -> bool:
        """Whether another run was in its way. A mail's run ends so where the broker is down, too."""
        return self.exit_code == BusyError.exit_code and self.error.startswith("another ")

    @property
    def brought_data(self) -> bool:
        """Whether what it published is there for certain and for good."""
        is_kept = self.exit_code == 0 or self.generation_after != self.generation_before
        return self.messages > 0 and is_kept

    @property
    def heard(self) -> float:
        """When it ended, or else began."""
        return self.end or self.start


class Health(NamedTuple):
    """What the runs say. Those that were turned away because another one was in progress say nothing.

    Attributes:
        last: the last run.
        good: the last one that ended well.
        new: the last one that brought data.
        failed: how many have failed in a row since the last good one.
    """

    last: RunRecord | None = None
    good: RunRecord | None = None
    new: RunRecord | None = None
    failed: int = 0

    @classmethod
    def of(cls, records: Iterable[RunRecord]) -> Health:
        """The health that `records`, oldest first, tell."""
        health = cls()
        for each in records:
            if each.exit_code == 0:
                health = health._replace(last=each, good=each, failed=0)
            elif not each.turned_away:
                health = health._replace(last=each, failed=health.failed + 1)
            if each.brought_data:
                health = health._replace(new=each)
        return health
