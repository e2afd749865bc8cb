"""Store and forward: messages go to a spool first, and from there to the broker, now or at a later run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from n6_stateful.errors import BusyError, PublishError

if TYPE_CHECKING:
    from n6_stateful.message import Exchange, Message
    from n6_stateful.output.base import Output
    from n6_stateful.output.spool import Spool

LOGGER = logging.getLogger(__name__)


class SpoolFirstOutput:
    """The output of `spool_when_down`.

    A message has arrived when it is in the spool. Closing forwards the spool, what earlier runs have left
    first, in order; if the broker cannot be reached or does not take everything, that is a warning, and the
    rest stays in the spool.
    """

    def __init__(self, spool: Spool, broker: Output) -> None:
        self.where = f"{spool.where}, on the way to {broker.where}"
        self._spool = spool
        self._broker = broker
        self.problem: str | None = None

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Open the spool."""
        self._spool.open(exchanges, owner, generations)

    def publish(self, message: Message) -> None:
        """Put the message into the spool."""
        self._spool.publish(message)

    def flush(self) -> None:
        """Commit what is in the spool."""
        self._spool.flush()

    def close(self) -> None:
        """Commit, then forward what the broker will take."""
        self._spool.close()
        try:
            self._spool.forward(self._broker)
        except (PublishError, BusyError) as exc:
            count, size = self._spool.summary()
            messages = f"{count:,} message{'' if count == 1 else 's'} ({size:,} bytes)"
            LOGGER.warning("%s\n%s there; the next run sends them first", exc, messages)

    def abort(self) -> None:
        """Roll back what is not committed."""
        self._spool.abort()

    def check(self, exchanges: Sequence[Exchange]) -> None:
        """Try the spool and the broker."""
        self._spool.check(exchanges)
        self._broker.check(exchanges)
