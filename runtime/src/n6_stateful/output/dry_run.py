"""The output of `--dry-run`: shows on standard output what would have been published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from n6_stateful.message import Exchange, Message

SHOWN_BYTES = 200


class DryRunOutput:
    """Takes everything, keeps nothing."""

    where = "nowhere (dry run)"
    problem: str | None = None

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Nothing to get ready."""

    def publish(self, message: Message) -> None:
        """Print the message; of a long body, the beginning."""
        print(f"{message.exchange} {message.routing_key} ({len(message.body):,} bytes)")
        for name, value in sorted(message.properties.items()):
            print(f"  {name}: {value}")
        shown = message.body[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
        for line in shown.splitlines():
            print(f"  | {''.join(c if c.isprintable() else repr(c)[1:-1] for c in line)}")
        if len(message.body) > SHOWN_BYTES:
            print(f"  | ... {len(message.body) - SHOWN_BYTES:,} bytes more")

    def flush(self) -> None:
        """Nothing is on its way."""

    def close(self) -> None:
        """Nothing to end."""

    def abort(self) -> None:
        """Nothing to give up."""

    def check(self, exchanges: Sequence[Exchange]) -> None:
        """Nothing to find out."""
