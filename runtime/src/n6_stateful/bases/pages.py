"""A source that is read page by page; a cursor marks how far."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any, NamedTuple

from n6_stateful.bases.shape import BODY, StatefulBaseCollector, checked, default_body
from n6_stateful.errors import CollectorError, SourceError, StateError

LOGGER = logging.getLogger(__name__)


class Page(NamedTuple):
    """One page of a source.

    Attributes:
        records: its records, in the order of publication; a list or another iterable.
        next_cursor: the cursor for the next request; plain data. It may stay the same. None is only allowed
            if there are no records and no more pages: if the source names no cursor on its last page, use
            one that the next run can go on from, such as the id or the time of the last record.
        has_more: whether to request the next page at once.
    """

    records: Iterable[Any]
    next_cursor: Any
    has_more: bool


class CursorForgottenError(SourceError):
    """The source no longer knows the cursor; nothing else is wrong."""


class BasePagedCollector(StatefulBaseCollector):
    """Publishes page after page, and saves the state after each: a crash goes on from there.

    To be written: `download_page`; perhaps `record_body` and `first_cursor`.

    A source may return the records *after* the cursor, or those *from* the cursor on. The second kind repeats
    the records at the cursor; their digests are remembered, so that they are published once. With the first
    kind, do not use a time as the cursor: a record that appears later with the same time would be lost. Use
    an id, or ask from a slightly earlier time.

    The state is `{"cursor": ..., "seen": digests of the records at the cursor}`. These are the records whose
    bodies contain the cursor as text; if there are none, all records of the last page.
    """

    raw_type = "stream"
    state_keys = ("cursor",)

    def download_page(self, cursor: Any) -> Page:
        """The page that begins at `cursor`.

        Raises:
            CursorForgottenError: the source no longer knows the cursor (often status 400, 404 or 410).
            SourceError: the source is unreachable, or sent something unexpected.
        """
        raise NotImplementedError(f"{type(self).__name__}.download_page() is not written yet")

    def first_cursor(self) -> Any:
        """Where to begin."""
        return None

    def record_body(self, record: Any) -> bytes:
        """The message's body: bytes as they are, text as UTF-8, anything else as JSON."""
        return default_body(record)

    def replace_cursor(self, cursor: Any, error: CursorForgottenError) -> Any:
        """The cursor to go on with when the source has forgotten `cursor`.

        By default the run fails, since starting again collects everything again. Return `first_cursor()` to
        do just that, or a time from which the source can go on.
        """
        raise error

    def make_default_state(self) -> dict[str, Any]:
        """The first cursor."""
        return {"cursor": self.first_cursor()}

    def run(self) -> None:
        """Load the state, and publish; each page saves it."""
        self.state = self.load_state()
        super(StatefulBaseCollector, self).run()

    def rewound(self, state: dict[str, Any], to: str) -> dict[str, Any]:
        """For `state rewind`: the state with the cursor `to`.

        Raises:
            StateError: `to` does not have the form of the present cursor.
        """
        cursor, new = state["cursor"], to
        if not isinstance(cursor, str | None):
            with suppress(ValueError):
                new = json.loads(to)
        if cursor is not None and type(new) is not type(cursor):
            raise StateError(f"{to!r} is not a cursor like the present one, {cursor!r}; nothing was changed")
        return {**state, "cursor": new, "seen": set()}

    def start_publishing(self) -> None:
        """Request a page, publish what is new in it, save the cursor, and go on until there are no more.

        Raises:
            SourceError: the cursor does not advance although there is more, or it repeats.
            CollectorError: `download_page` did not return a `Page`.
        """
        asked = {repr(self.state["cursor"])}
        has_more = True
        while has_more:
            page = self._next_page(asked)
            cursor, has_more = page.next_cursor, page.has_more
            made = [self.get_output_components(record=record) for record in page.records]
            stays = cursor == self.state["cursor"] or (cursor is None and not made)
            if has_more if stays else cursor is None or repr(cursor) in asked:  # it would never end
                raise SourceError(
                    f"the cursor does not advance: the next one is {cursor!r:.100}; nothing was published of "
                    "that page (request larger pages; if the last has no cursor, use its last record's id)"
                )
            asked.add(repr(cursor))
            new = [components for components in made if not self._was_seen(components[1], stays)]
            for components in new:
                self.publish_output(*components)
            if new or not stays:
                bodies = [body for _, body, _ in made]
                seen = {_digest(body) for body in _holding(cursor, bodies) or bodies}
                self.state |= {"cursor": cursor, "seen": seen}
                self.save_state(self.state)
        self.inner_stop()

    def _next_page(self, asked: set[str]) -> Page:
        """The page at the cursor, or at its replacement if the source has forgotten it."""
        cursor = self.state["cursor"]
        try:
            page = self.download_page(cursor)
        except CursorForgottenError as exc:
            new = self.replace_cursor(cursor, exc)
            if repr(new) in asked:  # it would never end
                raise
            LOGGER.warning("%s; going on from the cursor %.100r instead of %.100r", exc, new, cursor)
            asked.remove(repr(cursor))
            asked.add(repr(new))
            self.state |= {"cursor": new, "seen": set()}
            page = self.download_page(new)
        records = checked("download_page()", page, Page).records
        if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
            name = type(records).__name__
            raise CollectorError(f"Page(records=...) must be a list of records, not a single {name}")
        return page

    def _was_seen(self, body: bytes, stays: bool) -> bool:
        """Whether a record was seen at the present cursor. Once the cursor has moved on, an equal record is a
        different one, unless it contains the cursor."""
        is_known = _digest(body) in self.state.get("seen", ())
        return is_known and (stays or bool(_holding(self.state["cursor"], [body])))

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        """`record_body`."""
        return checked("record_body()", self.record_body(processed_data["record"]), *BODY)


def _holding(cursor: Any, bodies: list[bytes]) -> list[bytes]:
    """The bodies that contain the cursor as a word of its own."""
    if not isinstance(cursor, str | int | float) or cursor == "":
        return []
    text = re.escape(str(cursor).encode(errors="backslashreplace"))
    return [body for body in bodies if re.search(rb"(?<![\w.])" + text + rb"(?![\w.])", body)]


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()
