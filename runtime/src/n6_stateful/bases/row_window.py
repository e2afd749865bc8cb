"""Which rows are new: comparable times, and the rows that earlier runs have seen."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from typing import Any

Real = int | float | Decimal | Fraction
DIGEST_SIZE = 16
EPOCH = datetime(1970, 1, 1)
_TICKS = {"epoch": 1, "epoch_ms": 1000}  # in a second


def comparable(row_time: Any, row_time_format: str | None) -> Any:
    """A row's time in comparable form: UTC without a timezone for a point in time, else unchanged.

    Args:
        row_time: datetimes, dates and ISO 8601 text (with hyphens, and optionally ` UTC` at the end) are
            points in time, in UTC if they have no timezone.
        row_time_format: the format of other text, and of numbers: `epoch`, `epoch_ms`, or one for
            `strptime`; None if they are ordinals.

    Raises:
        ValueError, OverflowError: the time does not have that format.

    >>> comparable("2026-01-01T02:00:00+02:00", None)
    datetime.datetime(2026, 1, 1, 0, 0)
    >>> comparable("1767225600", "epoch")
    datetime.datetime(2026, 1, 1, 0, 0)
    >>> comparable(1767225600, None)
    1767225600
    """
    moment = row_time
    if isinstance(row_time, str) and row_time_format is None:
        if row_time[4:5] == "-":  # without hyphens it may be a serial number
            try:
                moment = datetime.fromisoformat(row_time.removesuffix(" UTC"))
            except ValueError:
                return row_time
    elif row_time_format in _TICKS and isinstance(row_time, str | Real):
        moment = EPOCH + timedelta(seconds=float(row_time) / _TICKS[row_time_format])
    elif isinstance(row_time, str) and row_time_format:
        moment = datetime.strptime(row_time, row_time_format)
    elif isinstance(row_time, date) and not isinstance(row_time, datetime):
        moment = datetime.combine(row_time, time.min)
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return moment.astimezone(UTC).replace(tzinfo=None)
    return moment


def kind(moment: Any) -> type:
    """The kind of a comparable time; only times of one kind can be compared."""
    return type(moment) if isinstance(moment, datetime | str) or not isinstance(moment, Real) else float


def earlier(moment: Any, seconds: int) -> Any:
    """The comparable time that many seconds earlier, rounded down to its minute, or to its day if the time
    may be a date; None if it is neither a point in time nor a number.

    >>> earlier(datetime(2026, 1, 2, 1, 0, 7), 7200)
    datetime.datetime(2026, 1, 1, 23, 0)
    >>> earlier(datetime(2026, 1, 2), 7200)
    datetime.datetime(2026, 1, 1, 0, 0)
    """
    if not isinstance(moment, datetime):
        return moment - seconds if isinstance(moment, Real) else None
    late = timedelta(seconds=seconds)
    before = (max(moment, datetime.min + late) - late).replace(second=0, microsecond=0)
    return datetime.combine(before, time.min) if moment.time() == time.min else before


def jumps(ordinals: Iterable[Any]) -> bool:
    """Whether the highest ordinal is so far beyond all others that it is likely a mistake.

    >>> jumps([1767225600, 1767312000, 1767398400]), jumps([1767225600, 1767312000, 6057763200])
    (False, True)
    """
    sizes = sorted(set(map(_size, ordinals)))
    if len(sizes) < 2:
        return False
    low, high, top = sizes[0], *sizes[-2:]
    return top - high > max(10 * (high - low), high / 100, 1000)


def _size(ordinal: Any) -> float:
    if isinstance(ordinal, str):
        return float("".join(filter(str.isdecimal, ordinal))) if ordinal[:1].isdecimal() else float("inf")
    return float(ordinal) if isinstance(ordinal, Real) else 0


class Window:
    """What earlier runs have seen. All times are in comparable form.

    Args:
        newest: the newest time; None before the first row.
        begin: rows before this time arrive too late; rows from it on are known by their digests.
        packs: pairs of a time and the concatenated digests (16 bytes each) of rows up to that time.

    Attributes:
        kind: the kind of the times; None if it is not known yet.
        latest: the latest plausible point in time: clocks and timezones may be wrong by a day.
    """

    def __init__(self, newest: Any = None, begin: Any = None, packs: Iterable[Any] = ()) -> None:
        self.newest, self.begin, self.packs = newest, begin, list(packs)
        self.kind = None if newest is None else kind(newest)
        self.latest = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
        sizes = [(pack, range(0, len(pack), DIGEST_SIZE)) for _, pack in self.packs]
        self._seen = {pack[at : at + DIGEST_SIZE] for pack, starts in sizes for at in starts}

    def age(self, moment: Any) -> int:
        """-1 if a row with that time arrives too late, 0 if it may have been seen, 1 if it is new."""
        if self.newest is None or moment is None or moment > self.newest:
            return 1
        return 0 if moment >= self.begin else -1

    def was_seen(self, moment: Any, key: Any) -> bool:
        """Whether an earlier run has seen a row with that time and key."""
        return digest(moment, key) in self._seen


def oldest_first(moments: list[Any], rows: list[Any], row_key: Any) -> tuple[list[Any], list[Any]]:
    """Both lists, sorted; rows with equal times in reverse, as in n6, since most files begin with the newest.

    Args:
        moments: the comparable time of each row.
        rows: in the file's order.
        row_key: returns what identifies a row among those with its time; of equal ones, the first is kept.
    """
    order = sorted(range(len(rows)), key=moments.__getitem__, reverse=True)
    kept, keys, last = [], set[str](), None
    for index in order:
        if moments[index] != last:
            last, keys = moments[index], set()
        key = f"{row_key(rows[index])}"
        if key not in keys:
            keys.add(key)
            kept.append(index)
    kept.reverse()
    return [moments[index] for index in kept], [rows[index] for index in kept]


def digest(moment: Any, key: Any) -> bytes:
    """The digest by which a row is remembered."""
    return blake2b(f"{moment}\n{key}".encode("utf-8", "surrogatepass"), digest_size=DIGEST_SIZE).digest()
