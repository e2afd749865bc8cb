"""Lengths of time as people write them: `90s`, `15m`, `2h`, `7d`, `4w`."""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(text: str) -> int:
    """How many seconds `text` means: a number with its unit, or 0.

    Raises:
        ValueError: it is not a length of time.

    >>> seconds("90m")
    5400
    >>> seconds("0")
    0
    """
    match = re.fullmatch(r"(\d{1,6})\s*([smhdw])", text.strip())
    if match is not None:
        return int(match[1]) * _UNITS[match[2]]
    if text.strip() == "0":
        return 0
    raise ValueError(
        "must be a number with its unit, like 90s, 15m, 2h, 7d or 4w, and have six digits at most"
    )
