"""Where a row ends: at a line break, or at one outside the quotes of CSV; and where a message ends."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

_PIECE = 1 << 20


def lines_of(text: str) -> Iterator[str]:
    """The lines, without LF or CRLF; nothing else ends one. They are made piece by piece, not all at once.

    >>> list(lines_of("a\\r\\nb\\u2028c\\n"))
    ['a', 'b\\u2028c']
    """

    def pieces() -> Iterator[list[str]]:
        begin = 0
        while begin < len(text):
            end = text.find("\n", begin + _PIECE) + 1 or len(text)
            lines = text[begin:end].replace("\r\n", "\n").removesuffix("\r").split("\n")
            yield lines if lines[-1] else lines[:-1]
            begin = end

    return chain.from_iterable(pieces())


def csv_rows(
    lines: list[str],
    options: Mapping[str, Any],
    is_row: Callable[[str], bool],
    leave_out: Callable[[str, str], None],
) -> Iterator[str]:
    """The rows of CSV, each as it stands there. A line that does not parse, such as one that begins a quoted
    field without an end, is left out, and what follows it is read: a stray quote does not swallow it.

    Args:
        lines: without line breaks.
        options: what `csv.reader` takes.
        is_row: whether a line is more than a comment, in which a quote means nothing.
        leave_out: called with what is wrong and the line.
    """
    quote = options.get("quotechar", '"')
    csv.field_size_limit(sys.maxsize)  # of this process; what a download may have is limited already

    def is_closed(text: str) -> bool | None:
        """Whether no quoted field is open at the end; None if it is not CSV."""
        for end in ("", quote):
            with suppress(csv.Error):
                next(csv.reader([text + end], **{"strict": True, **options}))
                return not end
        return None

    begin = hopeless = 0  # before line `hopeless`, a field that is open at a line's end is never closed
    while begin < len(lines):
        line, end = lines[begin], begin + 1
        closed = True if quote not in line or not is_row(line) else is_closed(line)
        while closed is False and hopeless <= begin and end < len(lines):
            closed = is_closed(quote + lines[end])
            end += 1
        if closed:
            yield "\n".join(lines[begin:end])
            begin = end
        else:
            hopeless = max(hopeless, end - 1)
            leave_out("lines that are not CSV, left out", f"line {begin + 1}: {line!r:.100}")
            begin += 1


def split_by_size(rows: list[Any], limit: int) -> Iterator[list[Any]]:
    """The rows in lists which, joined by line breaks, have at most `limit` bytes as UTF-8, or are one row."""
    try:
        size_of: Callable[[Any], int] = len if all(map(str.isascii, rows)) else _size
    except TypeError:  # they are not texts
        size_of = _size
    begin = size = 0
    for end, row in enumerate(rows):
        size += size_of(row) + 1
        if size > limit + 1 and end > begin:
            yield rows[begin:end]
            begin, size = end, size_of(row) + 1
    yield rows[begin:]


def _size(row: Any) -> int:
    return len(str(row).encode("utf-8", "surrogateescape"))
