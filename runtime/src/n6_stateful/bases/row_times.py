"""What the times of rows mean: points in time, or ordinals that merely sort."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

Real = int | float | Decimal | Fraction
EPOCH = datetime(1970, 1, 1)
_TICKS = {"epoch": 1, "epoch_ms": 1000}  # in a second


def comparable(row_time: Any, row_time_format: str | None) -> Any:
    """A row's time as it is compared: UTC without a timezone if it is a point in time, else itself.

    Args:
        row_time: datetimes, dates and ISO 8601 text (with hyphens, perhaps with ` UTC` behind) are points in
            time; without a timezone they are UTC.
        row_time_format: what other text, and numbers, mean: `epoch`, `epoch_ms`, what `strptime` takes, or
            None if they are ordinals.

    Raises:
        ValueError, OverflowError: it does not have that format.

    >>> comparable("2026-01-01T02:00:00+02:00", None)
    datetime.datetime(2026, 1, 1, 0, 0)
    >>> comparable("1767225600", "epoch")
    datetime.datetime(2026, 1, 1, 0, 0)
    >>> comparable(1767225600, None)
    1767225600
    """
    moment = row_time
    if isinstance(row_time, str) and row_time_format is None:
        moment = _iso(row_time)
    elif isinstance(row_time, date) and not isinstance(row_time, datetime):
        moment = datetime.combine(row_time, time.min)
    elif row_time_format in _TICKS and isinstance(row_time, str | Real):
        moment = EPOCH + timedelta(seconds=float(row_time) / _TICKS[row_time_format])
    elif isinstance(row_time, str) and row_time_format:
        moment = datetime.strptime(row_time, row_time_format)
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return moment.astimezone(UTC).replace(tzinfo=None)
    return moment


def _iso(text: str) -> Any:
    if text[4:5] != "-":  # digits in a row may be a serial number
        return text
    try:
        return datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return text


def kind(moment: Any) -> type:
    """What a comparable time can be compared with: others of its kind."""
    return float if isinstance(moment, Real) else type(moment)


def tomorrow() -> datetime:
    """As late as the time of a row may be: clocks and timezones may be wrong by a day."""
    return datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)


def is_usable(moment: Any) -> bool:
    """Whether a comparable time is at most a day ahead; a text has a digit, and a number is finite."""
    if isinstance(moment, datetime):
        return moment <= tomorrow()
    if isinstance(moment, str):
        return any(map(str.isdigit, moment))
    return not isinstance(moment, Real) or math.isfinite(moment)


def earlier(moment: Any, seconds: int) -> Any:
    """The comparable time so many seconds before, or a bit before that: a time without seconds, or without a
    time of day, may stand for a later one. None if it is no time and no number.

    >>> earlier(datetime(2026, 1, 2, 1, 0, 7), 7200)
    datetime.datetime(2026, 1, 1, 23, 0, 7)
    >>> earlier(datetime(2026, 1, 2), 7200)
    datetime.datetime(2026, 1, 1, 0, 0)
    """
    if not isinstance(moment, datetime):
        return moment - seconds if isinstance(moment, Real) else None
    try:
        before = (moment - timedelta(seconds=seconds)).replace(microsecond=0)
    except OverflowError:
        return datetime.min
    if moment.time() == time.min:
        return datetime.combine(before, time.min)
    return before if moment.second else before.replace(second=0)


def jumps(lowest: Any, others: Any, highest: Any) -> bool:
    """Whether the highest ordinal is so far beyond all others, those from `lowest` to `others`, that it is
    likely a mistake.

    >>> jumps(1767225600, 1767312000, 1767398400), jumps(1767225600, 1767312000, 6057763200)
    (False, True)
    """
    low, high, top = (_size(ordinal) for ordinal in (lowest, others, highest))
    return top - high > max(10 * (high - low), high / 100, 1000)


def _size(ordinal: Any) -> float:
    if isinstance(ordinal, str):
        return float("".join(filter(str.isdecimal, ordinal))) if ordinal[:1].isdecimal() else math.inf
    return float(ordinal) if isinstance(ordinal, Real) else 0
