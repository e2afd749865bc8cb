"""A file of rows with a time, in any order; the file may grow, or drop old rows."""

from __future__ import annotations

import csv
import logging
import math
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from n6_stateful.bases.downloading import BaseDownloadingCollector, looks_like_html
from n6_stateful.bases.row_window import Real, Window, comparable, digest, earlier, jumps, kind, oldest_first
from n6_stateful.bases.shape import StatefulBaseCollector, checked
from n6_stateful.bases.two_phase import BaseTwoPhaseCollector
from n6_stateful.errors import CollectorError, NothingNew, SourceError, StateError

LOGGER = logging.getLogger(__name__)

UNREADABLE = (ValueError, LookupError, ArithmeticError, csv.Error)


class BaseTimeOrderedRowsCollector(StatefulBaseCollector, BaseTwoPhaseCollector):
    """Publishes the rows that are new, oldest first.

    To be written: `obtain_orig_data`, `pick_raw_row_time` and `clean_row_time`. A row's time is
    anything sortable: ISO 8601 text, a number, a datetime. Datetimes and ISO 8601 are compared as points in
    time, in UTC if they have no timezone; other values are compared as they are, unless `row_time_format`
    gives their format.

    Without `late_by` the rule is n6's: a row is new if its time is later than the newest one seen, or equal
    to it and the row was not there before. With `late_by` a row may also arrive late, as long as its time is
    at most that much before the newest one. The digests of all rows in that window are remembered, so the
    same row is never new twice.

    A row is left out, with a WARNING, if its time or key cannot be read (`ValueError`, `LookupError`,
    `ArithmeticError` or `csv.Error`), or if its time is more than a day ahead (`is_row_time_possible`). If
    there are several rows and all of them are left out, the run fails: the format must have changed.

    The state has n6's keys, `newest_row_time`, `newest_rows` and `rows_count`, so n6 can load our state and
    we can load n6's. With `late_by` it also has `window_begin`, from when on all rows are remembered, and
    `window_rows`, `{newest time in a run: digests of its rows, concatenated}`.

    Attributes:
        row_time_format: the format of numbers, and of text that is not ISO 8601: `epoch` (seconds),
            `epoch_ms`, or a format for `strptime`. None: they are only sorted, and a time in the future is
            not recognised.
        csv_rows: whether rows are CSV whose quoted fields may contain line breaks; or a dict of options for
            `csv.reader`, such as `{"delimiter": ";"}`.
        max_message_mib: larger amounts are split into several messages, each with complete rows; except with
            the type `blacklist`, where each message is a complete list.
    """

    raw_type = "file"
    content_type = "text/csv"
    row_time_format: str | None = None
    csv_rows: bool | Mapping[str, Any] = False
    max_message_mib: float = 8
    extra_config_options = """
        ; how late a row may arrive after newer ones, like 90m, 2h or 7d
        late_by = 0 :: duration
        ; fail the run, instead of logging it, if the new rows do not explain the number of rows
        row_count_mismatch_is_fatal = no :: bool
    """
    _NEWEST_ROW_TIME_STATE_KEY = "newest_row_time"
    _NEWEST_ROWS_STATE_KEY = "newest_rows"
    _ROWS_COUNT_KEY = "rows_count"
    state_keys = _NEWEST_ROW_TIME_STATE_KEY, _NEWEST_ROWS_STATE_KEY  # as n6's oldest states have

    # To be written

    def obtain_orig_data(self) -> bytes:
        """Download the complete file."""
        raise NotImplementedError(f"{type(self).__name__}.obtain_orig_data() is not written yet")

    def pick_raw_row_time(self, row: Any) -> Any:
        """The time as the row has it; None to leave the row out."""
        raise NotImplementedError(f"{type(self).__name__}.pick_raw_row_time() is not written yet")

    def clean_row_time(self, raw_row_time: Any) -> Any:
        """The time in a form that sorts correctly; None to leave the row out."""
        raise NotImplementedError(f"{type(self).__name__}.clean_row_time() is not written yet")

    # To be overridden if needed, in the order in which they are called

    def all_rows_from_orig_data(self, orig_data: bytes) -> Iterable[Any]:
        """`decode_orig`, then `split_orig`."""
        decoded = self.decode_orig(orig_data)
        del orig_data  # so that a large file is not held twice
        return self.split_orig(decoded)

    def decode_orig(self, orig_data: bytes) -> Any:
        """The file as text, without a byte order mark; bytes that are not UTF-8 are preserved."""
        checked("obtain_orig_data()", orig_data, bytes, bytearray)
        return orig_data.decode("utf-8-sig", "surrogateescape")

    def split_orig(self, decoded: Any) -> Iterable[Any]:
        """The rows: the lines, without their line breaks (LF or CRLF). With `csv_rows`, a row may span
        several lines, if a quoted field contains line breaks."""
        lines = checked("decode_orig()", decoded, str).split("\n")
        if "\r" in decoded:
            lines = [line.removesuffix("\r") for line in lines]
        return self._csv_rows(lines) if self.csv_rows else lines

    def extract_row_time(self, row: Any) -> Any:
        """`clean_row_time` of `pick_raw_row_time`; None if the row is to be left out."""
        if not self.should_row_be_used(row):
            return None
        raw_row_time = self.pick_raw_row_time(row)
        return None if raw_row_time is None else self.clean_row_time(raw_row_time)

    def is_row_time_possible(self, row_time: Any) -> bool:
        """Whether a row can have that time. Only called for times in no known format, and for points in time
        more than a day ahead. By default a text must contain a digit (column names do not), a number must be
        finite, and no point in time is accepted."""
        moment = self.comparable_time(row_time)
        if isinstance(moment, str):
            return any(map(str.isdigit, moment))
        return math.isfinite(moment) if isinstance(moment, Real) else not isinstance(moment, datetime)

    def row_key(self, row: Any) -> Any:
        """What identifies the row among those with the same time; by default, the whole row. Override it if
        rows change after they were published: return the id, for example."""
        return row

    def should_row_be_used(self, row: Any) -> bool:
        """Whether the row is neither blank nor a comment, which begins with `#`."""
        try:
            return row != "" and row[0] != "#" and not row.isspace()
        except (AttributeError, LookupError, TypeError):
            raise CollectorError(f"rows are {type(row).__name__}: write should_row_be_used()") from None

    def output_data_from_fresh_rows(self, fresh_rows: Iterable[Any]) -> bytes:
        """`join_output`, then `encode_output`."""
        return self.encode_output(self.join_output(fresh_rows))

    def join_output(self, fresh_rows: Iterable[Any]) -> Any:
        """Join what `split_orig` has split."""
        try:
            return "\n".join(fresh_rows)
        except TypeError as exc:
            raise CollectorError(f"rows are not str: write join_output() for them ({exc})") from None

    def encode_output(self, joined: Any) -> bytes:
        """Encode what `decode_orig` has decoded."""
        return str.encode(checked("join_output()", joined, str), "utf-8", "surrogateescape")

    def get_oldest_possible_row_time(self) -> Any:
        """The time in the state before the first row; it is not compared with any row's time."""
        return ""

    def get_window_begin(self, newest_row_time: Any, late_by: int) -> Any:
        """The time `late_by` seconds before `newest_row_time`, or slightly earlier. To be overridden for
        times that are neither points in time nor seconds.

        Raises:
            CollectorError: `newest_row_time` is neither.
        """
        begin = earlier(comparable(newest_row_time, self.row_time_format), late_by)
        if begin is None:
            raise CollectorError(f"set row_time_format, or write get_window_begin(), for {newest_row_time!r}")
        return begin

    # The base class's own

    def make_default_state(self) -> dict[str, Any]:
        """The state before the first row."""
        return {
            self._NEWEST_ROW_TIME_STATE_KEY: self.get_oldest_possible_row_time(),
            self._NEWEST_ROWS_STATE_KEY: set(),
            self._ROWS_COUNT_KEY: 0,
        }

    def rewound(self, state: dict[str, Any], to: str) -> dict[str, Any]:
        """For `state rewind`: a state in which all rows with that time, or a later one, are new.

        Raises:
            StateError: `to` does not have the form of the state's time, or is later.
        """
        newest = state[self._NEWEST_ROW_TIME_STATE_KEY]
        try:
            begin = getattr(type(newest), "fromisoformat", type(newest))(to)
            if self.comparable_time(begin) > self.comparable_time(newest):
                raise ValueError("it is later")
        except (*UNREADABLE, TypeError) as exc:
            raise StateError(f"{to!r} is not a time up to {newest!r}: {exc}; nothing was changed") from exc
        reset: dict[str, Any] = {self._NEWEST_ROWS_STATE_KEY: set(), self._ROWS_COUNT_KEY: None}
        return state | reset | {self._NEWEST_ROW_TIME_STATE_KEY: begin, "window_rows": {}, "validators": {}}

    def obtain_input_pile(self) -> Any:
        """The new rows; None if there are none."""
        rows = self.all_rows_from_orig_data(self.obtain_orig_data())
        return self.get_fresh_rows_only(checked("all_rows_from_orig_data()", rows, Iterable)) or None

    def publish_iteratively(self) -> Iterator[Any]:
        """As in the base class; `NothingNew` is an error once rows were published."""
        before = self.published_count
        try:
            yield from super().publish_iteratively()
        except NothingNew as exc:
            if self.published_count == before:
                raise  # none of these rows is to be published
            raise CollectorError(
                "NothingNew was raised after rows had been published, so the rest would be lost; nothing was "
                "published; leave out rows in should_row_be_used() instead"
            ) from exc

    def generate_input_data_dicts(self, input_pile: Any, /) -> Iterator[dict[str, Any]]:
        """All new rows at once, or as many as `max_message_mib` allows. For one message per row, write
        `for row in input_pile: yield {"fresh_rows": [row]}`."""
        limit = math.inf if self.type == "blacklist" else self.max_message_mib * 2**20
        part: list[Any] = []
        size = 0
        for row in input_pile:
            needed = len(f"{row}".encode(errors="replace")) + 1
            if part and size + needed > limit + 1:
                yield {"fresh_rows": part}
                part, size = [], 0
            part.append(row)
            size += needed
        yield {"fresh_rows": part}

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        """`output_data_from_fresh_rows`."""
        return self.output_data_from_fresh_rows(processed_data["fresh_rows"])

    def _csv_rows(self, lines: list[str]) -> Iterator[str]:
        """The rows of CSV, each unchanged. If no row can be parsed from a line on, only that line is left
        out, so that a stray quote does not swallow what follows."""
        csv.field_size_limit(sys.maxsize)  # for the whole process; the size of a download is limited already
        options = {"strict": True, **(self.csv_rows if isinstance(self.csv_rows, Mapping) else {})}
        begin = failed = 0
        while begin < len(lines):
            if not self.should_row_be_used(lines[begin]):  # in a comment a quote means nothing
                begin += 1
                continue
            # Parsing failed at line `failed`; from a line in between it would fail there, too.
            end = begin + 1 if begin < failed else len(lines)
            reader = csv.reader(map(lines.__getitem__, range(begin, end)), **options)
            try:
                next(reader)
            except csv.Error as exc:
                self.leave_out("rows left out", f"line {begin + 1}, {lines[begin]!r:.100}: {exc}")
                failed = max(failed, begin + reader.line_num - 1)
                begin += 1
            else:
                yield "\n".join(lines[begin : begin + reader.line_num])
                begin += reader.line_num

    def get_fresh_rows_only(self, all_rows: Iterable[Any]) -> list[Any]:
        """Return the new rows, oldest first, and update the state.

        Raises:
            SourceError: no row has a usable time; or the number of rows is not explained, and
                `row_count_mismatch_is_fatal` is set.
        """
        window = self._window()
        count, moments, rows = self._new_ones(all_rows, window)
        moments, rows = oldest_first(moments, rows, self.row_key)
        self._check(count, moments, window)
        self._remember(count, moments, rows, window)
        return rows

    def _window(self) -> Window:
        """What earlier runs have seen, by the state: all rows from some time on, or only the newest ones."""
        state = self.state
        newest_time, newest_rows = state[self._NEWEST_ROW_TIME_STATE_KEY], state[self._NEWEST_ROWS_STATE_KEY]
        if newest_time == self.get_oldest_possible_row_time():
            return Window()
        try:
            newest = self.comparable_time(newest_time)
        except UNREADABLE as exc:
            raise StateError(
                f"the state's newest_row_time, {newest_time!r}, is not a time that {type(self).__name__} can "
                f"read: {exc}; fix it with `state edit`, or `state reset`"
            ) from exc
        packs = state.get("window_rows", {}) if self.config["late_by"] else {}
        if max(packs, default=None) == newest:  # otherwise it was edited, or n6 has saved this state
            return Window(newest, state["window_begin"], packs.items())
        # n6 leaves a CR at the end of a row.
        rows = [row.removesuffix("\r") if isinstance(row, str) else row for row in newest_rows]
        return Window(newest, newest, [(newest, b"".join(digest(newest, self.row_key(row)) for row in rows))])

    def _new_ones(self, all_rows: Iterable[Any], window: Window) -> tuple[int, list[Any], list[Any]]:
        """The number of rows with a usable time; and for those that are new, their comparable times and the
        rows themselves, in the file's order."""
        moments: list[Any] = []
        rows: list[Any] = []
        is_used, pick, clean = self.should_row_be_used, self.pick_raw_row_time, self.clean_row_time
        if type(self).extract_row_time is not BaseTimeOrderedRowsCollector.extract_row_time:
            is_used, pick, clean = bool, self.extract_row_time, lambda row_time: row_time  # type: ignore[assignment]
        count, row_key, last, moment, age = 0, self.row_key, None, None, 0
        for row in all_rows:
            try:
                raw_row_time = pick(row) if is_used(row) else None
                if raw_row_time is None:
                    continue
                if raw_row_time != last:  # successive rows often have the same time
                    moment = self._usable(clean(raw_row_time), window)
                    last, age = raw_row_time, window.age(moment)
                if age < 0 or moment is None:
                    count += moment is not None  # it arrived too late
                    continue
                if (key := row_key(row)) is None:
                    raise LookupError("it has no key")
            except UNREADABLE as exc:
                self.leave_out("rows left out", f"{row!r:.100}: {exc!s:.100}")
                continue
            count += 1
            if age > 0 or not window.was_seen(moment, key):
                moments.append(moment)
                rows.append(row)
        if window.kind is None and len(set(map(type, moments))) > 1:  # such as those of column names
            kinds = Counter(map(kind, moments))
            window.kind = max(kinds, key=lambda of_kind: (kinds[of_kind], of_kind is datetime))
            return self._new_ones(rows, window)
        return count, moments, rows

    def _usable(self, row_time: Any, window: Window) -> Any:
        """The comparable time; None for None; `ValueError` if rows with that time are left out."""
        if row_time is None:
            return None
        moment = self.comparable_time(row_time)
        if window.kind not in (None, kind(moment)):
            raise ValueError("its time has a different form from the others'")
        is_past = isinstance(moment, datetime) and moment <= window.latest
        if not is_past and not self.is_row_time_possible(row_time):
            raise ValueError("its time is more than a day ahead, or is not a time")
        return moment

    def comparable_time(self, row_time: Any) -> Any:
        """The time in its comparable form; raises what `row_window.comparable` raises."""
        moment = comparable(row_time, self.row_time_format)
        try:
            max(moment, moment)
        except TypeError as exc:
            raise CollectorError(f"clean_row_time() must return something sortable: {exc}") from None
        return moment

    def _check(self, count: int, moments: list[Any], window: Window) -> None:
        """Warn of odd rows; raises what `get_fresh_rows_only` raises."""
        is_wrong = not count and self.left_out > 1  # a single one may be the column names
        self.warn_of_left_out("has the format changed, or is this machine's clock wrong?" if is_wrong else "")
        ordinals = moments if window.newest is None else [window.newest, *moments]
        if moments and not isinstance(moments[-1], datetime) and jumps(ordinals):
            wrong = "the newest time, %r, is far beyond all others; if it is wrong, use `state rewind`"
            LOGGER.warning(wrong, moments[-1])
        if (before := self.state.get(self._ROWS_COUNT_KEY)) is None:  # as in n6's oldest states
            return
        surplus = count - before - len(moments)
        what = "are duplicates, or arrived later than late_by allows" if surplus > 0 else "are gone"
        text = f"the source has {count:,} rows; it had {before:,}, and {len(moments):,} are new: "
        text += f"the others {what}"
        if surplus and self.config["row_count_mismatch_is_fatal"]:
            raise SourceError(f"{text}; nothing was published (row_count_mismatch_is_fatal)")
        if surplus > 0:
            LOGGER.warning("%s; they are left out", text)

    def _remember(self, count: int, moments: list[Any], rows: list[Any], window: Window) -> None:
        """Update the state with the new rows."""
        state, newest = self.state, window.newest
        if rows:
            if newest is None or moments[-1] > newest:
                newest, state[self._NEWEST_ROWS_STATE_KEY] = moments[-1], set()
                state[self._NEWEST_ROW_TIME_STATE_KEY] = self.extract_row_time(rows[-1])
            state[self._NEWEST_ROWS_STATE_KEY] |= set(rows[bisect_left(moments, newest) :])
            state[self._ROWS_COUNT_KEY] = count
        state.pop("window_rows", None)
        if self.config["late_by"] and newest is not None:
            newest_time = state[self._NEWEST_ROW_TIME_STATE_KEY]
            begin = self.comparable_time(self.get_window_begin(newest_time, self.config["late_by"]))
            begin = begin if window.begin is None else max(begin, window.begin)
            packs = {last: pack for last, pack in window.packs if last >= begin}
            recent = range(bisect_left(moments, begin), len(rows))
            pack = b"".join(digest(moments[number], self.row_key(rows[number])) for number in recent)
            state |= {"window_begin": begin, "window_rows": packs | {newest: packs.get(newest, b"") + pack}}


