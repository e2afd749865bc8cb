"""Store and forward: messages go to a spool first, and from there to the broker, now or at a later run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from n6_stateful.errors import BusyError, PublishError
from n6_stateful.output.forwarding import forward

if TYPE_CHECKING:
    from n6_stateful.message import Exchange, Message
    from n6_stateful.output.base import Output
    from n6_stateful.output.spool import Spool

LOGGER = logging.getLogger(__name__)


class SpoolFirstOutput:
    """The output of `spool_when_down`.

    A message has arrived when it is in the spool. What earlier runs have left is forwarded before anything
    is added, so that a full spool gets room, and the rest at the end, in order. A broker that cannot be
    reached is a warning, and the rest stays in the spool; what it refuses is set apart, and is a `problem`.
    """

    problem: str | None = None

    def __init__(self, spool: Spool, broker: Output) -> None:
        self.where = f"{spool.where}, on the way to {broker.where}"
        self._spool = spool
        self._broker = broker
        self._is_down = False

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Forward what is in the spool, and open it."""
        self._forward()
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
        if not self._is_down:  # it would be waited for a second time
            self._forward()

    def abort(self) -> None:
        """Roll back what is not committed."""
        self._spool.abort()

    def check(self, exchanges: Sequence[Exchange]) -> None:
        """Try the spool and the broker."""
        self._spool.check(exchanges)
        self._broker.check(exchanges)

    def _forward(self) -> None:
        try:
            forward(self._spool, self._broker)
        except (PublishError, BusyError) as exc:
            self._is_down = True
            count, size = self._spool.summary()
            messages = f"{count:,} message{'' if count == 1 else 's'} ({size:,} bytes)"
            # Without the listing: each record of a log is one line, and `spool list` tells it.
            what = str(exc).partition("\n")[0]
            LOGGER.warning("%s; %s there; the next run sends them first", what, messages)
        refusal = self._spool.refusal()
        self.problem = str(refusal) if refusal else None
