"""A progress line for long runs at a terminal."""

from __future__ import annotations

import sys
import time

SECONDS_BETWEEN = 0.5
FIRST_AFTER_SECONDS = 2.0


class Progress:
    """A line on standard error, updated in place; silent under cron and in short runs.

    Args:
        what: the beginning of the line, such as `delivering`.
    """

    def __init__(self, what: str = "") -> None:
        self._what = f"{what} " if what else ""
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._next = time.monotonic() + FIRST_AFTER_SECONDS if is_terminal else float("inf")
        self._is_shown = False

    def show(self, text: str) -> None:
        """Show `text`, unless the line changed a moment ago."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS_BETWEEN
        self._is_shown = True
        sys.stderr.write(f"\r\x1b[K{self._what}{text} ...")
        sys.stderr.flush()

    def end(self) -> None:
        """Remove the line."""
        if self._is_shown:
            self._is_shown = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