class BaseDownloadingTimeOrderedRowsCollector(BaseDownloadingCollector, BaseTimeOrderedRowsCollector):
    """The same for a file at a URL: `obtain_orig_data` is implemented. An unchanged file is not downloaded
    again, and an HTML page is an error."""

    extra_config_options = """
        url :: str  ; where the file is, http or https
    """

    def obtain_orig_data(self) -> bytes:
        """The file at `url`.

        Raises:
            NothingNew: the server reports that it has not changed.
            SourceError: the download failed.
        """
        # After `state rewind`, an unchanged file is needed again.
        newest_time = repr(self.state[self._NEWEST_ROW_TIME_STATE_KEY])
        validators = self.state.get("validators", {}).get(newest_time, {})
        content = self.download(self.config["url"], validators=validators)
        if self.http_response is None or self.http_response.is_known_whole:
            return content
        return content[: content.rfind(b"\n") + 1]  # the last row may have been cut; the next download has it

    def get_fresh_rows_only(self, all_rows: Iterable[Any]) -> list[Any]:
        """As in the base class; also saves the server's validators, valid for the resulting newest time."""
        fresh = super().get_fresh_rows_only(all_rows)
        if self.http_response is not None:  # unless the collector downloads by other means
            newest_time = repr(self.state[self._NEWEST_ROW_TIME_STATE_KEY])
            self.state["validators"] = {newest_time: self.http_response.validators}
        return fresh

    def is_expected(self, content_type: str, beginning: bytes) -> bool:
        """Whether it is not HTML."""
        return not looks_like_html(content_type, beginning)
