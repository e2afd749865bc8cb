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
from collections.abc import Callable
from typing import Any

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
KINDS = tuple(dict.fromkeys(kind for _, _, kind in POINTS))
OF_STATE_FILE = ("fsync", "rename")


def run_in_child(run: Callable[[], int], kind: str = "", crash_at: int = 0) -> int:
    """Call `run` in a forked child, and end it before point number `crash_at` of that kind, counted from 0.

    Returns:
        The exit code; `CRASHED` if it was ended.
    """
    child = os.fork()
    if not child:
        code = FAILED
        try:
            _wrap(kind, crash_at)
            code = run()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _wrap(kind: str, crash_at: int) -> None:
    count = -1

    def wrapped(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == crash_at:
                os._exit(CRASHED)
            return original(*args, **kwargs)

        return call

    for owner, name, its_kind in POINTS:
        if its_kind == kind:
            setattr(owner, name, wrapped(getattr(owner, name)))
