"""One collector of each shape, for tests: the source is a file of lines that grows, or what is in a mail.

python shape_collectors.py SHAPE [arguments of the command]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from n6_stateful.bases import (
    BaseCollector,
    BaseDownloadingListCollector,
    BasePagedCollector,
    BaseSeenItemsCollector,
    BaseSimpleEmailCollector,
    BaseTimeOrderedRowsCollector,
    Page,
)

PAGE = 3


class OfFile(BaseCollector):
    source_channel = "lines"
    config_spec = """
        [growing]
        source :: str
        cache_dir :: path
        url :: str
        exchange :: str
        save_every :: int
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_queue = {"exchange": self.config["exchange"], "exchange_type": "topic"}

    def feed(self) -> bytes:
        return Path(self.config["url"]).read_bytes()


class RowsCollector(OfFile, BaseTimeOrderedRowsCollector):
    def obtain_orig_data(self) -> bytes:
        return self.feed()

    def pick_raw_row_time(self, row: str) -> str:
        return row[:19]

    def clean_row_time(self, raw_row_time: str) -> str:
        return raw_row_time


class EachRowCollector(RowsCollector):
    """A message for each row."""

    def generate_input_data_dicts(self, input_pile: Any, /) -> Any:
        return ({"fresh_rows": [row]} for row in input_pile)


class ItemsCollector(OfFile, BaseSeenItemsCollector):
    def obtain_items(self) -> list[str]:
        return self.feed().decode().splitlines()

    def item_key(self, item: str) -> str:
        return item


class PagesCollector(OfFile, BasePagedCollector):
    def first_cursor(self) -> int:
        return 0

    def download_page(self, cursor: int) -> Page:
        lines = self.feed().splitlines()
        end = min(cursor + PAGE, len(lines))
        return Page(lines[cursor:end], end, end < len(lines))


class ListCollector(OfFile, BaseDownloadingListCollector):
    def obtain_data_body(self) -> bytes:
        return self.feed()


class MailCollector(OfFile, BaseSimpleEmailCollector):
    """The mail is in the file, since the programs that kill it give it no standard input."""

    raw_type = "stream"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._raw_email_msg = b"Subject: lines\n\n" + self.feed()

    def obtain_data_body(self) -> bytes:
        return self.get_email_msg_text().encode()


STATELESS = {"email": MailCollector}
STATEFUL = {
    "rows": RowsCollector,
    "each-row": EachRowCollector,
    "items": ItemsCollector,
    "pages": PagesCollector,
    "list": ListCollector,
}

if __name__ == "__main__":
    (STATEFUL | STATELESS)[sys.argv.pop(1)].run_script()
