"""Ends a process at the n-th call that matters, as a kill or a power cut would.

In a forked child the few calls that change anything outside the process are wrapped: statements and commits
of the journal, fsync and rename of the state file, and what pika sends and confirms. Before the n-th of them
the child ends with `os._exit`; to end after a call is to end before the next one. So a kill costs
milliseconds, and nothing in the product is made for it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from n6_stateful import databases, delivery, sqlite
from n6_stateful.journal import Journal

CRASHED = 86
FAILED = 87

# The class, the method, and what a point there is called.
POINTS: list[tuple[Any, str, str]] = [
    (sqlite.SQLite, "_execute", "statement"),
    (sqlite.SQLite, "_execute_many", "statement"),
    (databases.PostgreSQL, "_execute", "statement"),
    (databases.PostgreSQL, "_execute_many", "statement"),
    (Journal, "commit", "commit"),
    (Journal, "delivered", "deletion"),
    (os, "fsync", "fsync"),
    (os, "rename", "rename"),
    (delivery._Connection, "_publish", "send"),
    (delivery._Connection, "_on_confirmation", "confirmation"),
]
KINDS = {"statement", "commit", "deletion", "fsync", "rename", "send", "confirmation"}


class Ended(NamedTuple):
    """How a run in a child ended: at a point, of that kind, or with an exit code."""

    kind: str
    code: int


def run_in_child(run: Callable[[], int], crash_at: int | None = None) -> Ended:
    """Call `run` in a forked child, and end it before its point number `crash_at`, counted from 0."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        code = FAILED
        try:
            _wrap(crash_at, writer)
            code = run()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        kind = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert (code == CRASHED) == bool(kind), (code, kind)
    return Ended(kind, code)


def _wrap(crash_at: int | None, writer: int) -> None:
    count = -1

    def wrapped(original: Any, kind: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == crash_at:
                os.write(writer, kind.encode())
                os._exit(CRASHED)
            return original(*args, **kwargs)

        return call

    for owner, name, kind in POINTS:
        setattr(owner, name, wrapped(getattr(owner, name), kind))


class Reached(Counter[str]):
    """How often each kind of point was reached."""

    def check(self) -> None:
        """Fail if a kind was never reached."""
        assert not KINDS - self.keys(), f"never reached: {KINDS - self.keys()}"
