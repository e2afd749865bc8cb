"""A file of rows that have a time: newest first or last, or in no order; it grows, or rolls."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import chain, groupby, islice
from typing import Any

from n6_stateful.bases.downloading import BaseDownloadingCollector, looks_like_html
from n6_stateful.bases.row_lines import csv_rows, lines_of, split_by_size
from n6_stateful.bases.row_times import comparable, earlier, is_usable, kind, tomorrow
from n6_stateful.bases.row_window import Window
from n6_stateful.bases.shape import StatefulBaseCollector, checked
from n6_stateful.bases.two_phase import BaseTwoPhaseCollector
from n6_stateful.errors import CollectorError, NothingNew, SourceError, StateError

LOGGER = logging.getLogger(__name__)

DIGEST_SIZE = 16
USABLE, TOO_LATE = "usable", "too late"
SAMPLE = 1000  # rows that show what kind the times of a file are
_VALID_FOR = "newest_row_time"
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
        lines = lines_of(checked("decode_orig()", decoded, str))
        if not self.csv_rows:
            return lines
        options = self.csv_rows if isinstance(self.csv_rows, Mapping) else {}
        return csv_rows(list(lines), options, self.should_row_be_used, self.leave_out)

    def extract_row_time(self, row: Any) -> Any:
        """`clean_row_time` of `pick_raw_row_time`; None if any of them, or `should_row_be_used`, says so."""
        if not self.should_row_be_used(row):
            return None
        raw_row_time = self.pick_raw_row_time(row)
        return None if raw_row_time is None else self.clean_row_time(raw_row_time)

    def is_row_time_possible(self, row_time: Any) -> bool:
        """Whether a row can have that time. Asked for ordinals, and for points in time more than a day ahead:
        by default a text must have a digit (the columns' names have none), and a number must be finite."""
        return is_usable(self.comparable_time(row_time))

    def row_key(self, row: Any) -> Any:
        """What tells the row from others with its time: the row itself. To be overridden where a row changes
        after it was published, such as by its id."""
        return row

    def should_row_be_used(self, row: Any) -> bool:
        """Whether it is more than blanks or a comment, which begins with `#`."""
        try:
            return row != "" and row[0] != "#" and not row.isspace()
        except (AttributeError, LookupError, TypeError):
            raise CollectorError(
                f"rows are {type(row).__name__}, not str: write should_row_be_used() for them"
            ) from None

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
        encoded: bytes = checked("join_output()", joined, str).encode("utf-8", "surrogateescape")
        return encoded

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
            raise CollectorError(
                f"late_by needs to know what time lies before {newest_row_time!r}: set row_time_format, or "
                "write get_window_begin(self, newest_row_time, late_by)"
            )
        return begin

    # What is done with them

    def get_state_keys(self) -> frozenset[str]:
        """What n6's oldest states have, too."""
        return frozenset((self._NEWEST_ROW_TIME_STATE_KEY, self._NEWEST_ROWS_STATE_KEY))

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
            is_earlier = self.comparable_time(begin) <= self.comparable_time(newest)
        except (*UNREADABLE, TypeError) as exc:
            raise StateError(
                f"{to!r} is not a time like the newest one, {newest!r}: {exc}; nothing was changed"
            ) from exc
        if not is_earlier:
            raise StateError(f"{to!r} is later than the newest time, {newest!r}; nothing was changed")
        kept = {key: value for key, value in state.items() if key not in ("window_begin", "window_rows")}
        return kept | {
            self._NEWEST_ROW_TIME_STATE_KEY: begin,
            self._NEWEST_ROWS_STATE_KEY: set(),
            self._ROWS_COUNT_KEY: None,
        }

    def obtain_input_pile(self) -> Any:
        """The fresh rows; None if there are none."""
        orig_data = self.obtain_orig_data()
        rows = self.all_rows_from_orig_data(orig_data)
        del orig_data
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
                "NothingNew came when rows had been published already, and the others would be lost: leave "
                "rows out where their time is read, or make no input data of them"
            ) from exc

    def generate_input_data_dicts(self, input_pile: Any, /) -> Iterator[dict[str, Any]]:
        """All fresh rows at once, or as many as `max_message_mib` allows; for a message each
        `for row in input_pile: yield {"fresh_rows": [row]}`."""
        if self.type == "blacklist":
            yield {"fresh_rows": input_pile}
            return
        for rows in split_by_size(list(input_pile), int(self.max_message_mib * 2**20)):
            yield {"fresh_rows": rows}

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        """`output_data_from_fresh_rows`."""
        return self.output_data_from_fresh_rows(processed_data["fresh_rows"])

    def get_fresh_rows_only(self, all_rows: Iterable[Any]) -> list[Any]:
        """The rows that were not there before, oldest first; the state is brought up to date with them.

        Raises:
            SourceError: no row has a time that can be used, or their number is not explained and
                `row_count_mismatch_is_fatal` is set.
        """
        window = self._window()
        timed = self._timed(all_rows, window)
        fresh = window.only_new(timed, self.key_of)
        if not window.is_sorted:
            fresh = self._oldest_first(fresh)
        self._check(window, len(fresh))
        self._remember(window, is_changed=bool(fresh))
        return fresh

    def _window(self) -> Window:
        """What the state remembers."""
        state, late_by = self.state, self.config["late_by"]

        def begin_before(newest_time: Any) -> Any:
            return self.comparable_time(self.get_window_begin(newest_time, late_by))

        newest_time, rows = state[self._NEWEST_ROW_TIME_STATE_KEY], state[self._NEWEST_ROWS_STATE_KEY]
        if newest_time == self.get_oldest_possible_row_time():
            return Window(None, newest_time, {}, begin_before if late_by else None)
        try:
            newest = self.comparable_time(newest_time)
        except UNREADABLE as exc:
            raise StateError(
                f"the state's newest_row_time, {newest_time!r}, is not a time of {type(self).__name__}: "
                f"{exc}; nothing was published. `state edit` it, or `state reset`"
            ) from exc
        rows = [row.removesuffix("\r") if isinstance(row, str) else row for row in rows]  # n6 leaves it there
        keyed = {self.row_key(row): row for row in rows}
        window = Window(newest, newest_time, keyed, begin_before if late_by else None)
        window.load(state.get("window_begin", newest), state.get("window_rows"))
        return window

    def _timed(self, all_rows: Iterable[Any], window: Window) -> Iterator[tuple[Any, Any, Any]]:
        """The comparable time, the time, and the row itself, of each row that does not come too late."""
        rows = iter(all_rows)
        sample = [] if window.kind else list(islice(rows, SAMPLE))
        expected = window.kind or self._usual_kind(sample)
        is_used, pick, clean = self.should_row_be_used, self.pick_raw_row_time, self.clean_row_time
        if type(self).extract_row_time is not BaseTimeOrderedRowsCollector.extract_row_time:
            is_used, pick, clean = bool, self.extract_row_time, lambda row_time: row_time  # type: ignore[assignment]
        count, latest, last, row_time, moment, verdict = 0, tomorrow(), None, None, None, ""
        for row in chain(sample, rows):
            try:
                raw_row_time = pick(row) if is_used(row) else None
                if raw_row_time is None:
                    continue
                if raw_row_time != last:  # many rows one after the other have the same
                    row_time = clean(raw_row_time)
                    moment, verdict = self._judged(row_time, window, expected, latest)
                    last = raw_row_time
            except UNREADABLE:
                last = None
                self.leave_out("rows whose time cannot be read, left out", f"{row!r:.100}")
                continue
            if verdict is TOO_LATE:
                count += 1
            elif verdict is USABLE:
                count += 1
                yield moment, row_time, row
            elif verdict:
                self.leave_out(verdict, f"{row!r:.100}")
        window.count += count

    def _judged(self, row_time: Any, window: Window, expected: type, latest: datetime) -> tuple[Any, str]:
        """The comparable time, and what is to become of rows with that time: if it is none of these two, why
        they are left out; empty if they say so themselves."""
        if row_time is None:
            return None, ""
        moment = self.comparable_time(row_time)
        if kind(moment) is not expected:
            return moment, "rows whose time has another form than the others', left out"
        if not (expected is datetime and moment <= latest) and not self.is_row_time_possible(row_time):
            return moment, "rows whose time is more than a day ahead, or is not a time, left out"
        if expected is not datetime:
            window.note(moment)
        return moment, TOO_LATE if window.is_past(moment) else USABLE

    def _usual_kind(self, sample: list[Any]) -> type:
        """The kind of most of their times; of points in time if that is undecided."""
        kinds: Counter[type] = Counter()
        for row in sample:
            with suppress(*UNREADABLE):
                if (row_time := self.extract_row_time(row)) is not None:
                    kinds[kind(self.comparable_time(row_time))] += 1
        return max(kinds, key=lambda each: (kinds[each], each is datetime), default=datetime)

    def comparable_time(self, row_time: Any) -> Any:
        """The time as it is compared with others; for the errors see `row_times.comparable`."""
        moment = comparable(row_time, self.row_time_format)
        if not isinstance(moment, datetime | str):
            try:
                sorted((moment, moment))
            except TypeError as exc:
                raise CollectorError(f"clean_row_time() must return what can be sorted: {exc}") from None
        return moment

    def key_of(self, row: Any) -> Any:
        """`row_key`; None, and the row is left out, if it cannot be read."""
        try:
            key = self.row_key(row)
        except UNREADABLE:
            key = None
        if key is None:
            self.leave_out("rows whose key cannot be read, left out", f"{row!r:.100}")
        try:
            hash(key)
        except TypeError as exc:
            raise CollectorError(f"row_key() must return what can be a key of a dict: {exc}") from None
        return key

    def _oldest_first(self, rows: list[Any]) -> list[Any]:
        def moment(row: Any) -> Any:
            return self.comparable_time(self.extract_row_time(row))

        rows.sort(key=moment)
        ties = ({self.row_key(row): row for row in same_time} for _, same_time in groupby(rows, moment))
        return [row for rows_by_key in ties for row in rows_by_key.values()]

    def _check(self, window: Window, fresh: int) -> None:
        """Say what is odd about the rows; for the errors see `get_fresh_rows_only`."""
        is_wrong = not window.count and self.left_out > 1  # one may be the columns' names
        self.warn_of_left_out(
            "has the format changed, or is the clock of this machine wrong" if is_wrong else ""
        )
        if jump := window.jump():
            LOGGER.warning(
                "the newest time, %r, is far beyond all others (the next is %r): if it is a mistake of the "
                "source, no row is new until `state rewind`; row_time_format lets such rows be left out",
                *jump,
            )
        before = self.state.get(self._ROWS_COUNT_KEY)  # n6's oldest states have none
        if before is None or window.count == before + fresh:
            return
        is_more = window.count > before + fresh
        what = (
            "are there twice, or came later than late_by allows, and are left out" if is_more else "are gone"
        )
        text = f"the source has {window.count:,} rows, where it had {before:,} and {fresh:,} are new"
        text += f": the others {what}"
        if self.config["row_count_mismatch_is_fatal"]:
            raise SourceError(f"{text}; nothing was published (row_count_mismatch_is_fatal)")
        LOGGER.log(logging.WARNING if is_more else logging.DEBUG, "%s", text)

    def _remember(self, window: Window, *, is_changed: bool) -> None:
        """Bring the state up to date."""
        state = self.state
        if is_changed:
            state[self._NEWEST_ROW_TIME_STATE_KEY] = window.newest_time
            state[self._NEWEST_ROWS_STATE_KEY] = set(window.newest_rows.values())
            state[self._ROWS_COUNT_KEY] = window.count
        state.pop("window_begin", None)
        state.pop("window_rows", None)
        if remembered := window.remembered():
            state["window_begin"], state["window_rows"] = remembered


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
        validators = self.state.get("validators", {})
        if validators.get(_VALID_FOR) != self._valid_for():
            validators = {}  # the state was set back: what has not changed is wanted again
        content = self.download(self.config["url"], validators=validators)
        answer = self.http_response
        if answer is None:  # a download() of the collector's own
            return content
        self.state["validators"] = answer.validators
        if not answer.is_known_whole and not content.endswith(b"\n"):
            # The last row may have been cut; it is there again the next time.
            return content[: content.rfind(b"\n") + 1]
        return content

    def get_fresh_rows_only(self, all_rows: Iterable[Any]) -> list[Any]:
        """As in the base class; the server's validators count for the state that follows from these rows."""
        fresh = super().get_fresh_rows_only(all_rows)
        if self.state.get("validators"):
            self.state["validators"] |= {_VALID_FOR: self._valid_for()}
        return fresh

    def _valid_for(self) -> str:
        return repr(self.state[self._NEWEST_ROW_TIME_STATE_KEY])

    def is_expected(self, content_type: str, beginning: bytes) -> bool:
        """Whether it is not HTML."""
        return not looks_like_html(content_type, beginning)
