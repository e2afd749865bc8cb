"""The protocol behind which every store of states stands: it speaks of generations, not of paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, Protocol

from n6_stateful.errors import StateError
from n6_stateful.state.pickles import opcodes


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

    def __str__(self) -> str:
        return f"generation {self.id[:8]}, number {self.number}" if self.id else "a plain pickle"


class BrokenStateError(StateError):
    """A generation is not what was saved: torn, cut, changed, or no state at all."""


class StateStore(Protocol):
    """Where the generations of one collector's state are.

    Each call raises `StateError` when the store cannot be used, whatever the cause, and says what was and
    was not done. The errors of `lock`, `prove_writable`, `generations` and `read` do not say that nothing was
    published: their callers know what they were about to do, and say it.
    """

    @property
    def where(self) -> str:
        """What a person calls the place; holds no secret."""

    def lock(self) -> None:
        """Let no other run have the state until `unlock()` or the end of this process. That this store has
        it already is no error.

        Raises:
            StateLockedError: another run has it; the text names it.
        """

    def unlock(self) -> None:
        """Let other runs have the state."""

    def holder(self) -> str | None:
        """Who has the lock, for people to read; None if nobody has. Never in the way of a run that takes
        the lock meanwhile."""

    def prove_writable(self) -> None:
        """Return if a state as large as the last one could be saved now. The lock is held.

        Raises:
            StateError: there is no room for it, or no right to replace what is there.
        """

    def generations(self) -> list[Generation]:
        """What a run may start from and can be told without unpickling or hashing, the current one first;
        broken ones bear their `problem`. What was set aside is not among them. Cheap: it is asked after each
        save."""

    def read(
        self, load: Callable[[BinaryIO], Any], generation: Generation | None = None
    ) -> tuple[Any, Generation]:
        """What `load` makes of a generation's pickle, and the generation. Its checksum is verified first.

        Args:
            load: reads a pickle from a binary file that can seek, up to the pickle's end; `load_pickle`
                calls it and tells its errors as below.
            generation: one of `generations()`; None means the current one.

        Raises:
            FileNotFoundError: there is none.
            BrokenStateError: it is broken.
            StateError: it cannot be read, is not safe to read, or was written by a newer version.
        """

    def write(self, dump: Callable[[Any], None], number: int, *, keep_previous: bool = True) -> Generation:
        """Save a new generation; return only when it would survive a power cut. The lock is held.

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
        The lock is held.

        Returns:
            Where it is now.
        """

    def set_aside_names(self) -> list[str]:
        """Where broken generations were put, for people to read."""


def load_pickle(where: str, file: BinaryIO, load: Callable[[BinaryIO], Any], *, verified: bool) -> Any:
    """`load(file)`, its errors told as `StateStore.read` has them.

    Args:
        where: what a person calls the place.
        file: at the beginning of the pickle.
        load: as `StateStore.read` takes it; a `StateError` of its own does not name the place.
        verified: whether a checksum has shown that the pickle is the one that was saved.
    """
    begin = file.tell()
    try:
        return load(file)
    except StateError as exc:
        raise type(exc)(f"{where}: {exc}") from exc
    except OSError as exc:
        raise StateError(f"{where}: cannot be read: {exc.strerror or exc}") from exc
    except Exception as exc:
        file.seek(begin)
        if not verified and not _is_whole_pickle(file):
            raise BrokenStateError(f"{where}: is not a pickle, or only a part of one") from exc
        # Nothing is wrong with the data: its classes may have changed, or memory be short.
        raise StateError(
            f"{where}: cannot be loaded: {type(exc).__name__}: {exc}; it stays as it is: "
            "mend the class that fails, or `state import` or `state reset`"
        ) from exc


def _is_whole_pickle(file: BinaryIO) -> bool:
    """Whether `file` has a pickle's form from its beginning to its end, whatever it is a pickle of."""
    try:
        for _ in opcodes(file):
            pass
        return not file.read(1)
    except MemoryError:
        return True  # there is as much to read as it says; there is no room for it
    except Exception:  # garbage makes it raise anything
        return False
