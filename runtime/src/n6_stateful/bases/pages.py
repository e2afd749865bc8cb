"""A source that is asked page by page, with a cursor that says how far one has come."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from n6_stateful.bases.shape import StatefulBaseCollector, default_body
from n6_stateful.errors import CollectorError, NothingNew, SourceError

LOGGER = logging.getLogger(__name__)


class Page(NamedTuple):
    """What the source gave when it was asked with a cursor.

    Attributes:
        records: what is new there, in the order in which it is to be published; a list, say.
        next_cursor: with what to ask the next time; plain data. None only where there is nothing, neither
            records nor more pages: where a source names none on its last page, the next run needs another
            one to go on from, such as the id or the time of the last record.
        has_more: whether to ask again at once.
    """

    records: Iterable[Any]
    next_cursor: Any
    has_more: bool


class CursorForgottenError(SourceError):
    """The source does not know the cursor any more, which is another thing than that it failed."""


class BasePagedCollector(StatefulBaseCollector):
    """Publishes page after page, and saves the state after each: a crash goes on from there.

    To be written: `download_page`; perhaps `record_body` and `first_cursor`. The state is `{"cursor": ...}`.
    """

    raw_type = "stream"

    def download_page(self, cursor: Any) -> Page:
        """The page that begins at `cursor`.

        Raises:
            CursorForgottenError: the source does not know the cursor (it may say so with 400, 404 or 410).
            SourceError: it cannot be reached, or gave something else.
        """
        raise NotImplementedError(f"{type(self).__name__}.download_page() is not written yet")

    def first_cursor(self) -> Any:
        """Where to begin."""
        return None

    def record_body(self, record: Any) -> bytes:
        """The message's body: bytes as they are, text as UTF-8, anything else as JSON."""
        return default_body(record)

    def replace_cursor(self, cursor: Any, error: CursorForgottenError) -> Any:
        """A cursor to go on with when the source has forgotten `cursor`.

        By default there is none and the run ends: to begin again takes everything again. Return
        `first_cursor()` to do just that, or a time from which the source can go on.
        """
        raise error

    def get_state_keys(self) -> frozenset[str]:
        """What `make_default_state` has."""
        return frozenset(("cursor",))

    def make_default_state(self) -> dict[str, Any]:
        """The first cursor."""
        return {"cursor": self.first_cursor()}

    def run(self) -> None:
        """Load the state, and publish; each page saves it."""
        self.state = self.load_state()
        super(StatefulBaseCollector, self).run()

    def start_publishing(self) -> None:
        """Publish page after page.

        Raises:
            SourceError: a cursor came a second time, which would go on for ever, or take records again.
            CollectorError: the records of a page are a single one.
        """
        asked = {repr(self.state["cursor"])}
        has_more, replaced, is_forgotten = True, {""}, False
        while has_more:
            cursor = self.state["cursor"]
            try:
                page = self.download_page(cursor)
            except CursorForgottenError as exc:
                self.state["cursor"] = self.replace_cursor(cursor, exc)
                asked = {repr(self.state["cursor"])}
                if is_forgotten or asked <= replaced:  # it would go on for ever
                    raise
                replaced |= asked
                is_forgotten = True
                LOGGER.warning(
                    "%s; going on from the cursor %.100r instead of %.100r", exc, self.state["cursor"], cursor
                )
                continue
            if isinstance(page.records, str | bytes | Mapping):
                raise CollectorError(
                    f"Page(records=...) takes a list of records, not one {type(page.records).__name__}; "
                    "nothing was published of that page"
                )
            is_forgotten = False
            records = list(page.records)
            has_more = page.has_more
            if not records and not has_more and page.next_cursor in (None, cursor):
                raise NothingNew
            if page.next_cursor is None:
                raise SourceError(
                    "a page names no next cursor, and would be taken again; nothing was published of it (for "
                    "the last page download_page() has to find one, such as its last record's id or time)"
                )
            self.state["cursor"] = _advanced(page.next_cursor, asked)
            for record in records:
                self.publish_output(*self.get_output_components(record=record))
            self.save_state(self.state)
        self.inner_stop()

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        """`record_body`."""
        return self.record_body(processed_data["record"])


def _advanced(cursor: Any, asked: set[str]) -> Any:
    if repr(cursor) in asked:
        raise SourceError(
            f"the cursor does not advance: it would be {repr(cursor)[:100]} again; nothing was published of "
            "that page, and the state stays at the page before"
        )
    asked.add(repr(cursor))
    return cursor
