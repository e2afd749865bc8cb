"""Outputs: where messages go, behind one small protocol."""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from n6_stateful.message import Exchange, Message

    class Output(Protocol):
        """One transport. The calls come as `open`, any number of `publish` and `flush`, then
        `close` or `abort`.

        Each raises `PublishError` when the transport does not take what it was given.
        """

        @property
        def where(self) -> str:
            """What a person calls this output; holds no secret."""

        def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
            """Get ready, and make sure that the exchanges exist.

            `owner` names the collector (its state file's name); `generations` are the
            generation ids that a run of it may still start from, the one in force first.
            """

        def publish(self, message: Message) -> None:
            """Take one message. It may still be on its way when this returns."""

        def flush(self) -> None:
            """Return when all that was published so far has durably arrived."""

        def close(self) -> None:
            """`flush`, then end cleanly."""

        def abort(self) -> None:
            """End at once, without waiting and without raising; what has not arrived is given up."""
