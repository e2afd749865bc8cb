"""One collector of each shape, for stories: the source is a file of lines that grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n6_stateful import BaseCollector, CollectorWithStateMixin, NothingNew, bases
from n6_stateful.bases import Page

PAGE = 3
SPEC = """
    [growing]
    source :: str
    cache_dir :: path
    url :: str
    exchange :: str
"""


class OfFile:
    config: Any
    output_queue: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_queue = {"exchange": self.config["exchange"], "exchange_type": "topic"}

    def lines(self) -> list[bytes]:
        return Path(self.config["url"]).read_bytes().splitlines()


class GuideCollector(OfFile, CollectorWithStateMixin, BaseCollector):
    """The class of n6's guide; with `save_every` it also saves in the middle."""

    type = "stream"
    config_spec = SPEC
    save_every = 0

    def make_default_state(self) -> dict[str, Any]:
        return {"collected": 0}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)

    def start_publishing(self) -> None:
        new = self.lines()[self.state["collected"] :]
        if not new:
            raise NothingNew
        for line in new:
            self.publish_output(*self.get_output_components(line=line))
            self.state["collected"] += 1
            if self.save_every and not self.state["collected"] % self.save_every:
                self.save_state(self.state)
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "lines"

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        return processed_data["line"]


class SavingCollector(GuideCollector):
    """Saves after every two messages, and delivers at once."""

    save_every = 2
    deliver_every = 0.0


class Shape(OfFile, bases.BaseCollector):
    source_channel = "lines"
    config_spec = SPEC


class RowsCollector(Shape, bases.BaseTimeOrderedRowsCollector):
    def obtain_orig_data(self) -> bytes:
        return b"\n".join(self.lines())

    def pick_raw_row_time(self, row: str) -> str:
        return row[:19]

    def clean_row_time(self, raw_row_time: str) -> str:
        return raw_row_time


class ItemsCollector(Shape, bases.BaseSeenItemsCollector):
    def obtain_items(self) -> list[str]:
        return [line.decode() for line in self.lines()]

    def item_key(self, item: str) -> str:
        return item


class PagesCollector(Shape, bases.BasePagedCollector):
    def first_cursor(self) -> int:
        return 0

    def download_page(self, cursor: int) -> Page:
        lines = self.lines()
        end = min(cursor + PAGE, len(lines))
        return Page(lines[cursor:end], end, end < len(lines))


class ListCollector(Shape, bases.BaseDownloadingListCollector):
    def obtain_data_body(self) -> bytes:
        return b"\n".join(self.lines())


class MailCollector(Shape, bases.BaseSimpleEmailCollector):
    """The mail is in the file; one that was not collected is delivered again, as a mail server does it."""

    raw_type = "stream"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        text = b"\n".join(self.lines())
        self._raw_email_msg = b"Message-ID: <%d@lines>\nSubject: lines\n\n" % len(text) + text

    def obtain_data_body(self) -> bytes:
        return self.get_email_msg_text().encode()


SHAPES = {
    "guide": GuideCollector,
    "saving": SavingCollector,
    "rows": RowsCollector,
    "items": ItemsCollector,
    "pages": PagesCollector,
    "list": ListCollector,
    "email": MailCollector,
}
