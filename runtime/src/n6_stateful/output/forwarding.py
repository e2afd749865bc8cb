"""Forwarding: what waits in a spool goes to a broker, and what the broker refuses is found out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from n6_stateful.errors import ExchangeError, PublishError
from n6_stateful.message import Exchange
from n6_stateful.output.spool import EXCHANGES, SET_APART, TO_FORWARD, Spool, Spooled, select, take_out

if TYPE_CHECKING:
    import sqlite3

    from n6_stateful.output.base import Output

MESSAGES_AT_ONCE = 1000
BYTES_AT_ONCE = 4 << 20


def forward(spool: Spool, output: Output) -> int:
    """Send the messages to `output`, oldest first, and take out those that have arrived.

    What is refused is set apart. What was set apart before is tried again when all else has been sent.

    Returns:
        How many have arrived.

    Raises:
        BusyError: another process is writing to the spool; nothing is sent that could not be taken out.
        PublishError: the broker cannot be reached, or was lost; what it has taken by then is taken out.
    """
    if not spool.exists():
        return 0
    try:
        with spool.connected() as database:
            forwarding = _Forwarding(spool, database, output)
            return forwarding.send_all(0, 0) + forwarding.send_all(1, forwarding.attempt - 1)
    except PublishError as exc:
        # What follows from it for a run does not follow here.
        raise PublishError(exc.what, exc.undelivered, f"what was not taken stays in {spool.where}") from exc


class _Forwarding:
    def __init__(self, spool: Spool, database: sqlite3.Connection, output: Output) -> None:
        self._spool = spool
        self._database = database
        self._output = output
        self._exchanges: list[Exchange] = []
        self._is_open = False
        self._closed: dict[tuple[str, ...], str] = {}  # by exchange and routing key: why nothing goes there
        # Counts the forwards that were refused something, so that none tries the same message twice.
        query = "SELECT ifnull(max(attempt), 0) + 1 FROM refused"
        self.attempt: int = database.execute(query).fetchone()[0]

    def send_all(self, first: int, last: int) -> int:
        """Send the messages that were refused last at an attempt from `first` to `last`, 0 for never."""
        arrived = 0
        if not self._batch(first, last, 1):
            return arrived
        try:
            self._connect(first, last)
            most = 1 if first else MESSAGES_AT_ONCE  # of those that were refused, the first may tell of all
            while batch := self._batch(first, last, most):
                started = time.monotonic()
                arrived += self._send(batch)
                most = MESSAGES_AT_ONCE
                # For a run that waits to write: SQLite has it look ten times a second.
                time.sleep(min(0.15, (time.monotonic() - started) / 10))
            if self._is_open:
                self._output.close()
        except BaseException:
            self._output.abort()
            raise
        return arrived

    def _batch(self, first: int, last: int, most: int) -> list[Spooled]:
        batch: list[Spooled] = []
        size = 0
        for spooled in select(self._database, TO_FORWARD, first, last, most):
            size += spooled.size
            if batch and size > BYTES_AT_ONCE:
                break
            batch.append(spooled)
        return batch

    def _connect(self, first: int, last: int) -> None:
        """Open the output with the exchanges that messages wait for, but for those that cannot be had."""
        found = self._database.execute(EXCHANGES, (first, last))
        self._exchanges = [Exchange(*row) for row in found]
        try:
            self._output.open(self._exchanges, "", ())
        except ExchangeError:
            self._output.abort()
            self._exchanges = [each for each in self._exchanges if self._is_usable(each)]
            self._output.open(self._exchanges, "", ())
        self._is_open = True

    def _is_usable(self, exchange: Exchange) -> bool:
        """Whether the broker lets us have an exchange; what waits for it is set apart if not."""
        try:
            self._output.check([exchange])
        except ExchangeError as exc:
            with self._spool.transaction(self._database):
                self._set_apart("exchange", exchange.name, exc.what)
            return False
        return True

    def _send(self, batch: Sequence[Spooled]) -> int:
        """Send messages and take them out; find out by halves which are refused, and set those apart.

        Where the broker would refuse all that go the same way, the others are not sent.

        Returns:
            How many have arrived.
        """
        if hopeless := [each for each in batch if each.way in self._closed]:
            with self._spool.transaction(self._database):
                for each in hopeless:
                    self._set_apart("message_id", each.message_id, self._closed[each.way])
            batch = [each for each in batch if each.way not in self._closed]
        if not batch:
            return 0
        if not self._is_open:
            self._output.open(self._exchanges, "", ())
            self._is_open = True
        published: list[Spooled] = []
        with self._spool.transaction(self._database):
            self._database.execute("SAVEPOINT sending")
            # First, since what could not be taken out would be sent again and again.
            batch = take_out(self._database, batch)
            try:
                for each in batch:
                    published.append(each)
                    self._output.publish(each.message)
                self._output.flush()
                return len(batch)
            except PublishError as exc:
                failure = exc
                found = {each.message_id: each for each in exc.undelivered}
            if not found:
                raise failure
            self._database.execute("ROLLBACK TO sending")
            arrived = take_out(self._database, [each for each in published if each.message_id not in found])
            gone = {each.number for each in arrived}
            for each in published:
                problem = found.get(each.message_id)
                if problem and (problem.refused or (problem.refused is None and len(published) == 1)):
                    self._set_apart("number", each.number, problem.reason)
                    if problem.for_all:
                        self._closed[each.way] = problem.reason
                    gone.add(each.number)
        if len(gone) == len(arrived) and all(each.refused is False for each in found.values()):
            raise failure
        # An output that has failed takes nothing more.
        self._output.abort()
        self._is_open = False
        left = [each for each in batch if each.number not in gone]
        middle = (len(left) + 1) // 2
        return len(arrived) + sum(self._send(half) for half in (left[:middle], left[middle:]) if half)

    def _set_apart(self, which: str, value: str | int, reason: str) -> None:
        self._database.execute(SET_APART.format(which=which), (reason, self.attempt, value))
