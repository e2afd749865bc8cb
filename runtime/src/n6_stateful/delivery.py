"""The outbox goes to RabbitMQ, oldest first; a message leaves the journal once the broker has confirmed it.

This module imports pika, which takes a while: import it when a delivery begins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, wraps
from itertools import takewhile
from typing import Any, NamedTuple

from pika import BasicProperties, SelectConnection
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter
from pika.exceptions import AMQPHeartbeatTimeout, ChannelClosed, ChannelClosedByBroker, ConnectionClosed
from pika.frame import Body, Header, Method
from pika.spec import Basic

from n6_stateful.broker import Broker
from n6_stateful.errors import PublishError, StateError
from n6_stateful.journal import Journal, Waiting
from n6_stateful.message import Exchange

LOGGER = logging.getLogger(__name__)

TICK_SECONDS = 0.1
CLOSE_SECONDS = 5.0
DELETED_AT_ONCE = 500
MOST_CLOSED = 30  # connections that the broker may close on messages, in one delivery
MOST_REASONS = 3  # in an error's text
WRITTEN_AT_ONCE = 1 << 17
OVERHEAD = 8  # bytes of a frame that are not its content
NO_WAY = (403, 404)  # no right to write to the exchange, or to that routing key there; no such exchange


def deliver(
    journal: Journal,
    broker: Broker,
    exchanges: Sequence[Exchange],
    options: Mapping[str, Any],
    *,
    show: Callable[[int, int], None] | None = None,
) -> int:
    """Send what waits in the outbox, and delete what the broker confirms.

    Args:
        journal: open; nobody else may be delivering from it.
        broker: where to.
        exchanges: to declare (or, with `declare = false`, to look for) before anything is sent.
        options: the section `[output]`.
        show: called now and then with the number of messages confirmed and to be delivered.

    Returns:
        The number of messages delivered.

    Raises:
        PublishError: some of them still wait; the text says how many, why, and what to do.
        StateError: the outbox cannot be changed; what was sent until then may be sent again.
        ConfigError: a TLS file cannot be loaded.
    """
    total = journal.backlog().messages
    if not total:
        return 0
    journal.prove_deletable()
    outbox = _Outbox(journal, options["window_messages"], lambda count: show(count, total) if show else None)
    parameters = broker.parameters(f"n6-stateful {journal.name}", options["connect_timeout"])
    try:
        while not outbox.is_empty:
            _Connection(broker.where, parameters, exchanges, options, outbox).run()
    except PublishError as exc:
        waiting = journal.backlog().messages
        what, them = ("1 message waits", "it") if waiting == 1 else (f"{waiting:,} messages wait", "them")
        raise PublishError(
            f"{exc}; {what} in the outbox, nothing is lost; the next run sends {them}",
            unreachable=exc.unreachable,
            delivered=outbox.delivered,
        ) from exc
    finally:
        if outbox.unroutable:
            LOGGER.warning(
                "%s: no queue took %d messages, which are lost (unroutable = warn)",
                broker.where,
                outbox.unroutable,
            )
    if outbox.refused:
        raise PublishError(f"{broker.where} {outbox.refusals()}", delivered=outbox.delivered)
    return outbox.delivered


def try_broker(broker: Broker, exchanges: Sequence[Exchange], options: Mapping[str, Any]) -> None:
    """Connect, declare the exchanges (or look for them), and close; nothing is sent.

    Raises:
        PublishError: one of these failed.
        ConfigError: a TLS file cannot be loaded.
    """
    parameters = broker.parameters("n6-stateful check", options["connect_timeout"])
    _Connection(broker.where, parameters, exchanges, options, _Outbox(None, 1, lambda count: None)).run()


class _Sent(NamedTuple):
    """A message on its way. A returned one comes with everything but its id."""

    message_id: str
    exchange: str
    routing_key: str
    size: int
    id: int


class _Outbox:
    """What still has to be sent, and what became of the rest.

    Attributes:
        is_empty: whether everything was tried.
        delivered: how many messages were confirmed, and deleted.
        unroutable: how many of these no queue took.
        closed: how many connections the broker has closed on a message.
        refused: the messages that it did not take, with the reason.
    """

    def __init__(self, journal: Journal | None, window: int, show: Callable[[int], object]) -> None:
        self._journal, self._window, self._show = journal, window, show
        self.is_empty = False
        self.delivered = self.unroutable = self.closed = 0
        self.refused: dict[int, str] = {}
        self._suspects: set[int] = set()  # the broker closed the last connection on one of them
        self._no_way: dict[tuple[str, str], str] = {}  # exchanges and routing keys, with the reason
        self._confirmed: list[int] = []
        self._unwritten: list[int] = []  # of those that were refused

    @property
    def window(self) -> int:
        """How many messages may be on their way."""
        return 1 if self._suspects else self._window

    def waiting(self) -> Iterator[Waiting]:
        """What is to be sent, oldest first; what earlier runs were refused comes last."""
        for message in self._journal.waiting() if self._journal else ():
            if message.id in self.refused:
                continue
            if reason := self._no_way.get((message.exchange, message.routing_key)):
                self.refuse(message.id, reason)
            else:
                yield message

    def confirm(self, id: int) -> None:
        """The broker has a message."""
        self._suspects.discard(id)
        self._confirmed.append(id)
        if len(self._confirmed) >= DELETED_AT_ONCE:
            self.write()

    def refuse(self, id: int, reason: str) -> None:
        """The broker does not take a message."""
        self._suspects.discard(id)
        self.refused[id] = reason
        self._unwritten.append(id)

    def blame(self, sent: Sequence[_Sent], reason: str, code: int) -> None:
        """The broker has closed a connection on one of these messages."""
        self.closed += 1
        if len(sent) > 1:
            self._suspects = {message.id for message in sent}
        else:
            self.refuse(sent[0].id, reason)
            self._suspects = set()
            if code in NO_WAY:
                self._no_way[sent[0].exchange, sent[0].routing_key] = reason

    def write(self) -> None:
        """Bring the journal up to date."""
        if self._journal and self._confirmed:
            self._journal.delivered(self._confirmed)
            self.delivered += len(self._confirmed)
            self._confirmed = []
        while self._journal and self._unwritten:
            self._journal.refuse(self._unwritten[-1], self.refused[self._unwritten[-1]])
            self._unwritten.pop()
        self._show(self.delivered)

    def refusals(self) -> str:
        """What was refused, and what to do."""
        reasons = list(dict.fromkeys(self.refused.values()))
        shown = "; ".join(reasons[:MOST_REASONS]) + ("; ..." if len(reasons) > MOST_REASONS else "")
        if len(self.refused) == 1:
            what, how = "1 message", "it stays in the outbox and is tried again"
        else:
            what, how = f"{len(self.refused):,} messages", "they stay in the outbox and are tried again"
        return f"refused {what} ({shown}); {how} by every run; fix the cause, or `outbox drop`"


class _Services(SelectorIOServicesAdapter):  # type: ignore[misc] # pika has no types for us
    """pika's loop and its socket, which it lets us write to."""

    transport: Any = None

    def create_streaming_connection(self, *args: Any, on_done: Any, **kwargs: Any) -> Any:
        """Called by pika when the socket is connected."""

        def done(result: Any) -> None:
            if isinstance(result, tuple):
                self.transport = result[0]
            on_done(result)

        return super().create_streaming_connection(*args, on_done=done, **kwargs)


