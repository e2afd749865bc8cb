"""The standard streams, as odd schedulers leave them: closed, full, or with nobody who reads."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO


class SafeFile(io.FileIO):
    """Writing to it never fails: what cannot be written is dropped, and `error` tells why."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or drop."""
        if self.error is None:
            try:
                written: int | None = super().write(data)
                if written is not None:
                    return written
                self.error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            except OSError as exc:
                self.error = exc
        return len(data)


def make_streams_safe() -> SafeFile | None:
    """Let printing end no run, be it ours, the collector's own or a library's.

    Returns:
        What is behind `sys.stdout`; None if somebody has put another stream there, as tests do.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else a file that is opened later gets the number, and what is printed
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(SafeFile(2, "w", closefd=False), sys.stderr, line_buffering=True)
    if sys.stdout is not sys.__stdout__:
        return None
    file = SafeFile(1, "w", closefd=False)
    sys.stdout = _text(file, sys.stdout, line_buffering=file.isatty())
    return file


def _text(file: SafeFile, before: TextIO | None, *, line_buffering: bool) -> TextIO:
    # What the terminal has no letters for must not end a command that only shows it.
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        before.encoding if before else "utf-8",
        "backslashreplace",
        line_buffering=line_buffering,
    )
