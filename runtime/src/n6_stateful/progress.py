"""A line that tells a person at a terminal how far a long run has come."""

from __future__ import annotations

import sys
import time

SECONDS_BETWEEN = 0.5
FIRST_AFTER_SECONDS = 2.0


class Progress:
    """Shows itself only on a terminal, and only in runs that take a while; under cron it is silent."""

    def __init__(self) -> None:
        self._next = time.monotonic() + FIRST_AFTER_SECONDS if sys.stderr.isatty() else float("inf")
        self._shown = False

    def show(self, messages: int, size: int) -> None:
        """Tell the count of messages and of bytes published so far."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS_BETWEEN
        self._shown = True
        sys.stderr.write(f"\r\x1b[Kpublished {messages:,} messages, {size / 2**20:,.1f} MiB ...")
        sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
