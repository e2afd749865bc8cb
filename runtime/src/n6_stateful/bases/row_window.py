"""What a collector of rows remembers of those that it has seen, and which rows are new by that."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from n6_stateful.bases.row_times import jumps, kind

DIGEST_SIZE = 16
_FEW = 10_000


class Window:
    """The rows from some time on. Times are comparable ones (see `row_times`); None stands for no row yet.

    Args:
        newest: the newest time.
        newest_time: the same as the state has it.
        newest_rows: the rows with that time, by their keys.
        begin_before: given a time as the state has it, where a window begins that ends there; None without
            `late_by`.

    Attributes:
        newest, newest_time, newest_rows: what they are by now.
        kind: of what kind the times are.
        count: how many rows have a time, for whoever counts them.
        is_sorted: whether the new ones were in order.
    """

    def __init__(
        self,
        newest: Any,
        newest_time: Any,
        newest_rows: dict[Any, Any],
        begin_before: Callable[[Any], Any] | None,
    ) -> None:
        self.newest, self.newest_time, self.newest_rows = newest, newest_time, newest_rows
        self.kind = None if newest is None else kind(newest)
        self.count, self.is_sorted = 0, True
        self._begin = newest
        self._begin_before = begin_before
        self._packs: dict[Any, bytes] = {}  # digests of the rows of a run, by the newest time among them
        self._recent: dict[bytes, Any] = {}  # the times of this run's, by their digests
        self._most_recent = 2 * _FEW
        self._ordinals: list[Any] = [] if newest is None else [newest]

    def load(self, begin: Any, packs: Mapping[Any, bytes] | None) -> None:
        """Take what an earlier run has remembered: since when, and what; None if there was no window."""
        if self._begin_before is None or self.newest is None:
            return
        if packs is None:  # the newest rows are all that is known of it
            packs = {self.newest: b"".join(_digest(self.newest, key) for key in self.newest_rows)}
        fitting = {time: packs[time] for time in packs if kind(time) is self.kind and time <= self.newest}
        if len(fitting) < len(packs) or kind(begin) is not self.kind or begin > self.newest:
            # The newest time was set back by hand: what came after it is to come again.
            self._packs, self.newest_rows = fitting, {}
        else:
            self._packs = dict(packs)
            self._begin = max(begin, self._begin_before(self.newest_time))

    def is_past(self, moment: Any) -> bool:
        """Whether a row with that time comes too late."""
        return bool(self._begin is not None and moment < self._begin)

    def only_new(
        self, timed: Iterable[tuple[Any, Any, Any]], key_of: Callable[[Any], Hashable | None]
    ) -> list[Any]:
        """The rows that were not there before, each once, but for those apart from each other in a file
        without an order; oldest first if `is_sorted`.

        Args:
            timed: of each row that is not `past` its comparable time, its time, and itself.
            key_of: what tells a row from others with its time; None to leave it out.
        """
        before, known = self.newest, self.newest_rows
        newest, newest_time, newest_rows = self.newest, self.newest_time, self.newest_rows
        seen = {
            digests[at : at + DIGEST_SIZE]
            for digests in self._packs.values()
            for at in range(0, len(digests), DIGEST_SIZE)
        }
        fresh: list[Any] = []
        last, tied, rises, falls = None, {}, True, True
        for moment, row_time, row in timed:
            if (key := key_of(row)) is None:
                self.count -= 1
                continue
            if self._begin_before is not None:
                digest = _digest(moment, key)
                if digest in seen or digest in self._recent:
                    continue
                self._recent[digest] = moment
                if len(self._recent) > self._most_recent:
                    self._forget(newest_time)
            # Only rows with the same time can be the same: those side by side are told apart here.
            if moment != last:
                if last is not None:
                    rises, falls = rises and moment > last, falls and moment < last
                last, tied = moment, newest_rows if moment == newest else known if moment == before else {}
                if newest is None or moment > newest:
                    newest, newest_time, newest_rows = moment, row_time, tied
            if key not in tied:
                tied[key] = row
                fresh.append(row)
        if falls:
            fresh.reverse()
        self.is_sorted = rises or falls
        self.newest, self.newest_time, self.newest_rows = newest, newest_time, newest_rows
        return fresh

    def _forget(self, newest_time: Any) -> None:
        """Of a long history most rows are too old to be remembered in the end."""
        begin = self._begin_before(newest_time) if self._begin_before else None
        self._recent = {digest: moment for digest, moment in self._recent.items() if moment >= begin}
        self._most_recent = 2 * max(len(self._recent), _FEW)

    def remembered(self) -> tuple[Any, dict[Any, bytes]] | None:
        """Since when all rows are remembered, and their digests, for `load`; None if there is no window."""
        if self._begin_before is None or self.newest is None:
            return None
        begin = self._begin_before(self.newest_time)
        begin = begin if self._begin is None else max(begin, self._begin)
        packs = {last: digests for last, digests in self._packs.items() if last >= begin}
        recent = {digest: moment for digest, moment in self._recent.items() if moment >= begin}
        if recent:
            last = max(recent.values())
            packs[last] = packs.get(last, b"") + b"".join(recent)
        return begin, packs

    def note(self, ordinal: Any) -> None:
        """Remember the lowest ordinal, and the highest two."""
        if ordinal not in self._ordinals:
            lowest, *others = sorted([*self._ordinals, ordinal])
            self._ordinals = [lowest, *others[-2:]]

    def jump(self) -> tuple[Any, Any] | None:
        """The highest ordinal, and the one below it, if it is likely a mistake."""
        if len(self._ordinals) < 2 or not jumps(self._ordinals[0], *self._ordinals[-2:]):
            return None
        return self._ordinals[-1], self._ordinals[-2]


def _digest(moment: Any, key: Any) -> bytes:
    return blake2b(f"{moment}\n{key}".encode("utf-8", "surrogatepass"), digest_size=DIGEST_SIZE).digest()
