"""A file of rows that have a time: newest first or last, or in no order; it grows, or rolls."""

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
    """Publishes the rows that were not there before, oldest first.

    To be written: `obtain_orig_data`, `pick_raw_row_time` and `clean_row_time`. A row's time is whatever
    sorts: ISO 8601 text, a number, a datetime. Datetimes and ISO 8601 are compared as points in time, UTC
    where they name no timezone; anything else as it is, unless `row_time_format` says what it means.

    Without `late_by` the rule is n6's: a row is new if its time is above the newest one seen, or equal to it
    and the row was not there. With `late_by` so is one that comes late, as long as its time is at most that
    much before the newest one: the digests of the rows of that window are remembered. The same row again,
    anywhere in the window, is not new.

    A row whose time or key cannot be read (`ValueError`, `LookupError`, `ArithmeticError` or `csv.Error`), or
    whose time lies more than a day ahead (`is_row_time_possible`), is left out, with a WARNING; if there are
    several and that is so of all, the format must have changed, and it is an error.

    The state's keys are n6's, `newest_row_time`, `newest_rows` and `rows_count`, so that either can go on
    from the state of the other; and with `late_by` also `window_begin`, since when all rows are remembered,
    and `window_rows`, `{newest time in a run: digests of its rows, one after the other}`.

    Attributes:
        row_time_format: what numbers, and text that is not ISO 8601, mean: `epoch` (seconds), `epoch_ms`, or
            a format of `strptime`. None: they merely sort, and what lies ahead is not noticed as such.
        csv_rows: whether rows are CSV whose quoted fields may hold line breaks; or a dict of what
            `csv.reader` takes, such as `{"delimiter": ";"}`.
        max_message_mib: rows that need more go out as several messages, each of whole rows; but never those
            of the type `blacklist`, where each message is a whole list.
    """

    raw_type = "file"
    content_type = "text/csv"
    row_time_format: str | None = None
    csv_rows: bool | Mapping[str, Any] = False
    max_message_mib: float = 8
    extra_config_options = """
        ; how late a row may arrive after newer ones, like 90m, 2h or 7d
        late_by = 0 :: duration
        ; whether a number of rows that the new ones do not explain ends the run, instead of a line in the log
        row_count_mismatch_is_fatal = no :: bool
    """
    _NEWEST_ROW_TIME_STATE_KEY = "newest_row_time"
    _NEWEST_ROWS_STATE_KEY = "newest_rows"
    _ROWS_COUNT_KEY = "rows_count"
    state_keys = _NEWEST_ROW_TIME_STATE_KEY, _NEWEST_ROWS_STATE_KEY  # as n6's oldest states have

    # To be written

    def obtain_orig_data(self) -> bytes:
        """The whole file as it is now."""
        raise NotImplementedError(f"{type(self).__name__}.obtain_orig_data() is not written yet")

    def pick_raw_row_time(self, row: Any) -> Any:
        """The time as it stands in the row; None to leave the row out."""
        raise NotImplementedError(f"{type(self).__name__}.pick_raw_row_time() is not written yet")

    def clean_row_time(self, raw_row_time: Any) -> Any:
        """That time, made comparable: a later one is greater; None to leave the row out."""
        raise NotImplementedError(f"{type(self).__name__}.clean_row_time() is not written yet")

    # To be overridden where need be, in the order in which they are called

    def all_rows_from_orig_data(self, orig_data: bytes) -> Iterable[Any]:
        """`decode_orig`, then `split_orig`."""
        decoded = self.decode_orig(orig_data)
        del orig_data  # so that a large file is not held twice
        return self.split_orig(decoded)

    def decode_orig(self, orig_data: bytes) -> Any:
        """The file as text, without losing what is not UTF-8, but without a byte order mark."""
        checked("obtain_orig_data()", orig_data, bytes, bytearray)
        return orig_data.decode("utf-8-sig", "surrogateescape")

    def split_orig(self, decoded: Any) -> Iterable[Any]:
        """Its rows: the lines, without the line breaks (LF or CRLF) at their ends; with `csv_rows` several
        lines where a quoted field holds line breaks."""
        lines = checked("decode_orig()", decoded, str).split("\n")
        if "\r" in decoded:
            lines = [line.removesuffix("\r") for line in lines]
        return self._csv_rows(lines) if self.csv_rows else lines

    def extract_row_time(self, row: Any) -> Any:
        """`clean_row_time` of `pick_raw_row_time`; None if any of them, or `should_row_be_used`, says so."""
        if not self.should_row_be_used(row):
            return None
        raw_row_time = self.pick_raw_row_time(row)
        return None if raw_row_time is None else self.clean_row_time(raw_row_time)

    def is_row_time_possible(self, row_time: Any) -> bool:
        """Whether a row can have that time. Asked for ordinals, and for points in time more than a day ahead:
        by default a text must have a digit (the columns' names have none), and a number must be finite."""
        moment = self.comparable_time(row_time)
        if isinstance(moment, str):
            return any(map(str.isdigit, moment))
        return math.isfinite(moment) if isinstance(moment, Real) else not isinstance(moment, datetime)

    def row_key(self, row: Any) -> Any:
        """What tells the row from others with its time: the row itself. To be overridden where a row changes
        after it was published, such as by its id."""
        return row

    def should_row_be_used(self, row: Any) -> bool:
        """Whether it is more than blanks or a comment, which begins with `#`."""
        try:
            return row != "" and row[0] != "#" and not row.isspace()
        except (AttributeError, LookupError, TypeError):
            raise CollectorError(f"rows are {type(row).__name__}: write should_row_be_used()") from None

    def output_data_from_fresh_rows(self, fresh_rows: Iterable[Any]) -> bytes:
        """`join_output`, then `encode_output`."""
        return self.encode_output(self.join_output(fresh_rows))

    def join_output(self, fresh_rows: Iterable[Any]) -> Any:
        """What `split_orig` took apart."""
        try:
            return "\n".join(fresh_rows)
        except TypeError as exc:
            raise CollectorError(f"rows are not str: write join_output() for them ({exc})") from None

    def encode_output(self, joined: Any) -> bytes:
        """What `decode_orig` decoded."""
        return str.encode(checked("join_output()", joined, str), "utf-8", "surrogateescape")

    def get_oldest_possible_row_time(self) -> Any:
        """What the state has before the first row; no row's time is compared with it."""
        return ""

    def get_window_begin(self, newest_row_time: Any, late_by: int) -> Any:
        """The time `late_by` seconds before `newest_row_time`, or a bit before that. To be overridden for
        times that are neither points in time nor seconds.

        Raises:
            CollectorError: it is neither.
        """
        begin = earlier(comparable(newest_row_time, self.row_time_format), late_by)
        if begin is None:
            raise CollectorError(f"set row_time_format, or write get_window_begin(), for {newest_row_time!r}")
        return begin

    # What is done with them

    def make_default_state(self) -> dict[str, Any]:
        """No row was seen yet."""
        return {
            self._NEWEST_ROW_TIME_STATE_KEY: self.get_oldest_possible_row_time(),
            self._NEWEST_ROWS_STATE_KEY: set(),
            self._ROWS_COUNT_KEY: 0,
        }

    def rewound(self, state: dict[str, Any], to: str) -> dict[str, Any]:
        """For `state rewind`: a state from which the rows since that time, and of that time, are new.

        Raises:
            StateError: `to` is no time of the form that the state has, or a later one.
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
        """The fresh rows; None if there are none."""
        rows = self.all_rows_from_orig_data(self.obtain_orig_data())
        return self.get_fresh_rows_only(checked("all_rows_from_orig_data()", rows, Iterable)) or None

    def publish_iteratively(self) -> Iterator[Any]:
        """As in the base class; `NothingNew` may not come once rows were published."""
        before = self.published_count
        try:
            yield from super().publish_iteratively()
        except NothingNew as exc:
            if self.published_count == before:
                raise  # none of these rows was of interest
            raise CollectorError(
                "NothingNew came after rows were published, and the others would be lost; nothing was "
                "published; leave rows out in should_row_be_used() instead"
            ) from exc

    def generate_input_data_dicts(self, input_pile: Any, /) -> Iterator[dict[str, Any]]:
        """All fresh rows at once, or as many as `max_message_mib` allows; for a message each
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
        """The rows of CSV, each as it stands there. A line at which none that parses begins is left out, and
        what follows it is read: a stray quote does not swallow it."""
        csv.field_size_limit(sys.maxsize)  # of this process; what a download may have is limited already
        options = {"strict": True, **(self.csv_rows if isinstance(self.csv_rows, Mapping) else {})}
        begin = failed = 0
        while begin < len(lines):
            if not self.should_row_be_used(lines[begin]):  # in a comment a quote means nothing
                begin += 1
                continue
            # What did not parse up to line `failed` does not do so from a line in between either.
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
        """The rows that were not there before, oldest first; the state is brought up to date with them.

        Raises:
            SourceError: no row has a time that can be used, or their number is not explained and
                `row_count_mismatch_is_fatal` is set.
        """
        window = self._window()
        count, moments, rows = self._new_ones(all_rows, window)
        moments, rows = oldest_first(moments, rows, self.row_key)
        self._check(count, moments, window)
        self._remember(count, moments, rows, window)
        return rows

    def _window(self) -> Window:
        """What earlier runs have seen: by the state, the rows from some time on, or only the newest ones."""
        state = self.state
        newest_time, newest_rows = state[self._NEWEST_ROW_TIME_STATE_KEY], state[self._NEWEST_ROWS_STATE_KEY]
        if newest_time == self.get_oldest_possible_row_time():
            return Window()
        try:
            newest = self.comparable_time(newest_time)
        except UNREADABLE as exc:
            raise StateError(
                f"the state's newest_row_time, {newest_time!r}, is not a time of {type(self).__name__}: "
                f"{exc}; `state edit` it, or `state reset`"
            ) from exc
        packs = state.get("window_rows", {}) if self.config["late_by"] else {}
        if max(packs, default=None) == newest:  # otherwise it was set back by hand, or n6 has been here
            return Window(newest, state["window_begin"], packs.items())
        # n6 leaves a CR at the end of a row.
        rows = [row.removesuffix("\r") if isinstance(row, str) else row for row in newest_rows]
        return Window(newest, newest, [(newest, b"".join(digest(newest, self.row_key(row)) for row in rows))])

    def _new_ones(self, all_rows: Iterable[Any], window: Window) -> tuple[int, list[Any], list[Any]]:
        """How many rows have a time that can be used; of those that are new the comparable times, and the
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
                if raw_row_time != last:  # many rows one after the other have the same
                    moment = self._usable(clean(raw_row_time), window)
                    last, age = raw_row_time, window.age(moment)
                if age < 0 or moment is None:
                    count += moment is not None  # it comes too late
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
        if window.kind is None and len(set(map(type, moments))) > 1:  # the columns' names have another, say
            kinds = Counter(map(kind, moments))
            window.kind = max(kinds, key=lambda each: (kinds[each], each is datetime))
            return self._new_ones(rows, window)
        return count, moments, rows

    def _usable(self, row_time: Any, window: Window) -> Any:
        """The comparable time; None if it is None; `ValueError` if rows with that time are left out."""
        if row_time is None:
            return None
        moment = self.comparable_time(row_time)
        if window.kind not in (None, kind(moment)):
            raise ValueError("its time has another form than the others'")
        is_past = isinstance(moment, datetime) and moment <= window.latest
        if not is_past and not self.is_row_time_possible(row_time):
            raise ValueError("its time is more than a day ahead, or is not a time")
        return moment

    def comparable_time(self, row_time: Any) -> Any:
        """The time as it is compared with others; for the errors see `row_window.comparable`."""
        moment = comparable(row_time, self.row_time_format)
        try:
            max(moment, moment)
        except TypeError as exc:
            raise CollectorError(f"clean_row_time() must return what can be sorted: {exc}") from None
        return moment

    def _check(self, count: int, moments: list[Any], window: Window) -> None:
        """Say what is odd about the rows; for the errors see `get_fresh_rows_only`."""
        is_wrong = not count and self.left_out > 1  # one may be the columns' names
        self.warn_of_left_out("has the format changed, or is this machine's clock wrong" if is_wrong else "")
        ordinals = moments if window.newest is None else [window.newest, *moments]
        if moments and not isinstance(moments[-1], datetime) and jumps(ordinals):
            wrong = "the newest time, %r, is far beyond all others: if it is a mistake, use `state rewind`"
            LOGGER.warning(wrong, moments[-1])
        if (before := self.state.get(self._ROWS_COUNT_KEY)) is None:  # as in n6's oldest states
            return
        surplus = count - before - len(moments)
        what = "are there twice, or came later than late_by allows" if surplus > 0 else "are gone"
        text = f"the source has {count:,} rows, where it had {before:,} and {len(moments):,} are new: "
        text += f"the others {what}"
        if surplus and self.config["row_count_mismatch_is_fatal"]:
            raise SourceError(f"{text}; nothing was published (row_count_mismatch_is_fatal)")
        if surplus > 0:
            LOGGER.warning("%s; they are left out", text)

    def _remember(self, count: int, moments: list[Any], rows: list[Any], window: Window) -> None:
        """Bring the state up to date with what is new."""
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
    """The same for a file at an URL: `obtain_orig_data` is there. What has not changed is not sent again, and
    a page of HTML is not taken for rows."""

    extra_config_options = """
        url :: str  ; where the file is, http or https
    """

    def obtain_orig_data(self) -> bytes:
        """The file at `url`.

        Raises:
            NothingNew: the server says that it has not changed.
            SourceError: there is no whole answer.
        """
        # Where the state was set back, what has not changed is wanted again.
        newest_time = repr(self.state[self._NEWEST_ROW_TIME_STATE_KEY])
        validators = self.state.get("validators", {}).get(newest_time, {})
        content = self.download(self.config["url"], validators=validators)
        if self.http_response is None or self.http_response.is_known_whole:
            return content
        return content[: content.rfind(b"\n") + 1]  # the last row may have been cut; it will be there again

    def get_fresh_rows_only(self, all_rows: Iterable[Any]) -> list[Any]:
        """As in the base class; the server's validators count for the state that follows from these rows."""
        fresh = super().get_fresh_rows_only(all_rows)
        if self.http_response is not None:  # there was no download() of the collector's own
            newest_time = repr(self.state[self._NEWEST_ROW_TIME_STATE_KEY])
            self.state["validators"] = {newest_time: self.http_response.validators}
        return fresh

    def is_expected(self, content_type: str, beginning: bytes) -> bool:
        """Whether it is not HTML."""
        return not looks_like_html(content_type, beginning)
