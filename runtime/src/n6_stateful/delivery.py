"""The outbox goes to RabbitMQ, oldest first; a message leaves the journal once the broker has confirmed it.

This module imports pika, which takes a while: import it when a delivery begins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import takewhile
from struct import pack
from typing import Any

from pika import BasicProperties, SelectConnection
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter
from pika.frame import Header, Method
from pika.spec import FRAME_BODY, Basic

from n6_stateful.broker import Broker
from n6_stateful.errors import PublishError, StateError
from n6_stateful.journal import Journal, Waiting
from n6_stateful.message import Exchange

LOGGER = logging.getLogger(__name__)

TICK_SECONDS = 0.1
CLOSE_SECONDS = 5.0
DELETED_AT_ONCE = 500
WRITTEN_AT_ONCE = 1 << 17
FRAME_END = b"\xce"
FRAME_OVERHEAD = 8
REFILLED_AT = 0.8  # of a window
MOST_CLOSED = 30  # connections that the broker closes on messages, in one delivery
MOST_REASONS = 3  # in the text of an error
NO_WAY = (403, 404)  # no right to write to the exchange, or to that routing key there; no such exchange

Options = Mapping[str, Any]
Show = Callable[[int, int], None] | None


def deliver(
    journal: Journal, broker: Broker, exchanges: Sequence[Exchange], options: Options, *, show: Show = None
) -> int:
    """Send what waits in the outbox, and delete what the broker confirms.

    Args:
        journal: nobody else may be delivering from it.
        broker: where to.
        exchanges: to declare (or, with `declare = false`, to look for) before anything is sent.
        options: the section `[output]`.
        show: called now and then with the number of messages confirmed, and to be delivered.

    Returns:
        The number of messages delivered.

    Raises:
        PublishError: some of them still wait; the text says how many, why, and what to do.
        StateError: the outbox cannot be changed; what was sent just now is sent again.
        ConfigError: a TLS file cannot be loaded.
    """
    total = journal.backlog().messages
    if not total:
        return 0
    journal.prove_deletable()
    outbox = _Outbox(journal, options["window_messages"], lambda count: show(count, total) if show else None)
    try:
        while not outbox.is_empty:
            _Connection(broker, journal.name, exchanges, options, outbox).run()
    except PublishError as exc:
        waiting = journal.backlog().messages
        how_many, them = ("1 message waits", "it") if waiting == 1 else (f"{waiting:,} messages wait", "them")
        text = f"{exc}; {how_many} in the outbox, nothing is lost; the next run sends {them}"
        raise PublishError(text, unreachable=exc.unreachable, delivered=outbox.delivered) from exc
    finally:
        if outbox.lost:
            LOGGER.warning("%s: no queue took %d messages (unroutable = warn)", broker.where, outbox.lost)
    if outbox.refused:
        raise PublishError(f"{broker.where} {outbox.refusals()}", delivered=outbox.delivered)
    return outbox.delivered


def try_broker(broker: Broker, exchanges: Sequence[Exchange], options: Options) -> None:
    """Connect, declare the exchanges (or look for them), and close; nothing is sent.

    Raises:
        PublishError: one of these failed.
        ConfigError: a TLS file cannot be loaded.
    """
    _Connection(broker, "check", exchanges, options, _Outbox(None, 1, lambda count: None)).run()


class _Outbox:
    """What still has to be sent, and what became of the rest.

    Attributes:
        is_empty: whether everything was tried.
        delivered: how many messages were confirmed, and deleted.
        lost: how many of these no queue took.
        closed: how many connections the broker has closed on a message.
        refused: the messages that it did not take, with the reason.
    """

    def __init__(self, journal: Journal | None, window: int, show: Callable[[int], object]) -> None:
        self._journal, self._window, self._show = journal, window, show
        self.is_empty = False
        self.delivered = self.lost = self.closed = 0
        self.refused: dict[int, str] = {}
        self._suspects: set[int] = set()  # the broker closed the last connection on one of them
        self._no_way: dict[tuple[str, str], str] = {}  # exchanges and routing keys, with the reason
        self._confirmed: list[int] = []
        self._set_aside: dict[int, str] = {}
        self._written = time.monotonic()

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
                self.done(message, reason)
            else:
                yield message

    def done(self, message: Waiting, reason: str = "") -> None:
        """The broker has a message, or says why it does not take it."""
        self._suspects.discard(message.id)
        if reason:
            self.refused[message.id] = self._set_aside[message.id] = reason
        else:
            self._confirmed.append(message.id)

    def blame(self, messages: Sequence[Waiting], code: int, reason: str) -> None:
        """The broker has closed a connection on one of them."""
        self.closed += 1
        self._suspects = {message.id for message in messages}
        if len(messages) == 1:
            self.done(messages[0], reason)
            if code in NO_WAY:
                self._no_way[messages[0].exchange, messages[0].routing_key] = reason

    def write(self, seconds: float = TICK_SECONDS) -> None:
        """Bring the journal up to date, if there is much to write, or the last time was so long ago."""
        count = len(self._confirmed) + len(self._set_aside)
        late = time.monotonic() - self._written >= seconds
        if not self._journal or not count or (count < DELETED_AT_ONCE and not late):
            return
        self._journal.delivered(self._confirmed)
        self.delivered += len(self._confirmed)
        self._confirmed = []
        if self._set_aside:
            self._journal.refuse(self._set_aside)
            self._set_aside = {}
        self._written = time.monotonic()
        self._show(self.delivered)

    def refusals(self) -> str:
        """What was refused, and what to do."""
        reasons = list(dict.fromkeys(self.refused.values()))
        shown = "; ".join(reasons[:MOST_REASONS]) + ("; ..." if len(reasons) > MOST_REASONS else "")
        count = len(self.refused)
        many, stay = ("1 message", "it stays") if count == 1 else (f"{count:,} messages", "they stay")
        return (
            f"refused {many} ({shown}); {stay} in the outbox, to be tried again by every run; "
            "fix the cause, or `outbox drop`"
        )


class _Services(SelectorIOServicesAdapter):  # type: ignore[misc,unused-ignore] # older pikas have no types
    """pika's access to sockets; it keeps the transport, for many messages in one write."""

    transport: Any = None

    def create_streaming_connection(self, *args: Any, on_done: Any, **kwargs: Any) -> Any:
        """Called by pika when the socket is connected."""

        def done(result: Any) -> None:
            self.transport = result[0] if isinstance(result, tuple) else None
            on_done(result)

        return super().create_streaming_connection(*args, on_done=done, **kwargs)


