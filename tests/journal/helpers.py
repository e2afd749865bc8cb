"""What the tests put into journals, and processes that end in the middle of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from n6_stateful.errors import StateError
from n6_stateful.journal import Journal
from n6_stateful.message import Message

ENDED = 9


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


def in_child(work: Callable[[], object]) -> int:
    """Do some work in a forked child, which ends without any cleaning up; its exit code.

    0 after the work, 74 or 75 after a `StateError`, 99 after any other error, or what the work ends with.
    """
    pid = os.fork()
    if not pid:
        code = 99
        try:
            work()
            code = 0
        except StateError as exc:
            code = exc.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_once(count: int, work: Callable[[], object]) -> list[int]:
    """The exit codes of children that do the same at once; whoever succeeds waits for all others."""
    go, end = os.pipe(), os.pipe()

    def wait_for_all() -> None:
        os.read(go[0], 1)
        work()
        os.read(end[0], 1)

    for _ in range(count):
        if not os.fork():
            os.close(end[1])
            os._exit(in_child(wait_for_all))
    os.write(go[1], bytes(count))
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(count - 1)]
    os.close(end[1])
    return [*codes, os.waitstatus_to_exitcode(os.wait()[1])]


def end_at_statement(journal: Any, number: int) -> None:
    """Let this process end before its statement of that number, counted from 0, as if it were killed."""
    left = number

    def wrapped(execute: Callable[..., Any]) -> Callable[..., Any]:
        def ending(*args: Any) -> Any:
            nonlocal left
            if not left:
                os._exit(ENDED)
            left -= 1
            return execute(*args)

        return ending

    journal._execute, journal._execute_many = wrapped(journal._execute), wrapped(journal._execute_many)
