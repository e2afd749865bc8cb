"""SIGINT and SIGTERM, which no collector can swallow: after one nothing more is committed or delivered."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from n6_stateful.errors import Terminated

_arrived: list[type[BaseException]] = []


def _on_signal(number: int, frame: FrameType | None) -> None:
    _arrived.append(KeyboardInterrupt if number == signal.SIGINT else Terminated)
    raise _arrived[0]


def raise_if_interrupted() -> None:
    """Raise, again if need be, what the signal stands for.

    Raises:
        KeyboardInterrupt: SIGINT has come.
        Terminated: SIGTERM has come.
    """
    if _arrived:
        raise _arrived[0]


@contextmanager
def signals_raise() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise for the length of a `with` block."""
    before = {number: signal.signal(number, _on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _arrived.clear()
