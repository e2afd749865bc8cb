"""What `_download` hands over."""

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
    ("body", "time_utc", "told"),
    [("text", 1, "as bytes, not str"), (5, 1, "as bytes, not int"), (b"x", None, "take everything again")],
)
def test_slips(body: Any, time_utc: Any, told: str) -> None:
    """What would publish something else than was meant, or everything at each run, is refused."""
    with pytest.raises(CollectorError, match=told):
        Download(body, time_utc=time_utc)
