"""What a collector's `_download` hands over."""

from __future__ import annotations

from typing import Any

from n6_stateful.errors import CollectorError, SourceError


class Download(bytes):
    """A downloaded body that knows how new it is, as the collector of n6's guide expects it.

    Args:
        body: the bytes to publish. Where there is nothing new, return None or raise `NothingNew` instead.
        time_utc: whatever `_download` will get as `only_newer_than` the next time; goes into the state, so it
            must be plain data (a datetime, a string, a number, a dict of such...). Nothing compares it with
            the one before: that it does not go back is up to you.

    >>> download = Download(b"a record", time_utc="2026-01-01T00:00:00")
    >>> bytes(download), download.time_utc
    (b'a record', '2026-01-01T00:00:00')

    Raises:
        CollectorError: `body` is not bytes, or `time_utc` is None, with which each run would take all again.
        SourceError: `body` is empty; if its `time_utc` were remembered, what is missing would be lost.
    """

    time_utc: Any

    def __new__(cls, body: bytes, *, time_utc: Any) -> Download:
        """The body, with the time beside it."""
        if not isinstance(body, bytes | bytearray | memoryview):
            raise CollectorError(
                f"Download() takes the body as bytes, not {type(body).__name__}; nothing was published"
            )
        if time_utc is None:
            raise CollectorError(
                "Download(time_utc=None) would have each run take everything again; nothing was published. "
                "Give it how new the data is, or a digest of it"
            )
        if not body:
            raise SourceError(
                "the source gave an empty body; nothing was published, and the next run asks again. "
                "(Where it has nothing new, _download() returns None.)"
            )
        download = super().__new__(cls, body)
        download.time_utc = time_utc
        return download
