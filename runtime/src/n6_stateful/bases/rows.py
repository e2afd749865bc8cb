"""A file of rows that bear a time: newest first or last, or in no order; it grows, or rolls."""

from __future__ import annotations

import csv
import datetime
import io
import logging
import pickle
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from operator import itemgetter
from typing import Any

from n6_stateful.bases.downloading import BaseDownloadingCollector, looks_like_html
from n6_stateful.bases.shape import StatefulBaseCollector
from n6_stateful.bases.two_phase import BaseTwoPhaseCollector
from n6_stateful.errors import CollectorError, NothingNew, SourceError

LOGGER = logging.getLogger(__name__)

DIGEST_SIZE = 16
_PACK = 10_000
_SPLIT = 1 << 20
_PROMISED_STATE_KEY = "promised"
_UNREADABLE = (ValueError, LookupError, ArithmeticError, csv.Error)


class BaseTimeOrderedRowsCollector(StatefulBaseCollector, BaseTwoPhaseCollector):
    """Publishes the rows that were not there before, oldest first, as one message.

    To be written: `obtain_orig_data`, `pick_raw_row_time` and `clean_row_time`. A row's time is whatever
    sorts: a string as ISO 8601 has it, a number, a datetime.

    Without `late_by` the rule is n6's: a row is new if its time is above the newest one seen, or equal to it
    and the row was not there. With `late_by` so is one that comes late, as long as its time is at most that
    much before the newest one: the digests of the rows taken in that window are remembered. The same row
    again, anywhere in the window, is not new.

    A row whose time or key cannot be read (`ValueError`, `LookupError`, `ArithmeticError` or `csv.Error`), or
    whose time is not possible (`is_row_time_possible`), is left out, with a line in the log; if there are
    several and that is so of all, the format must have changed, and it is an error.

    The state's keys are n6's, `newest_row_time`, `newest_rows` and `rows_count`, so that the state of either
    is read by the other; and with `late_by` also `window_begin`, since when all rows are remembered, and
    `window_rows`, `{newest time in a run: digests of its rows, one after the other}`. While a run publishes,
    `promised` is the state that it is going to save: if it is cut off, the next run tells by it which rows
    were in the message, so that its twin has the same id although the file has grown.
    """

    raw_type = "file"
    content_type = "text/csv"
    extra_config_options = """
        ; how much older than the newest row a row may be when it comes, like 90m, 2h or 7d
        late_by = 0 :: duration
        ; whether a number of rows that the new ones do not explain ends the run, instead of a line in the log
        row_count_mismatch_is_fatal = no :: bool
    """
    _NEWEST_ROW_TIME_STATE_KEY = "newest_row_time"
    _NEWEST_ROWS_STATE_KEY = "newest_rows"
    _ROWS_COUNT_KEY = "rows_count"
    _again: Any = None  # the rows of a run that was cut off
    _promise: dict[str, Any] | None = None

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
        """The file as text, without losing what is not UTF-8, but without UTF-8's own mark at its beginning
        (a BOM)."""
        return orig_data.decode("utf-8-sig", "surrogateescape")

    def split_orig(self, decoded: Any) -> Iterable[Any]:
        """Its lines, without the line feeds at their ends."""
        begin = 0
        while begin < len(decoded):
            end = decoded.find("\n", begin + _SPLIT)
            yield from decoded[begin : None if end < 0 else end].split("\n")
            begin = end + 1 or len(decoded)

    def extract_row_time(self, row: Any) -> Any:
        """`clean_row_time` of `pick_raw_row_time`; None if any of them, or `should_row_be_used`, says so."""
        if not self.should_row_be_used(row):
            return None
        raw_row_time = self.pick_raw_row_time(row)
        return None if raw_row_time is None else self.clean_row_time(raw_row_time)

    def is_row_time_possible(self, row_time: Any) -> bool:
        """Whether a row can have that time; asked for those above tomorrow's date. Not if it has no digit, as
        in the line with the columns' names, or lies more than a day ahead: once such a time were the newest
        one, no row would be new any more."""
        if not isinstance(row_time, str) or not any(map(str.isdigit, row_time)):
            return False
        with suppress(ValueError):
            if row_time[4:5] != "-":  # digits in a row may be a serial number
                return True
            moment = datetime.datetime.fromisoformat(row_time)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
            return moment <= _tomorrow()
        return True

    def row_key(self, row: Any) -> Any:
        """What tells the row from others with its time: the row itself. To be overridden where a row changes
        after it was published, such as by its id."""
        return row

    def should_row_be_used(self, row: Any) -> bool:
        """Whether it is more than blanks or a comment, which begins with `#`."""
        return not row.startswith("#") and row != "" and not row.isspace()

    def output_data_from_fresh_rows(self, fresh_rows: Iterable[Any]) -> bytes:
        """`join_output`, then `encode_output`."""
        cls, base = type(self), BaseTimeOrderedRowsCollector
        if (cls.join_output, cls.encode_output) != (base.join_output, base.encode_output):
            return self.encode_output(self.join_output(fresh_rows))
        body = io.BytesIO()  # the same, without holding all of it three times
        for rows in fresh_rows.packs() if isinstance(fresh_rows, _Rows) else [fresh_rows]:
            body.write(self.encode_output(("\n" if body.tell() else "") + self.join_output(rows)))
        return body.getvalue()

    def join_output(self, fresh_rows: Iterable[Any]) -> Any:
        """What `split_orig` took apart."""
        return "\n".join(fresh_rows)

    def encode_output(self, joined: Any) -> bytes:
        """What `decode_orig` decoded."""
        encoded: bytes = joined.encode("utf-8", "surrogateescape")
        return encoded

    def get_oldest_possible_row_time(self) -> Any:
        """What is below every row's time: `""` for strings, 0 or `datetime.min` for others."""
        return ""

    def get_window_begin(self, newest_row_time: Any, late_by: int) -> Any:
        """The time `late_by` seconds before `newest_row_time`, or a bit before that. To be overridden for
        times that are neither ISO 8601, nor seconds, nor dates.

        Raises:
            CollectorError: it is none of those.
        """
        if isinstance(newest_row_time, str):
            return _iso_before(newest_row_time, late_by)
        if isinstance(newest_row_time, datetime.datetime):
            return newest_row_time - datetime.timedelta(seconds=late_by)
        if isinstance(newest_row_time, datetime.date):
            return newest_row_time - datetime.timedelta(days=-(-late_by // 86_400))
        return newest_row_time - late_by

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

    def obtain_input_pile(self) -> Any:
        """The fresh rows; None if there are none."""
        promise = self.state.get(_PROMISED_STATE_KEY)
        before = dict(self.state)
        orig_data = self.obtain_orig_data()
        changed = {key: it for key, it in self.state.items() if it is not before.get(key)}
        before.pop(_PROMISED_STATE_KEY, None)
        self._again = self._promise = None
        if promise is not None:
            # A run was cut off. The rows that it promised are made the same message, and others another.
            self.state = promise | changed
            newer = set(self.get_fresh_rows_only(self.all_rows_from_orig_data(orig_data)))
            self.state = dict(before)
            self._again = self.get_fresh_rows_only(
                row for row in self.all_rows_from_orig_data(orig_data) if row not in newer
            )
            before, self.state = promise, promise | changed
        rows = self.all_rows_from_orig_data(orig_data)
        del orig_data
        if fresh := self.get_fresh_rows_only(rows):
            self._promise = {**before, _PROMISED_STATE_KEY: self.state}
            return fresh
        fresh, self._again = self._again, None
        return fresh or None

    def publish_iteratively(self) -> Iterator[None]:
        """As in the base class, once what was promised before is published and the promise is saved."""
        fresh = self._input_pile
        if self._again:
            yield from self._publish_pile(self._again)
        if self._promise is not None:
            self.save_state(self._promise)
            self.loaded_generation = self.state_generation  # to save a promise is to take nothing
        yield from self._publish_pile(fresh)

    def _publish_pile(self, pile: Any) -> Iterator[None]:
        self._input_pile, published = pile, self.published_count
        try:
            yield from super().publish_iteratively()
        except NothingNew as exc:
            if self.published_count == published:
                return  # none of these rows was of interest
            raise CollectorError(
                "NothingNew came when rows had been published already, and the others would be lost: leave "
                "rows out where their time is read, or make no input data of them"
            ) from exc

    def generate_input_data_dicts(self, input_pile: Any, /) -> Iterator[dict[str, Any]]:
        """All fresh rows at once; for a message each `for row in input_pile: yield {"fresh_rows": [row]}`."""
        yield {"fresh_rows": input_pile}

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        """`output_data_from_fresh_rows`."""
        return self.output_data_from_fresh_rows(processed_data["fresh_rows"])

    def get_fresh_rows_only(self, all_rows: Iterable[Any]) -> Any:
        """The rows that were not there before, oldest first; the state is brought up to date with them.

        Raises:
            SourceError: no row has a time that can be read, or their number is not explained and
                `row_count_mismatch_is_fatal` is set.
        """
        state = self.state
        newest = before = state[self._NEWEST_ROW_TIME_STATE_KEY]
        extract_row_time, row_key = self.extract_row_time, self.row_key
        newest_rows = known_rows = {row_key(row): row for row in state[self._NEWEST_ROWS_STATE_KEY]}
        late_by: int = self.config["late_by"]
        # Where no window was remembered yet, the newest rows are all that is known of it.
        packs: dict[Any, bytes] = dict(
            state.pop("window_rows", {before: b"".join(_digest(before, key) for key in known_rows)})
        )
        seen = {digests[at : at + DIGEST_SIZE] for digests in packs.values() for at in _steps(digests)}
        begin = state.pop("window_begin", before)
        if not late_by:
            begin = before
        elif before != self.get_oldest_possible_row_time():
            begin = max(begin, self.get_window_begin(before, late_by))
        window: dict[bytes, Any] = {}
        longest = 2 * _PACK
        fresh, rows = _Rows(), []
        count, limit, last, tied, rises, falls = 0, None, None, {}, True, True
        unread: list[Any] = []
        for row in all_rows:
            try:
                row_time = extract_row_time(row)
            except _UNREADABLE:
                unread.append(row)
                continue
            if row_time is None:
                continue
            if not count:
                limit = _limit(row_time)
            if row_time != row_time or (  # as NaN is
                limit is not None and row_time > limit and not self.is_row_time_possible(row_time)
            ):
                unread.append(row)
                continue
            count += 1
            if row_time < begin:
                continue
            try:
                key = row_key(row)
            except _UNREADABLE:
                count -= 1
                unread.append(row)
                continue
            if row_time == before and key in known_rows:
                continue
            if late_by:
                if (digest := _digest(row_time, key)) in seen or digest in window:
                    continue
                window[digest] = row_time
                if len(window) > longest:  # most of them will be too old to be remembered in the end
                    window = _since(self.get_window_begin(newest, late_by), window)
                    longest = 2 * max(len(window), _PACK)
            # Only rows with the same time can be the same: those side by side are told apart here.
            if row_time == last:
                if key in tied:
                    continue
                tied[key] = row
            else:
                if last is not None:
                    rises, falls = rises and row_time > last, falls and row_time < last
                last, tied = row_time, {key: row}
            if row_time > newest:
                newest, newest_rows = row_time, tied
            elif row_time == newest:
                newest_rows[key] = row
            rows.append(row)
            if len(rows) == _PACK:
                fresh.add(rows)
                rows = []
        fresh.add(rows)
        if falls:
            fresh.turn()
        elif not rises:
            fresh = self._sorted(fresh)
        self._tell_unread(unread, count)
        self._check_count(count, len(fresh))
        if fresh:
            state[self._NEWEST_ROW_TIME_STATE_KEY] = newest
            state[self._NEWEST_ROWS_STATE_KEY] = set(newest_rows.values())
            state[self._ROWS_COUNT_KEY] = count
        if late_by and newest != self.get_oldest_possible_row_time():
            state["window_begin"] = begin = max(begin, self.get_window_begin(newest, late_by))
            if window := _since(begin, window):
                last = max(window.values())
                packs[last] = packs.get(last, b"") + b"".join(window)
            state["window_rows"] = {last: digests for last, digests in packs.items() if last >= begin}
        return fresh

    def _sorted(self, fresh: _Rows) -> _Rows:
        rows = {(self.extract_row_time(row), self.row_key(row)): row for row in fresh}
        return _Rows(rows[key] for key in sorted(rows, key=itemgetter(0)))

    def _tell_unread(self, unread: list[Any], count: int) -> None:
        if unread:
            rows = "1 row has" if len(unread) == 1 else f"{len(unread):,} rows have"
            text = (
                f"{rows} no time (or key), or a time that is still to come; the first is {unread[0]!r:.100}"
            )
            if not count and len(unread) > 1:  # one may be the columns' names, of a file without rows
                raise SourceError(
                    f"{text}; has the format changed, or is the clock of this machine wrong? "
                    "nothing was published"
                )
            LOGGER.warning("%s; left out", text)

    def _check_count(self, count: int, fresh: int) -> None:
        before = self.state.get(self._ROWS_COUNT_KEY)  # n6's oldest states have none
        if before is None or count == before + fresh:
            return
        text = f"the source has {count:,} rows, where it had {before:,} and {fresh:,} are new: "
        if count > before + fresh:
            text += "the others are there twice, or came later than late_by allows, and are left out"
        text += "" if count > before + fresh else "the others are gone"
        if self.config["row_count_mismatch_is_fatal"]:
            raise SourceError(f"{text}; nothing was published (row_count_mismatch_is_fatal)")
        LOGGER.log(logging.WARNING if count > before + fresh else logging.DEBUG, "%s", text)


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
        answer = self.request(self.config["url"], validators=self.state.get("validators"))
        self.state["validators"] = answer.validators
        if not answer.is_known_whole and not answer.content.endswith(b"\n"):
            # The last row may have been cut; it is there again the next time.
            return answer.content[: answer.content.rfind(b"\n") + 1]
        return answer.content

    def is_expected(self, content_type: str, beginning: bytes) -> bool:
        """Whether it is not HTML."""
        return not looks_like_html(content_type, beginning)


class _Rows:
    """Rows in an order, pickled by the thousands: a row as an object of its own takes twice the room."""

    def __init__(self, rows: Iterable[Any] = ()) -> None:
        self._packs: list[bytes] = []
        self._count = 0
        self._step = 1
        self.add(list(rows))

    def add(self, rows: list[Any]) -> None:
        """Put them behind the others."""
        if rows:
            self._packs.append(pickle.dumps(rows, pickle.HIGHEST_PROTOCOL))
            self._count += len(rows)

    def turn(self) -> None:
        """Begin with the last one."""
        self._step = -self._step

    def packs(self) -> Iterator[list[Any]]:
        """The rows, some thousands at a time."""
        for pack in self._packs[:: self._step]:
            yield pickle.loads(pack)[:: self._step]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        for pack in self.packs():
            yield from pack


def _tomorrow() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)


def _limit(row_time: Any) -> Any:
    """Tomorrow, to be compared with such times; None if that cannot be said. Of numbers only infinity is
    too much: who knows what they count."""
    tomorrow = _tomorrow()
    match row_time:
        case str():
            return f"{tomorrow:%Y-%m-%d}"
        case datetime.datetime():
            return tomorrow if row_time.tzinfo else tomorrow.replace(tzinfo=None)
        case datetime.date():
            return tomorrow.date()
        case int() | float():
            return sys.float_info.max
    return None


def _digest(row_time: Any, key: Any) -> bytes:
    return blake2b(f"{row_time}\n{key}".encode("utf-8", "surrogatepass"), digest_size=DIGEST_SIZE).digest()


def _since(begin: Any, window: dict[bytes, Any]) -> dict[bytes, Any]:
    return {digest: row_time for digest, row_time in window.items() if row_time >= begin}


def _steps(digests: bytes) -> range:
    return range(0, len(digests), DIGEST_SIZE)


def _iso_before(text: str, late_by: int) -> str:
    """The time `late_by` seconds before an ISO 8601 `text`, cut to whole seconds and written in the same way,
    so that it sorts before every time that is not earlier."""

    def written(moment: datetime.datetime) -> str:
        plain = moment.replace(tzinfo=None, microsecond=0)
        return plain.isoformat(text[10:11] or " ")[: len(text)]

    try:
        moment = datetime.datetime.fromisoformat(text)
        if text.startswith(written(moment)):
            return written(moment - datetime.timedelta(seconds=late_by))
    except (ValueError, OverflowError):
        pass
    raise CollectorError(
        f"late_by needs to know what time lies before {text!r}, which is not ISO 8601: write "
        "get_window_begin(self, newest_row_time, late_by)"
    )
