"""Delivers the outbox to RabbitMQ, oldest first, and deletes each message once the broker has confirmed it.

Importing pika takes a while, so import this module only when a delivery begins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

from pika import BasicProperties, SelectConnection

from n6_stateful.broker import Broker
from n6_stateful.errors import PublishError
from n6_stateful.journal import Journal, Waiting
from n6_stateful.message import Exchange

LOGGER = logging.getLogger(__name__)
# pika logs, with a traceback, every error that it also reports to us.
logging.getLogger("pika").setLevel(logging.CRITICAL + 1)

TICK_SECONDS = 0.1
CLOSE_SECONDS = 5.0
DELETED_AT_ONCE = 500
MOST_CONNECTIONS = 30  # in one delivery; a message that the broker rejects costs one or two

Options = Mapping[str, Any]
Show = Callable[[int, int], None] | None


def deliver(
    journal: Journal, broker: Broker, exchanges: Sequence[Exchange], options: Options, *, show: Show = None
) -> int:
    """Send the messages in the outbox, and delete those that the broker confirms.

    Args:
        journal: no other process may be delivering from it.
        broker: where to.
        exchanges: declared (or, with `declare = false`, only checked) before anything is sent.
        options: the section `[output]`.
        show: called now and then with the number of confirmed messages, and the total.

    Returns:
        The number of messages delivered.

    Raises:
        PublishError: some of them still wait; the text says how many, why, and what to do.
        StateError: the outbox cannot be changed; the messages just sent will be sent again.
    """
    total = journal.backlog().messages
    if not total:
        return 0
    journal.prove_deletable()
    outbox = _Outbox(journal, lambda count: show(count, total) if show else None)
    try:
        for _ in range(MOST_CONNECTIONS):
            if _Connection(broker, journal.name, exchanges, options, outbox).run():
                break
        outbox.check(broker.where)
    except PublishError as exc:
        text = f"{exc}; messages in the outbox: {journal.backlog().messages:,}, safe; the next run sends them"
        raise PublishError(text, delivered=outbox.delivered) from exc
    finally:
        if outbox.lost:
            LOGGER.warning("%s: no queue took %d messages (unroutable = warn)", broker.where, outbox.lost)
    return outbox.delivered


def try_broker(broker: Broker, exchanges: Sequence[Exchange], options: Options) -> None:
    """Connect, declare the exchanges (or check them), and disconnect; nothing is sent.

    Raises:
        PublishError: a step failed.
    """
    _Connection(broker, "check", exchanges, options, _Outbox(None, lambda count: None)).run()


class _Outbox:
    """The messages still to be sent, and the outcome of the others.

    Attributes:
        delivered: how many messages were confirmed and deleted.
        lost: how many of these no queue took.
        suspects: how many of the next messages are suspected of having made the broker close the connection.
    """

    def __init__(self, journal: Journal | None, show: Callable[[int], object]) -> None:
        self._journal, self._show = journal, show
        self.delivered = self.lost = self.suspects = 0
        self._refused: dict[int, str] = {}
        self._no_way: dict[tuple[str, ...], str] = {}  # (exchange, routing key) -> reason
        self._done: list[tuple[int, str]] = []
        self._written = time.monotonic()

    def waiting(self) -> Iterator[Waiting]:
        """The messages to send, oldest first; those refused in earlier runs come last."""
        for message in self._journal.waiting() if self._journal else ():
            if reason := self._no_way.get(message[2:4]):
                self._done.append((message.id, reason))
            elif message.id not in self._refused:
                yield message

    def done(self, message: Waiting, reason: str = "") -> None:
        """Note that the broker has confirmed a message, or refused it for a reason."""
        self._done.append((message.id, reason))
        self.suspects = max(0, self.suspects - 1)

    def blame(self, messages: Sequence[Waiting], code: int, reason: str) -> None:
        """Note that the broker closed the connection because of one of these. They are then sent one by one,
        to find out which."""
        self.suspects = len(messages)
        if self.suspects == 1:
            self.done(messages[0], reason)
            if code in (403, 404):  # no right to use that exchange and routing key, or no such exchange
                self._no_way[messages[0][2:4]] = reason

    def write(self, seconds: float = TICK_SECONDS) -> None:
        """Update the journal, if there is much to write or the last update was `seconds` ago."""
        late = time.monotonic() - self._written >= seconds
        if not self._journal or not self._done or (len(self._done) < DELETED_AT_ONCE and not late):
            return
        done, self._done = self._done, []
        confirmed = [id for id, reason in done if not reason]
        self._journal.delivered(confirmed)
        self.delivered += len(confirmed)
        if refused := {id: reason for id, reason in done if reason}:
            self._journal.refuse(refused)
            self._refused |= refused
        self._written = time.monotonic()
        self._show(self.delivered)

    def check(self, where: str) -> None:
        """Raise `PublishError` if messages were refused."""
        if self._refused:
            reasons = "; ".join(list(dict.fromkeys(self._refused.values()))[:3])
            text = f"messages refused: {len(self._refused):,} ({reasons}); fix the cause, or `outbox drop`"
            raise PublishError(f"{where}: {text}")


class _Connection:
    """One connection; its methods are in the order in which they are called."""

    def __init__(
        self, broker: Broker, name: str, exchanges: Sequence[Exchange], options: Options, outbox: _Outbox
    ) -> None:
        self._where, self._exchanges, self._options, self._outbox = broker.where, exchanges, options, outbox
        self._waiting = outbox.waiting()
        self._next: Waiting | None = None
        self._has_more = True
        self._on_way: dict[int, Waiting] = {}  # by delivery tag
        self._returned: dict[int, str] = {}
        self._last_tag = self._bytes = self._unwritten = 0
        self._moved = time.monotonic()
        self._is_ready, self._alarm = False, ""
        self._channel: Any = None
        self._end: Any = None  # the exception that ended it
        parameters = broker.parameters(f"n6-stateful {name}", options["connect_timeout"])
        self._connection: Any = SelectConnection(parameters, self._on_open, self._on_end, self._on_end)
        self._loop = self._connection.ioloop

    def run(self) -> bool:
        """Send what waits, and close the connection.

        The callbacks only take notes and never raise: pika would report an exception as a lost connection.

        Returns:
            Whether everything was tried; if not, the broker closed the connection because of a message.

        Raises:
            PublishError: the connection could not be made, or it broke.
        """
        with closing(self):
            while self._has_more or self._on_way or not self._is_ready:
                if self._end:
                    self._blame(*_described(self._end))
                    return False
                self._check_progress()
                if self._is_ready:
                    self._send()
                self._outbox.write()
                self._wait()
            self._outbox.write(0)
        return True

    def _wait(self) -> None:
        """Wait for something from the broker, for a short time at most."""
        timer = self._loop.call_later(TICK_SECONDS, self._loop.stop)
        try:
            self._loop.start()
        except Exception as exc:  # if it is not AMQP, pika may raise anything
            raise self._problem(f"the server does not speak AMQP 0-9-1 ({exc!r})") from exc
        self._loop.remove_timeout(timer)

    def _check_progress(self) -> None:
        """Raise `PublishError` if no byte was written and no message confirmed for too long."""
        unwritten = self._connection._transport.get_write_buffer_size() if self._is_ready else 0
        if unwritten != self._unwritten:
            self._moved, self._unwritten = time.monotonic(), unwritten
        option = "progress_timeout" if self._is_ready else "connect_timeout"
        if time.monotonic() - self._moved >= self._options[option]:
            alarm = f"; the broker has an alarm: {self._alarm}" if self._alarm else ""
            raise self._problem(f"timeout after {self._options[option]:g} s ({option}){alarm}")

    def _on_open(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(self._on_alarm)
        connection.add_on_connection_unblocked_callback(self._on_alarm)
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_end)
        channel.add_on_return_callback(self._on_return)
        for name, kind in self._exchanges:
            # Passive only checks that it exists, which needs no rights. If something is wrong, the broker
            # closes the channel.
            channel.exchange_declare(name, kind, passive=not self._options["declare"], durable=True)
        channel.confirm_delivery(self._on_confirmation, callback=self._on_ready)

    def _on_ready(self, frame: Any) -> None:
        self._is_ready, self._moved = True, time.monotonic()
        self._loop.stop()

    def _send(self) -> None:
        """Fill the window. Once it is full the next message is not read, which may be large."""
        while not self._on_way or self._bytes < self._options["window_bytes"]:
            self._next = self._next or next(self._waiting, None)
            self._has_more = self._next is not None
            if not self._next or not self._has_room_for(self._next):
                break
            message, self._next = self._next, None
            try:
                self._publish(message)
            except Exception as exc:  # pika's encoding may raise anything
                self._outbox.done(message, f"AMQP cannot hold it: {exc}")

    def _has_room_for(self, message: Waiting) -> bool:
        """Whether another message fits into the window."""
        oldest = next(iter(self._on_way.values()), None)
        return not oldest or (
            not self._outbox.suspects
            and len(self._on_way) < self._options["window_messages"]
            and self._bytes + message.size <= self._options["window_bytes"]
            # Messages refused before are sent apart: if one closes the connection, no others are sent twice.
            and (oldest.refused is None) == (message.refused is None)
        )

    def _publish(self, message: Waiting) -> None:
        properties = BasicProperties(message_id=message.message_id, **message.properties)
        exchange, routing_key = message[2:4]
        self._channel.basic_publish(exchange, routing_key, message.body, properties, mandatory=True)
        self._last_tag += 1
        self._on_way[self._last_tag] = message._replace(body=b"")
        self._bytes += message.size

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Note that no queue took a message. This comes before its confirmation, and without its tag."""
        if self._options["unroutable"] == "warn":
            self._outbox.lost += 1
            return
        returned = properties.message_id, method.exchange, method.routing_key, len(body)
        for tag, message in self._on_way.items():
            if (*message[1:4], message.size) == returned and tag not in self._returned:
                self._returned[tag] = f"{method.reply_text}: no queue is bound for {method.routing_key!r}"
                break

    def _on_confirmation(self, frame: Any) -> None:
        last, multiple = frame.method.delivery_tag, frame.method.multiple
        nacked = "nacked: a queue is full or could not store it" if frame.method.NAME == "Basic.Nack" else ""
        for tag in [tag for tag in self._on_way if tag <= last] if multiple else [last]:
            message = self._on_way.pop(tag)
            self._bytes -= message.size
            self._outbox.done(message, self._returned.pop(tag, nacked))
        self._moved = time.monotonic()
        self._loop.stop()

    def _on_alarm(self, connection: Any, frame: Any) -> None:
        self._alarm = getattr(frame.method, "reason", "")
        LOGGER.warning("%s: alarm: %s", self._where, self._alarm or "over")

    def _on_end(self, ended: Any, exc: Exception) -> None:
        """Note that the channel or the connection has ended, or could not be opened."""
        self._end = self._end or exc
        self._loop.stop()

    def _blame(self, code: int, reason: str) -> None:
        """Blame a message for the lost connection, or raise `PublishError`."""
        if self._on_way and (400 <= code < 500 or 501 <= code <= 505):
            self._outbox.blame(list(self._on_way.values()), code, reason)
        elif code and self._channel and not self._is_ready:
            raise PublishError(f"{self._where}: an exchange cannot be used: {reason}")
        else:
            raise self._problem(reason if self._is_ready else f"no connection: {reason}")

    def _problem(self, text: str) -> PublishError:
        return PublishError(f"{self._where}: {text}")

    def close(self) -> None:
        """Close the connection, abruptly if something is unconfirmed, and note what was confirmed."""
        connection, begun = self._connection, time.monotonic()
        seconds = CLOSE_SECONDS if self._is_ready and not self._on_way else 0
        with suppress(Exception):  # it may have ended already
            if seconds:
                connection.close()
            while not connection.is_closed and time.monotonic() - begun < seconds:
                self._wait()
            connection._adapter_disconnect_stream()  # abruptly
            self._wait()
        self._loop.close()
        self._outbox.write(0)


def _described(exc: Any) -> tuple[int, str]:
    """The broker's reply code (0 if it did not reply) and text; pika wraps its exceptions in others."""
    for cause in (getattr(exc, "exception", None), *getattr(exc, "exceptions", ())[::-1], *exc.args):
        if isinstance(cause, BaseException):
            return _described(cause)
    if code := getattr(exc, "reply_code", 0):
        return code, f"{code} {exc.reply_text}"
    return 0, getattr(exc, "strerror", "") or f"{type(exc).__name__}: {', '.join(map(str, exc.args))}"