class _Connection:
    """One connection; its methods stand in the order in which they are called."""

    def __init__(
        self, broker: Broker, name: str, exchanges: Sequence[Exchange], options: Options, outbox: _Outbox
    ) -> None:
        self._broker, self._name, self._options, self._outbox = broker, name, options, outbox
        self._exchanges = list(exchanges)
        self._waiting = outbox.waiting()
        self._next: Waiting | None = None
        self._loop = IOLoop()
        self._services = _Services(self._loop)
        self._connection: Any = None
        self._channel: Any = None
        self._end: Any = None  # the exception with which pika reports it
        self._declaring = self._alarm = ""
        self._is_ready = False
        self._moved = time.monotonic()
        self._unwritten = self._last_tag = self._bytes = self._size = 0
        self._on_way: dict[int, Waiting] = {}  # by delivery tag
        self._returned: dict[int, str] = {}
        self._pieces: list[bytes | memoryview] = []

    def run(self) -> None:
        """Send until the outbox is empty, or the broker closes the connection on a message.

        The callbacks only take note of what the broker says: pika would report what they raise as a lost
        connection.

        Raises:
            PublishError: the connection could not be made, or it broke.
        """
        # pika logs every error that it hands to us, too, with a traceback.
        debug = LOGGER.isEnabledFor(logging.DEBUG)
        logging.getLogger("pika").setLevel(logging.DEBUG if debug else logging.CRITICAL + 1)
        parameters = self._broker.parameters(f"n6-stateful {self._name}", self._options["connect_timeout"])
        ended = self._on_closed
        self._connection = SelectConnection(parameters, self._on_open, ended, ended, self._services)
        try:
            while self._end is None and self._is_in_time():
                self._wait()
                if self._is_ready and self._end is None:
                    self._send()
                self._outbox.write()
            if not self._outbox.is_empty:
                self._explain(self._end)
        except BaseException:
            with suppress(StateError):
                self._outbox.write(0)
            raise
        finally:
            self._hang_up()
        self._outbox.write(0)

    def _wait(self) -> None:
        """Wait until there is news from the broker, at most for a short time."""
        timer = self._loop.call_later(TICK_SECONDS, self._loop.stop)
        try:
            self._loop.start()
        except Exception as exc:  # what is not AMQP ends in any of pika's errors, or of Python's
            raise self._problem(f"the server does not speak AMQP 0-9-1 ({exc!r})") from exc
        self._loop.remove_timeout(timer)

    def _is_in_time(self) -> bool:
        """Whether there is progress. False: everything is confirmed, and only the farewell does not come.

        Raises:
            PublishError: there is none.
        """
        unwritten = self._services.transport.get_write_buffer_size() if self._is_ready else 0
        if unwritten != self._unwritten:
            self._moved, self._unwritten = time.monotonic(), unwritten
        option = "progress_timeout" if self._is_ready else "connect_timeout"
        seconds: float = CLOSE_SECONDS if self._outbox.is_empty else self._options[option]
        if time.monotonic() - self._moved < seconds:
            return True
        if self._outbox.is_empty:
            return False
        what = "no progress for" if self._is_ready else "no connection: not ready within"
        alarm = f", because of an alarm at the broker: {self._alarm}" if self._alarm else ""
        raise self._problem(f"{what} {seconds:g} s ({option}){alarm}")

    def _on_open(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(self._on_alarm)
        connection.add_on_connection_unblocked_callback(self._on_alarm)
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_closed)
        channel.add_on_return_callback(self._on_return)
        self._channel = channel
        self._declare()

    def _declare(self, frame: Any = None) -> None:
        """Declare the next exchange; after the last one, ask for confirmations."""
        if self._exchanges:
            self._declaring, kind = self._exchanges.pop(0)
            passive = not self._options["declare"]  # it must exist, and declaring it needs no rights
            self._channel.exchange_declare(self._declaring, kind, passive, True, callback=self._declare)
        else:
            self._channel.confirm_delivery(self._on_confirmation, callback=self._on_ready)

    def _on_ready(self, frame: Any) -> None:
        LOGGER.info("connected to %s", self._broker.where)
        self._is_ready, self._moved = True, time.monotonic()
        self._loop.stop()

    def _send(self) -> None:
        """Fill the window; close the connection if there is nothing left."""
        window, most = self._outbox.window, self._options["window_bytes"]
        # Not one by one: several messages are one write, and the broker is busy while the journal is written.
        if len(self._on_way) > REFILLED_AT * window or self._bytes > REFILLED_AT * most:
            return
        while len(self._on_way) < window and self._bytes < most:
            message = self._next or next(self._waiting, None)
            self._next = None
            if message is None:
                break
            # What was refused before goes apart: if it closes the connection, nothing else is sent twice.
            oldest = next(iter(self._on_way.values()), None)
            if oldest and (self._bytes + message.size > most or (message.refused and not oldest.refused)):
                self._next = message
                break
            try:
                self._publish(message)
            except Exception as exc:  # pika's encoding raises anything
                self._outbox.done(message, f"AMQP cannot hold it: {exc}")
        self._write(at_least=1)
        if not self._on_way and not self._outbox.is_empty:
            self._outbox.write(0)
            self._outbox.is_empty, self._moved = True, time.monotonic()
            self._connection.close()

    def _publish(self, message: Waiting) -> None:
        """As pika's `basic_publish`, which takes three writes for each small message."""
        channel, size = self._channel.channel_number, len(message.body)
        properties = BasicProperties(message_id=message.message_id, **message.properties)
        header = Header(channel, size, properties).marshal()
        self._write(_publish_frame(channel, message.exchange, message.routing_key), header)
        most = self._connection.params.frame_max - FRAME_OVERHEAD
        for start in range(0, size, most):
            part = memoryview(message.body)[start : start + most]
            self._write(pack(">BHI", FRAME_BODY, channel, len(part)), part, FRAME_END)
        self._last_tag += 1
        self._on_way[self._last_tag] = message
        self._bytes += size

    def _write(self, *pieces: bytes | memoryview, at_least: int = WRITTEN_AT_ONCE) -> None:
        self._pieces += pieces
        self._size += sum(map(len, pieces))
        if self._size >= at_least:
            self._services.transport.write(b"".join(self._pieces))
            self._pieces, self._size = [], 0

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """No queue takes a message; that comes before its confirmation, and without its tag."""
        if self._options["unroutable"] == "warn":
            self._outbox.lost += 1
            return
        returned = properties.message_id, method.exchange, method.routing_key, body
        for tag, message in self._on_way.items():
            if (*message[1:4], message.body) == returned and tag not in self._returned:
                where = f"the exchange {method.exchange!r} for the routing key {method.routing_key!r}"
                self._returned[tag] = f"{method.reply_text}: bind a queue to {where}"
                break

    def _on_confirmation(self, frame: Any) -> None:
        last, multiple = frame.method.delivery_tag, frame.method.multiple
        for tag in list(takewhile(lambda tag: tag <= last, self._on_way)) if multiple else (last,):
            message = self._on_way.pop(tag)
            self._bytes -= message.size
            reason = self._returned.pop(tag, "")
            if not reason and isinstance(frame.method, Basic.Nack):
                reason = "nacked: a queue is full, or could not store it"
            self._outbox.done(message, reason)
        self._moved = time.monotonic()
        self._loop.stop()

    def _on_alarm(self, connection: Any, frame: Any) -> None:
        self._alarm = getattr(frame.method, "reason", "")
        LOGGER.warning("%s: alarm: %s", self._broker.where, self._alarm or "over")

    def _on_closed(self, closed: Any, exc: Exception) -> None:
        """The channel or the connection has ended, or there is none."""
        if closed is self._connection or not self._outbox.is_empty:
            self._end = self._end or exc
            self._loop.stop()

    def _explain(self, end: BaseException) -> None:
        """Blame a message for the end, or raise `PublishError`."""
        code, reason = _described(end)
        if self._on_way and (400 <= code < 500 or 501 <= code <= 505):
            self._outbox.blame(list(self._on_way.values()), code, reason)
            if self._outbox.closed == MOST_CLOSED:
                text = f"closed {MOST_CLOSED} connections on messages, the last time with {reason}"
                raise PublishError(f"{self._broker.where} {text}")
        elif self._declaring and code and not self._is_ready:
            text = f"the exchange {self._declaring!r} cannot be used: {reason}"
            raise PublishError(f"{self._broker.where}: {text}")
        else:
            raise self._problem(reason if self._channel else f"no connection: {reason}")

    def _problem(self, text: str) -> PublishError:
        return PublishError(f"{self._broker.where}: {text}", unreachable=True)

    def _hang_up(self) -> None:
        """End what is left of the connection; no farewell, which would have to wait for half a message."""
        with suppress(Exception):
            if not self._connection.is_closed:
                (self._services.transport.abort if self._services.transport else self._connection.close)()
                self._loop.call_later(1, self._loop.stop)
                self._loop.start()
        self._loop.close()


@lru_cache
def _publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    frame: bytes = Method(channel, Basic.Publish(0, exchange, routing_key, mandatory=True)).marshal()
    return frame


def _described(exc: BaseException) -> tuple[int, str]:
    """The broker's reply code, 0 if it did not reply, and what happened; pika wraps that several times."""
    causes: list[Any] = [exc]
    while causes:
        exc = causes[-1]
        inside = [getattr(exc, "exception", None), *getattr(exc, "exceptions", ()), *exc.args]
        causes = [cause for cause in inside if isinstance(cause, BaseException)]
    code = getattr(exc, "reply_code", 0)
    if code:
        return code, f"{code} {getattr(exc, 'reply_text', '')}"
    return 0, getattr(exc, "strerror", "") or f"{type(exc).__name__}: {', '.join(map(str, exc.args))}"
