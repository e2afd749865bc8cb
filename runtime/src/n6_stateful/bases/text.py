"""Text from elsewhere, in a character set that may be another one than it is said to be."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger(__name__)


def decoded(data: bytes, charset: str, bytes_in: str) -> str:
    """`data` as text, without a BOM at its beginning. What cannot be read is replaced, which the log tells;
    `bytes_in` is where it says that the bytes are."""
    try:
        return data.decode(charset).removeprefix("\ufeff")
    except (LookupError, ValueError):
        LOGGER.warning("text is not in %r, so that some of it is replaced; %s its bytes", charset, bytes_in)
    try:
        return data.decode(charset, "replace").removeprefix("\ufeff")
    except (LookupError, ValueError):  # there is no such character set, or it replaces nothing
        return data.decode("utf-8", "replace").removeprefix("\ufeff")
