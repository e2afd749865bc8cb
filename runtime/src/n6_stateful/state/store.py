"""The protocol behind which every store of states stands: it speaks of generations, not of paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, Protocol

from n6_stateful.errors import StateError


class Generation(NamedTuple):
    """One state that was saved, without its contents.

    Attributes:
        id: 32 hex digits; empty for a plain pickle, as n6 writes them.
        number: counts the saves, from 1; 0 for a plain pickle.
        saved: when, UTC, `2026-01-02T03:04:05Z`; empty for a plain pickle.
        size: of what is stored, bytes.
        where: what a person calls the place: a path, a row of a table.
        problem: why it cannot be used; empty if it can, as far as that was looked at.
    """

    id: str
    number: int
    saved: str
    size: int
    where: str
    problem: str = ""


class BrokenStateError(StateError):
    """A generation is not what was saved: torn, cut, changed, or no state at all."""


class StateStore(Protocol):
    """Where the generations of one collector's state are.

    Each call raises `StateError` when the store cannot be used, whatever the cause, and says what was and
    was not done.
    """

    @property
    def where(self) -> str:
        """What a person calls the place; holds no secret."""

    def lock(self) -> None:
        """Let no other run have the state until `unlock()` or the end of this process.

        Raises:
            StateLockedError: another run has it; the text names it.
        """

    def unlock(self) -> None:
        """Let other runs have the state."""

    def holder(self) -> str | None:
        """Who has the lock, for people to read; None if nobody has."""

    def prove_writable(self) -> None:
        """Return if a state as large as the last one could be saved now.

        Raises:
            StateError: there is no room for it, or no right to replace what is there.
        """

    def generations(self) -> list[Generation]:
        """What is kept and can be told without unpickling, the current one first; broken ones bear their
        `problem`. What was set aside is not among them."""

    def read(
        self, load: Callable[[BinaryIO], Any], generation: Generation | None = None
    ) -> tuple[Any, Generation]:
        """What `load` makes of a generation's pickle, and the generation.

        Args:
            load: reads a pickle from a binary file, up to the pickle's end.
            generation: one of `generations()`; None means the current one.

        Raises:
            FileNotFoundError: there is none.
            BrokenStateError: it is broken.
            StateError: it cannot be read, is not safe to read, or was written by a newer version.
        """

    def write(self, dump: Callable[[Any], None], number: int, *, keep_previous: bool = True) -> Generation:
        """Save a new generation; return only when it would survive a power cut.

        Args:
            dump: writes a pickle to an object with a `write(bytes)` method.
            number: the number of the new generation, one more than that of the current one.
            keep_previous: whether the current generation is worth going back to. A save of a run that
                published nothing takes its place instead.

        Raises:
            StateError: it could not be saved, or is not known to be; the current generation is what it was.
            Exception: whatever `dump` raises; the current generation is what it was.
        """

    def set_aside(self, broken: Generation) -> str:
        """Put a broken generation where no run finds it and a person does, the one before it in its place.

        Returns:
            Where it is now.
        """

    def set_aside_names(self) -> list[str]:
        """Where broken generations were put, for people to read."""
