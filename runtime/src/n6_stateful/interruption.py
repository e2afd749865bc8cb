"""SIGINT and SIGTERM, which no collector can swallow: once one came, nothing more is published or saved.
Nor can a child that a collector forks go on with its parent's run."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from n6_stateful.errors import Terminated

LOGGER = logging.getLogger(__name__)

_arrived: list[type[BaseException]] = []
_processes: list[int] = []  # which signals are meant for, the innermost last


def _on_signal(number: int, frame: FrameType | None) -> None:
    _arrived.append(KeyboardInterrupt if number == signal.SIGINT else Terminated)
    raise _arrived[0]  # in a forked child, too: it has its own to clean up


def raise_if_interrupted() -> None:
    """Raise, again if need be, what the signal stands for; end a forked child.

    Raises:
        KeyboardInterrupt: SIGINT has come.
        Terminated: SIGTERM has come.
    """
    end_if_forked()
    if _arrived:
        raise _arrived[0]


def end_if_forked() -> None:
    """End this process, without a word to what it shares with its parent, if it is a child of the one that
    runs the collector."""
    if _processes and _processes[-1] != os.getpid():
        LOGGER.critical("a forked child came back into its parent's run, and was ended there")
        os._exit(1)


@contextmanager
def signals_raise() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise for the length of a `with` block."""
    _processes.append(os.getpid())
    before = {number: signal.signal(number, _on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _arrived.clear()
        _processes.pop()
