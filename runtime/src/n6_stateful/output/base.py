"""The protocol behind which every output stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from n6_stateful.message import Exchange, Message


class Output(Protocol):
    """One transport.

    The calls come as `open`, any number of `publish` and `flush`, then `close` or `abort`; or it is a single
    `check`. Each raises `PublishError` when the transport does not take what it was given, and nothing else:
    another exception, an `OSError` say, would be taken for a fault of the collector's own code.
    """

    @property
    def where(self) -> str:
        """What a person calls this output; holds no secret."""

    @property
    def problem(self) -> str | None:
        """After `close`: what a person must see to, although everything is safe; None if nothing.

        The run tells it, and ends with the exit code of a `PublishError`, once its state is saved.
        """

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Get ready, and make sure that the exchanges exist.

        Args:
            exchanges: those that messages may go to.
            owner: names the collector (its state's name).
            generations: ids of the generations that a run of it may still start from, the current one first:
                an output that remembers ids, to drop what comes twice, may forget those of any other. Empty
                where a run may start from any: then it forgets none.
        """

    def publish(self, message: Message) -> None:
        """Take one message, whose properties have a `message_id`. It may still be in flight afterwards."""

    def flush(self) -> None:
        """Return when everything published so far has durably arrived."""

    def close(self) -> None:
        """`flush`, then end cleanly."""

    def abort(self) -> None:
        """End at once, without waiting and without raising, at any time, also before `open`; what has not
        arrived is given up, what was flushed stays."""

    def check(self, exchanges: Sequence[Exchange]) -> None:
        """Find out whether it can be opened, and make nothing but what `open` would declare; publish nothing,
        not even what earlier runs have left."""
