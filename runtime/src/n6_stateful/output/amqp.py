"""RabbitMQ, with publisher confirms.

The collector's thread turns the connection while it publishes and while it waits for confirmations. When the
collector is busy elsewhere, with a download of minutes say, a thread of ours turns it, so that heartbeats are
served. Whoever turns it, or sends on it, holds `_turning`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from n6_stateful.errors import CollectorError, PublishError
from n6_stateful.message import Exchange, Message, Undelivered
from n6_stateful.output import amqp_frames as frames
from n6_stateful.output.amqp_connection import INTERRUPTED, TICK_SECONDS, Connection, close_reason, told
from n6_stateful.output.amqp_frames import Fields, Frame, FrameError

if TYPE_CHECKING:
    from n6_stateful.output.broker import Login

LOGGER = logging.getLogger(__name__)

CHANNEL = 1
CLOSE_SECONDS = 5.0
GIVE_UP_SECONDS = 1.0
SEND_BYTES = 64 << 10  # so much is gathered before it is sent


class AmqpOutput:
    """A broker as an `Output`.

    Args:
        login: which broker, and as whom.
        options: the `[output]` section.
    """

    def __init__(self, login: Login, options: Mapping[str, Any]) -> None:
        self.where = login.where
        self.problem: str | None = None
        self._login = login
        self._options = options
        self._heartbeat: int = options["heartbeat"] if login.heartbeat is None else login.heartbeat
        self._window_messages: int = options["window_messages"]
        self._window_bytes: int = options["window_bytes"]

        self._turning = threading.Lock()
        self._over = False  # no Event: an interruption can leave its lock taken
        self._connection: Connection | None = None
        self._ready = False
        self._returned: tuple[str, str, str] | None = None  # what a content header that comes belongs to

        self._next_tag = 1
        self._unconfirmed: dict[int, tuple[str, str, int]] = {}  # by delivery tag, in their order
        self._unconfirmed_bytes = 0
        self._refused: dict[int, Undelivered] = {}

    # Output

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Connect, log in, and declare the exchanges (durable, as n6 has them), or only look for them."""
        try:
            channel = _channel(exchanges, declare=self._options["declare"])
        except ValueError as exc:
            raise CollectorError(f"AMQP cannot hold what output_queue declares: {exc}") from exc
        timeout = self._options["connect_timeout"]
        deadline = time.monotonic() + timeout
        try:
            name = f"n6-stateful {owner}".rstrip()
            connection = Connection(self._login, name, self._heartbeat, timeout, self._obey)
            self._connection = connection
            self._turn_until(lambda: connection.is_open, deadline)
            connection.send(channel)
            self._turn_until(lambda: self._ready, deadline)
            problem = connection.problem
        except TimeoutError:
            problem = f"it was not ready within {timeout:g} s (connect_timeout)"
        except OSError as exc:
            problem = told(exc)
        if problem is not None:
            reached = self._connection is not None and self._connection.is_open
            raise PublishError(
                f"{self.where}: {'' if reached else 'no connection: '}{problem}",
                consequence="nothing was published, and the state stays as it was",
            )
        threading.Thread(target=self._stand_in, name="n6-stateful-amqp", daemon=True).start()
        LOGGER.info("connected to %s", self.where)

    def publish(self, message: Message) -> None:
        """Send a message; wait while the window is full."""
        exchange, routing_key, body, properties, _ = message
        connection = self._opened()
        size = len(body)
        about = (routing_key, properties["message_id"], size)
        with self._turning:
            if self._is_full(size):
                self._wait(lambda: self._has_room(size))
            if self._refused or connection.problem is not None or connection.in_doubt:
                self._wait(lambda: not self._unconfirmed)
                # Nothing is sent any more, and a collector that goes on all the same must not end well.
                self._refused[self._next_tag] = Undelivered(*about, "not sent")
                self._next_tag += 1
                self._raise()
            try:
                method = frames.publish(CHANNEL, exchange, routing_key)
                buffers = frames.message(method, properties, body, connection.longest_frame)
            except ValueError as exc:
                raise CollectorError(f"AMQP cannot hold a message to {routing_key[:80]!r}: {exc}") from exc
            LOGGER.debug("%d: %s %s (%d bytes)", self._next_tag, *about)
            connection.in_doubt = True
            self._unconfirmed[self._next_tag] = about
            self._next_tag += 1
            self._unconfirmed_bytes += size
            connection.send(buffers)
            connection.in_doubt = False
            if connection.unsent >= SEND_BYTES:
                # To the last byte, so that the broker has a large message whole while the next is made.
                self._wait(lambda: not connection.unsent)

    def flush(self) -> None:
        """Wait for every confirmation."""
        with self._turning:
            self._wait(lambda: not self._unconfirmed)
            # A connection that ended when all was confirmed is no error; whoever publishes more will see it.
            if self._refused or self._unconfirmed or self._over or self._opened().in_doubt:
                self._raise()

    def close(self) -> None:
        """Wait for every confirmation, then for the connection's orderly end."""
        self.flush()
        self._over = True
        with self._turning:
            connection = self._opened()
            problem = connection.problem
            agreed = connection.close(CLOSE_SECONDS)
            if connection.in_doubt:
                self._raise()
        if problem is not None:
            LOGGER.warning("%s: %s; by then it had confirmed everything", self.where, problem)
        elif agreed:
            LOGGER.debug("closed the connection to %s", self.where)
        else:
            LOGGER.warning("%s confirmed everything, but does not close the connection", self.where)

    def abort(self) -> None:
        """End the connection; what is unconfirmed may or may not have arrived."""
        self._over = True
        if self._connection is None:
            return
        # An interruption can leave the lock taken, if it comes at the wrong instant.
        taken = self._turning.acquire(timeout=GIVE_UP_SECONDS)
        self._connection.give_up("the run was given up", GIVE_UP_SECONDS)
        if taken:
            self._turning.release()

    def check(self, exchanges: Sequence[Exchange]) -> None:
        """Connect, log in, declare the exchanges, and close the connection."""
        try:
            self.open(exchanges, "check", ())
            self.close()
        except BaseException:
            self.abort()
            raise

    # Turning the connection

    def _opened(self) -> Connection:
        if self._connection is None:
            raise PublishError(f"{self.where}: not connected")
        return self._connection

    def _stand_in(self) -> None:
        """The other thread: turn the connection while the collector is away."""
        while not self._over:
            time.sleep(TICK_SECONDS)
            more = True
            while more and not self._over and self._turning.acquire(blocking=False):
                try:
                    more = self._opened().turn()
                finally:
                    self._turning.release()

    def _turn_until(self, done: Callable[[], bool], deadline: float) -> None:
        connection = self._opened()
        while not done() and connection.problem is None:
            if time.monotonic() > deadline:
                raise TimeoutError
            connection.turn(TICK_SECONDS)

    def _wait(self, done: Callable[[], bool]) -> None:
        """Turn the connection until `done()`, or there is no more to wait for."""
        timeout = self._options["progress_timeout"]
        # Counted from now: while the collector was busy, nobody may have looked.
        deadline = time.monotonic() + timeout
        connection = self._opened()
        least = self._left()
        while not done() and connection.problem is None:
            connection.turn(TICK_SECONDS)
            left = self._left()
            if left < least:  # not just less than a turn ago: heartbeats come and go
                least = left
                deadline = time.monotonic() + timeout
            elif time.monotonic() > deadline:
                why = f", because of an alarm at the broker: {connection.alarm}" if connection.alarm else ""
                connection.problem = f"it made no progress for {timeout:g} s (progress_timeout){why}"

    def _left(self) -> int:
        """Falls with each byte that moves, of messages that come back, too, and with each confirmation."""
        connection = self._opened()
        return connection.under_way - connection.received + len(self._unconfirmed)

    # The window

    def _is_full(self, size: int) -> bool:
        return bool(self._unconfirmed) and (
            len(self._unconfirmed) >= self._window_messages
            or self._unconfirmed_bytes + size > self._window_bytes
        )

    def _has_room(self, size: int) -> bool:
        # Not just for one more: the connection would be turned for each.
        return len(self._unconfirmed) <= self._window_messages // 2 and not self._is_full(size)

    def _raise(self) -> None:
        """Tell all that is not known to have arrived."""
        known = {tag: Undelivered(*each, "not confirmed") for tag, each in self._unconfirmed.items()}
        known.update(self._refused)
        connection = self._opened()
        what = "the broker did not take every message"
        if connection.in_doubt or connection.problem:
            what = connection.problem or INTERRUPTED
        raise PublishError(
            f"{self.where}: {what}",
            [known[tag] for tag in sorted(known)],
            "the state stays as it was, and the next run publishes again what is not known to have arrived "
            "(with the same message ids)",
        )

    # What the broker says

    def _obey(self, frame: Frame) -> None:
        if frame.kind == frames.METHOD:
            fields = Fields(frame.payload)
            match fields.method():
                case frames.BASIC_ACK:
                    self._on_confirmation(fields, acknowledged=True)
                case frames.BASIC_NACK:
                    self._on_confirmation(fields, acknowledged=False)
                case frames.BASIC_RETURN:
                    fields.octets(2)  # a code that says the same as the text
                    self._returned = fields.short_string(), fields.short_string(), fields.short_string()
                case frames.CONFIRM_SELECT_OK:
                    self._ready = True
                case frames.CHANNEL_CLOSE:
                    self._opened().problem = close_reason(fields)
        elif frame.kind == frames.HEADER and self._returned is not None:
            self._on_returned(*self._returned, *Fields(frame.payload).size_and_message_id())
            self._returned = None

    def _on_confirmation(self, fields: Fields, *, acknowledged: bool) -> None:
        tag, multiple = fields.number(8), fields.number(1) & 1
        LOGGER.debug("%s %s%d", "ack" if acknowledged else "nack", "up to " if multiple else "", tag)
        tags = list(takewhile(lambda each: each <= tag, self._unconfirmed)) if multiple else [tag]
        for each in tags:
            confirmed = self._unconfirmed.pop(each, None)
            if confirmed is None:
                continue
            self._unconfirmed_bytes -= confirmed[2]
            if not acknowledged:
                reason = "refused by the broker (nack): a queue is full, or could not store it"
                self._refused[each] = Undelivered(*confirmed, reason)

    def _on_returned(self, why: str, exchange: str, routing_key: str, size: int, message_id: str) -> None:
        if self._options["unroutable"] == "warn":
            LOGGER.warning("%s: no queue takes %s (%s): the message is lost", self.where, routing_key, why)
            return
        # It comes without its tag, and before its confirmation.
        about = (routing_key, message_id, size)
        for tag, each in self._unconfirmed.items():
            if each == about and tag not in self._refused:
                reason = f"returned ({why}): no queue is bound for it to {exchange!r}"
                self._refused[tag] = Undelivered(*about, reason)
                return
        raise FrameError(f"it returns a message that was not sent ({routing_key}, {message_id})")


def _channel(exchanges: Sequence[Exchange], *, declare: bool) -> list[bytes]:
    """Open the channel, declare what it publishes to, and ask for confirmations."""
    durable, passive = b"\2", b"\1"  # what is declared passively has to be there, and needs no rights
    return [
        frames.method(CHANNEL, frames.CHANNEL_OPEN, frames.short_string("")),
        *(
            frames.method(
                CHANNEL,
                frames.EXCHANGE_DECLARE,
                b"\0\0",
                frames.short_string(exchange.name),
                frames.short_string(exchange.type),
                durable if declare else passive,
                frames.table({}),
            )
            for exchange in exchanges
        ),
        frames.method(CHANNEL, frames.CONFIRM_SELECT, b"\0"),
    ]
