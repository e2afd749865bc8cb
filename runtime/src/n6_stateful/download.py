"""What a collector's `_download` hands over."""

from __future__ import annotations

from typing import Any


class Download(bytes):
    """A downloaded body that knows how new it is, as the collector of n6's guide expects it.

    Args:
        body: the bytes to publish.
        time_utc: whatever `_download` will get as `only_newer_than` the next time; goes into the
            state, so it has to be plain data (a datetime, a string, a number, a dict of such...).
    """

    time_utc: Any

    def __new__(cls, body: bytes, *, time_utc: Any) -> Download:
        download = super().__new__(cls, body)
        download.time_utc = time_utc
        return download