def _callback(method: Callable[..., None]) -> Callable[..., None]:
    """Keep an exception for `run`: pika would report it as a lost connection."""

    @wraps(method)
    def call(self: _Connection, *args: Any) -> None:
        try:
            method(self, *args)
        except Exception as exc:
            self.failure = self.failure or exc
            self.loop.stop()

    return call


class _Connection:
    """One connection; its methods stand in the order in which they are called."""

    def __init__(
        self,
        where: str,
        parameters: Any,
        exchanges: Sequence[Exchange],
        options: Mapping[str, Any],
        outbox: _Outbox,
    ) -> None:
        self._where, self._parameters, self._options, self._outbox = where, parameters, options, outbox
        self._exchanges = list(exchanges)
        self._waiting = outbox.waiting()
        self.loop = IOLoop()
        self.failure: Exception | None = None
        self._services = _Services(self.loop)
        self._connection: Any = None
        self._channel: Any = None
        self._declaring = self._alarm = ""
        self._is_ready = self._is_finished = self._is_blamed = self._is_closed = False
        self._moved, self._unwritten = time.monotonic(), 0
        self._next: Waiting | None = None
        self._last_tag = self._bytes = 0
        self._on_way: dict[int, _Sent] = {}  # by delivery tag
        self._returned: dict[int, str] = {}
        self._buffer = bytearray()

    def run(self) -> None:
        """Send until nothing is left, or until the broker closes the connection on a message.

        Raises:
            PublishError: the connection could not be made, or it broke.
        """
        # pika logs each error that it hands to us, too, with a traceback.
        debug = LOGGER.isEnabledFor(logging.DEBUG)
        logging.getLogger("pika").setLevel(logging.DEBUG if debug else logging.CRITICAL + 1)
        try:
            self._connection = SelectConnection(
                self._parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_closed,
                on_close_callback=self._on_closed,
                custom_ioloop=self._services,
            )
            self._on_tick()
            self.loop.start()
        except Exception as exc:  # what is not AMQP ends in any of pika's errors, or of Python's
            LOGGER.debug("pika failed", exc_info=True)
            self.failure = self._problem(f"the server does not speak AMQP 0-9-1 ({exc!r})")
        except BaseException:  # a signal's
            with suppress(StateError):
                self._outbox.write()
            raise
        finally:
            self._hang_up()
        try:
            self._outbox.write()
        finally:
            if self.failure is not None:
                raise self.failure

    @_callback
    def _on_tick(self) -> None:
        """Bring the journal up to date, and look whether there was progress."""
        self._outbox.write()
        now = time.monotonic()
        unwritten = self._services.transport.get_write_buffer_size() if self._is_ready else 0
        if unwritten != self._unwritten:
            self._moved, self._unwritten = now, unwritten
        option = "progress_timeout" if self._is_ready else "connect_timeout"
        seconds = CLOSE_SECONDS if self._is_finished else self._options[option]
        if now - self._moved < seconds:
            self.loop.call_later(min(TICK_SECONDS, seconds), self._on_tick)
        elif self._is_finished:
            LOGGER.info("%s has confirmed everything, but does not close the connection", self._where)
            self.loop.stop()
        else:
            what = "no progress for" if self._is_ready else "no connection: not ready within"
            alarm = f", because of an alarm at the broker: {self._alarm}" if self._alarm else ""
            raise self._problem(f"{what} {seconds:g} s ({option}){alarm}")

    @_callback
    def _on_open(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        connection.channel(on_open_callback=self._on_channel)

    @_callback
    def _on_channel(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        self._channel = channel
        self._declare()

    @_callback
    def _declare(self, frame: Any = None) -> None:
        """Declare the next exchange; after the last one, ask for confirmations."""
        if self._exchanges:
            self._declaring, kind = self._exchanges.pop(0)
            # What is declared passively must exist, and needs no rights.
            passive = not self._options["declare"]
            self._channel.exchange_declare(
                self._declaring, kind, durable=True, passive=passive, callback=self._declare
            )
        else:
            self._channel.confirm_delivery(self._on_confirmation, callback=self._on_ready)

    @_callback
    def _on_ready(self, frame: Any) -> None:
        LOGGER.info("connected to %s", self._where)
        self._is_ready = True
        self._moved = time.monotonic()
        self._send()

    def _send(self) -> None:
        """Fill the window; close when nothing is left."""
        most = self._options["window_bytes"]
        while len(self._on_way) < self._outbox.window and self._bytes < most:
            self._next = self._next or next(self._waiting, None)
            if self._next is None or (self._on_way and self._bytes + self._next.size > most):
                break
            message, self._next = self._next, None
            try:
                self._publish(message)
            except (
                Exception
            ) as exc:  # pika's encoding raises anything; `checked_properties` knows the usual cases
                self._outbox.refuse(message.id, f"AMQP cannot hold it: {exc}")
        self._write(b"", 1)
        if not self._on_way and not self._is_finished:
            self._outbox.is_empty = self._is_finished = True
            self._outbox.write()
            self._moved = time.monotonic()
            self._connection.close()

    def _publish(self, message: Waiting) -> None:
        """As pika's `basic_publish`, which takes three writes for each small message."""
        number, body = self._channel.channel_number, message.body
        properties = BasicProperties(message_id=message.message_id, **message.properties)
        head = _publish_frame(number, message.exchange, message.routing_key)
        head += Header(number, len(body), properties).marshal()
        self._last_tag += 1
        self._on_way[self._last_tag] = _Sent(
            message.message_id, message.exchange, message.routing_key, len(body), message.id
        )
        self._bytes += len(body)
        self._write(head)
        longest = self._connection.params.frame_max - OVERHEAD
        for start in range(0, len(body), longest):
            self._write(Body(number, body[start : start + longest]).marshal())

    def _write(self, frame: bytes, at_once: int = WRITTEN_AT_ONCE) -> None:
        self._buffer += frame
        if len(self._buffer) >= at_once:
            self._services.transport.write(bytes(self._buffer))
            self._buffer.clear()

    @_callback
    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """No queue takes a message; it is confirmed all the same, later."""
        if self._options["unroutable"] == "warn":
            self._outbox.unroutable += 1
            return
        returned = (properties.message_id, method.exchange, method.routing_key, len(body))
        for tag, sent in self._on_way.items():
            if sent[:4] == returned and tag not in self._returned:
                self._returned[tag] = (
                    f"{method.reply_text}: bind a queue to the exchange {method.exchange!r} "
                    f"for the routing key {method.routing_key!r}"
                )
                break

    @_callback
    def _on_confirmation(self, frame: Any) -> None:
        last, multiple = frame.method.delivery_tag, frame.method.multiple
        for tag in list(takewhile(lambda tag: tag <= last, self._on_way)) if multiple else (last,):
            sent = self._on_way.pop(tag)
            self._bytes -= sent.size
            reason = self._returned.pop(tag, "")
            if not reason and isinstance(frame.method, Basic.Nack):
                reason = "nacked: a queue is full, or could not store it"
            if reason:
                self._outbox.refuse(sent.id, reason)
            else:
                self._outbox.confirm(sent.id)
        self._moved = time.monotonic()
        # Half a window at a time: many small messages are one write.
        if (
            len(self._on_way) <= self._outbox.window // 2
            and self._bytes <= self._options["window_bytes"] // 2
        ):
            self._send()

    @_callback
    def _on_blocked(self, connection: Any, frame: Any) -> None:
        self._alarm = frame.method.reason
        LOGGER.warning("%s takes nothing for now: an alarm: %s", self._where, self._alarm)

    @_callback
    def _on_unblocked(self, connection: Any, frame: Any) -> None:
        self._alarm = ""
        LOGGER.info("%s: the alarm is over", self._where)

    @_callback
    def _on_channel_closed(self, channel: Any, exc: Exception) -> None:
        if isinstance(exc, ChannelClosedByBroker):
            self._closed_on(exc)
            self._connection.close()

    @_callback
    def _on_closed(self, connection: Any, exc: Exception) -> None:
        self._is_closed = True
        self.loop.stop()
        if not self._is_finished and not self._is_blamed:
            self._closed_on(exc)

    def _closed_on(self, exc: Exception) -> None:
        """The broker has closed the channel or the connection, or it broke."""
        exc = _cause(exc)
        reason, code = _described(exc), getattr(exc, "reply_code", 0)
        if self._on_way and (400 <= code < 500 or 501 <= code <= 505):
            self._is_blamed = True
            self._outbox.blame(list(self._on_way.values()), reason, code)
            if self._outbox.closed == MOST_CLOSED:
                raise PublishError(f"{self._where} closed {MOST_CLOSED} connections on messages ({reason})")
        elif self._declaring and code and not self._is_ready:
            raise PublishError(f"{self._where}: the exchange {self._declaring!r} cannot be used: {reason}")
        else:
            raise self._problem(reason if self._channel else f"no connection: {reason}")

    def _problem(self, text: str) -> PublishError:
        return PublishError(f"{self._where}: {text}", unreachable=True)

    def _hang_up(self) -> None:
        """Break the connection if it is still there: no farewell in the middle of a message."""
        with suppress(Exception):
            if self._connection and not self._is_closed:
                if self._services.transport:
                    self._services.transport.abort()
                else:
                    self._connection.close()
                self.loop.call_later(1, self.loop.stop)
                self.loop.start()
        self.loop.close()


@lru_cache
def _publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    frame: bytes = Method(channel, Basic.Publish(0, exchange, routing_key, mandatory=True)).marshal()
    return frame


def _cause(exc: BaseException) -> BaseException:
    """What happened; pika wraps that several times, and in several ways."""
    while True:
        inside = [getattr(exc, "exception", None), *getattr(exc, "exceptions", ()), *exc.args]
        causes = [inner for inner in inside if isinstance(inner, BaseException)]
        if not causes:
            return exc
        exc = causes[-1]


def _described(exc: BaseException) -> str:
    if isinstance(exc, AMQPHeartbeatTimeout):
        return "nothing was heard from the broker for longer than a heartbeat"
    if isinstance(exc, ChannelClosed | ConnectionClosed):
        return f"{exc.reply_code} {exc.reply_text}"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc) or type(exc).__name__
