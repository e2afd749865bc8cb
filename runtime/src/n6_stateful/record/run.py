"""The record of one run: made from the collector, as it stands when the run begins and when it has ended."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from n6_stateful.collector import AbstractBaseCollector

LONGEST_ERROR = 300


class RunRecord(NamedTuple):
    """What one run did. None of it is a secret, or a part of what was published.

    Attributes:
        run: 16 hex digits that name it.
        started: UTC, as ISO 8601, to the microsecond.
        ended: the same; empty as long as it has not ended, or if it was killed.
        exit_code: None as long as `ended` is empty.
        messages: how many it published.
        bytes: of their bodies.
        generation_before: id of the state that it started from.
        generation_after: id of the state that it left.
        newest: how new the newest data is that the state knows of, for people.
        error: the first line of what it ended with; empty if it ended well.
        host: the machine.
        pid: the process.
        versions: of the collector's distribution and of the runtime.
    """

    run: str
    started: str
    ended: str = ""
    exit_code: int | None = None
    messages: int = 0
    bytes: int = 0
    generation_before: str = ""
    generation_after: str = ""
    newest: str = ""
    error: str = ""
    host: str = ""
    pid: int = 0
    versions: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it ended well."""
        return self.exit_code == 0

    @property
    def start_time(self) -> datetime:
        """When it started, UTC."""
        return datetime.fromisoformat(self.started).replace(tzinfo=UTC)

    @property
    def end_time(self) -> datetime | None:
        """When it ended, UTC; None if it did not."""
        return datetime.fromisoformat(self.ended).replace(tzinfo=UTC) if self.ended else None


def begun(collector: AbstractBaseCollector, now: datetime) -> RunRecord:
    """The record of a run that begins now."""
    return RunRecord(
        os.urandom(8).hex(),
        _text(now),
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=_versions(collector),
    )


def ended(
    record: RunRecord, collector: Any, generation_before: str, exit_code: int, error: str, now: datetime
) -> RunRecord:
    """The record of a run that has ended now.

    Args:
        record: what `begun` gave.
        collector: it, whatever has become of it.
        generation_before: id of the state that it started from.
        exit_code: of the command.
        error: what was told on standard error, already masked; its first line is kept.
        now: the time, with its timezone.
    """
    first_line = error.partition("\n")[0]
    return record._replace(
        ended=_text(now),
        exit_code=exit_code,
        messages=getattr(collector, "published_count", 0),
        bytes=getattr(collector, "published_bytes", 0),
        generation_before=generation_before,
        generation_after=getattr(collector, "state_generation", ""),
        newest=collector.describe_state() if hasattr(collector, "describe_state") else "",
        error=first_line[:LONGEST_ERROR],
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _versions(collector: object) -> str:
    from n6_stateful import __version__

    name = type(collector).__module__.partition(".")[0].replace("_", "-")
    try:
        return f"{name} {version(name)}, n6-stateful-runtime {__version__}"
    except PackageNotFoundError:  # not installed as a package of that name
        return f"n6-stateful-runtime {__version__}"
