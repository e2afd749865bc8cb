"""What `_download` returns."""

from __future__ import annotations

from typing import Any

import pytest

from n6_stateful import CollectorError, Download


@pytest.mark.parametrize("body", [b"data", bytearray(b"data"), memoryview(b"data")])
def test_bytes(body: bytes) -> None:
    """It is the bytes that it was made of, and knows how new they are."""
    download = Download(body, time_utc={"etag": "x"})
    assert (download, download.time_utc) == (b"data", {"etag": "x"})


@pytest.mark.parametrize(
    ("body", "time_utc", "problem"),
    [("text", 1, "as bytes, not str"), (5, 1, "as bytes, not int"), (b"x", None, "take everything again")],
)
def test_slips(body: Any, time_utc: Any, problem: str) -> None:
    """Mistakes that would publish the wrong thing, or everything in each run, are refused."""
    with pytest.raises(CollectorError, match=problem):
        Download(body, time_utc=time_utc)
