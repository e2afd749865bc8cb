"""A source that is asked page by page, with a cursor that says how far it was read."""

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
    """What the source gave when it was asked with a cursor.

    Attributes:
        records: what is there, in the order in which it is to be published; a list, say.
        next_cursor: with what to ask the next time; plain data. None only where there is nothing, neither
            records nor more pages: where a source names none on its last page, the next run needs another
            one to go on from, such as the id or the time of the last record. It may stay the same.
        has_more: whether to ask again at once.
    """

    records: Iterable[Any]
    next_cursor: Any
    has_more: bool


class CursorForgottenError(SourceError):
    """The source does not know the cursor any more; it did not fail otherwise."""


class BasePagedCollector(StatefulBaseCollector):
    """Publishes page after page, and saves the state after each: a crash goes on from there.

    To be written: `download_page`; perhaps `record_body` and `first_cursor`.

    A source may give the records *after* the cursor, or those *from* it on, the ones at the cursor again:
    these are remembered by their digests, and published once. A time as the cursor of a source of the first
    kind loses what comes later with the same time: let it be an id, or ask from a bit before.

    The state is `{"cursor": ..., "seen": digests of the records at the cursor}`. At the
    cursor are the records that have it in their bodies, as text; if there are none, all of the last page.
    """

    raw_type = "stream"
    state_keys = ("cursor",)

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

    def make_default_state(self) -> dict[str, Any]:
        """The first cursor."""
        return {"cursor": self.first_cursor()}

    def run(self) -> None:
        """Load the state, and publish; each page saves it."""
        self.state = self.load_state()
        super(StatefulBaseCollector, self).run()

    def rewound(self, state: dict[str, Any], to: str) -> dict[str, Any]:
        """For `state rewind`: a state that asks with the cursor `to`, in the form of the present one.

        Raises:
            StateError: it does not have that form.
        """
        cursor, new = state["cursor"], to
        if not isinstance(cursor, str | None):
            with suppress(ValueError):
                new = json.loads(to)
        if cursor is not None and type(new) is not type(cursor):
            raise StateError(f"{to!r} is not a cursor like the present one, {cursor!r}; nothing was changed")
        return {**state, "cursor": new, "seen": set()}

    def start_publishing(self) -> None:
        """Ask for a page, publish what is new in it, and save the cursor, until there is no more.

        Raises:
            SourceError: the cursor does not advance although there is more, or comes a second time.
            CollectorError: `download_page` returned something else than a page.
        """
        asked = {repr(self.state["cursor"])}
        has_more = True
        while has_more:
            page = self._next_page(asked)
            cursor, has_more = page.next_cursor, page.has_more
            made = [self.get_output_components(record=record) for record in page.records]
            stays = cursor == self.state["cursor"] or (cursor is None and not made)
            if has_more if stays else cursor is None or repr(cursor) in asked:  # it would go on for ever
                raise SourceError(
                    f"the cursor does not advance: the next one is {cursor!r:.100}; nothing was published of "
                    "that page (ask for larger ones; where the last one names none, use its last record's id)"
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
        """The page at the cursor; if the source has forgotten that, at the one that replaces it."""
        cursor = self.state["cursor"]
        try:
            page = self.download_page(cursor)
        except CursorForgottenError as exc:
            new = self.replace_cursor(cursor, exc)
            if repr(new) in asked:  # it would go on for ever
                raise
            LOGGER.warning("%s; going on from the cursor %.100r instead of %.100r", exc, new, cursor)
            asked.remove(repr(cursor))
            asked.add(repr(new))
            self.state |= {"cursor": new, "seen": set()}
            page = self.download_page(new)
        records = checked("download_page()", page, Page).records
        if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
            name = type(records).__name__
            raise CollectorError(f"Page(records=...) takes a list of records, not one {name}")
        return page

    def _was_seen(self, body: bytes, stays: bool) -> bool:
        """Whether a record was at the cursor that was asked with. Where the cursor has moved on, an equal one
        is another, unless the cursor is part of it."""
        is_known = _digest(body) in self.state.get("seen", ())
        return is_known and (stays or bool(_holding(self.state["cursor"], [body])))

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        """`record_body`."""
        return checked("record_body()", self.record_body(processed_data["record"]), *BODY)


def _holding(cursor: Any, bodies: list[bytes]) -> list[bytes]:
    """Those that have the cursor in them, as a text of its own."""
    if not isinstance(cursor, str | int | float) or cursor == "":
        return []
    text = re.escape(str(cursor).encode(errors="backslashreplace"))
    return [body for body in bodies if re.search(rb"(?<![\w.])" + text + rb"(?![\w.])", body)]


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()
