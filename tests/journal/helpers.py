"""What the tests put into journals, and processes that do something at once."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

from n6_stateful.errors import StateError
from n6_stateful.journal import Journal
from n6_stateful.message import Message


def message(number: int, body: bytes | None = None, **properties: Any) -> Message:
    """A message that is recognised by its number."""
    body = f"body {number}".encode() if body is None else body
    return Message("raw", "source.channel", body, {"message_id": f"{number:032x}", **properties})


def put(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.put(message(number))


def numbers(journal: Journal) -> list[int]:
    """The messages that wait, in their order."""
    return [int(waiting.message_id, 16) for waiting in journal.waiting()]


def ids(journal: Journal) -> list[int]:
    return [waiting.id for waiting in journal.waiting()]


def states(journal: Journal) -> list[bytes]:
    """The states that are kept, the newest first."""
    return [journal.pickle(generation.number) for generation in journal.generations()]


def lock_when_free(journal: Journal) -> None:
    """Lock as soon as a server has noticed that a session has ended."""
    while not journal.try_lock():
        time.sleep(0.01)


def at_once(count: int, work: Callable[[], object]) -> list[int]:
    """The sorted exit codes of forked children that do the same at once and end without
    cleaning up, when all have done it: 0, 74 or 75 after a `StateError`, or what the work ends with."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count)

    def child() -> None:
        code = 0
        barrier.wait()
        try:
            work()
        except StateError as exc:
            code = exc.exit_code
        barrier.wait()
        os._exit(code)

    children = [context.Process(target=child) for _ in range(count)]
    for one in children:
        one.start()
    for one in children:
        one.join()
    return sorted(one.exitcode or 0 for one in children)
