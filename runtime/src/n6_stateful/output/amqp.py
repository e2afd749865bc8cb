"""RabbitMQ through pika, with publisher confirms.

One thread owns pika and runs its loop, so that heartbeats are served whatever the collector does. The
collector's thread puts messages into `_outbox` and waits for confirmations. They share no lock, so that an
interruption of the one cannot leave the other waiting.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from n6_stateful.errors import ExchangeError, PublishError
from n6_stateful.message import Exchange, Message, Undelivered

if TYPE_CHECKING:
    from n6_stateful.output.broker import Broker

LOGGER = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
ABORT_SECONDS = 1.0
TICK_SECONDS = 0.25
SPARE_BYTES = 1 << 20  # what a broker may say beyond twice what it was sent
FOR_ALL = (403, 404)  # no right to write to the exchange, or to that routing key there; no such exchange
FORCED = 320  # an operator closed the connection, or the broker goes down: nothing of ours is to blame
INTERRUPTED = "publishing was interrupted half-way"


class AmqpOutput:
    """A broker as an `Output`.

    Args:
        broker: which one, and as whom.
        options: the `[output]` section.
    """

    problem: str | None = None

    def __init__(self, broker: Broker, options: Mapping[str, Any]) -> None:
        self.where = broker.where
        self._broker = broker
        self._options = options
        self._window_messages: int = options["window_messages"]
        self._window_bytes: int = options["window_bytes"]
        # So many are handed over and not confirmed: a broker that confirms many at once finds more ready.
        self._most = self._window_messages * 3 // 2

        self._begin()

    def _begin(self) -> None:
        # Set by the collector's thread.
        self._published = 0
        self._published_bytes = 0
        self._amid = False  # whether it is inside publish(), or was when something interrupted it
        self._wake_at = -1  # it waits for so few unconfirmed messages
        # Handed from the one to the other: appended and inserted by the collector's thread, popped by pika's.
        self._outbox: deque[tuple[int, Message]] = deque()
        self._unconfirmed: dict[int, tuple[str, str, int]] = {}  # by delivery tag
        self._wake: SimpleQueue[None] = SimpleQueue()
        # Set by pika's thread.
        self._loop: Any = None
        self._connection: Any = None
        self._channel: Any = None
        self._thread: threading.Thread | None = None
        self._is_open = False
        self._is_ready = False
        self._ended: str | None = None  # why nothing can be published any more
        self._alarm: str | None = None  # why the broker takes nothing for now
        self._sent = 0
        self._confirmed_up_to = 0
        self._confirmed_bytes = 0
        self._refused: dict[int, Undelivered] = {}
        self._closed_by_broker = False  # because of one of the messages in flight, or of an exchange

    # Output, in the collector's thread

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Connect, log in, and declare the exchanges (durable, as n6 has them), or only look for them."""
        self._begin()
        timeout: float = self._options["connect_timeout"]
        parameters = self._broker.parameters(f"n6-stateful {owner}".rstrip(), timeout)
        self._loop = _new_loop()
        arguments = (parameters, tuple(exchanges))
        self._thread = threading.Thread(target=self._run, args=arguments, name="pika", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + timeout
        while not self._is_ready and self._ended is None:
            if time.monotonic() > deadline:
                self._ended = f"it was not ready within {timeout:g} s (connect_timeout)"
            self._sleep()
        if self._ended is not None:
            raise (ExchangeError if self._closed_by_broker else PublishError)(
                f"{self.where}: {'' if self._is_open else 'no connection: '}{self._ended}",
                consequence="nothing was published, and the state stays as it was",
            )
        LOGGER.info("connected to %s", self.where)

    def publish(self, message: Message) -> None:
        """Hand a message over to be sent; wait while the window is full."""
        interrupted, self._amid = self._amid, True  # the second to the end, and not in a `finally`
        size = len(message.body)
        about = (message.routing_key, message.properties["message_id"], size)
        if self._unconfirmed and self._is_full(size):
            # In small steps: as long as this thread computes, pika's hardly gets a turn (Python's lock).
            self._wait(lambda: not self._is_full(size), self._most - self._most // 8)
        if interrupted:
            self._ended = self._ended or INTERRUPTED
        if len(self._refused) >= self._window_messages or self._ended is not None:
            self._wait(lambda: not self._unconfirmed, 0)
            # Nothing is sent any more, and a collector that goes on all the same must not end well.
            self._published += 1
            self._refused[self._published] = Undelivered(*about, "not sent")
            self._amid = interrupted
            self._raise()
        self._published += 1
        self._published_bytes += size
        self._unconfirmed[self._published] = about
        self._outbox.append((self._published, message))
        if len(self._outbox) == 1:  # otherwise pika's thread is at it
            self._loop.add_callback_threadsafe(self._send)
        self._amid = False

    def flush(self) -> None:
        """Wait for every confirmation."""
        if self._amid:
            self._ended = self._ended or INTERRUPTED
        self._wait(lambda: not self._unconfirmed, 0)
        # A connection that ended when all was confirmed is no error; whoever publishes more will see it.
        if self._refused or self._unconfirmed or self._amid or self._thread is None:
            self._raise()

    def close(self) -> None:
        """Wait for every confirmation, then for the connection's orderly end."""
        self.flush()
        if self._ended is not None:
            LOGGER.warning("%s: %s; by then it had confirmed everything", self.where, self._ended)
        elif not self._close_connection(CLOSE_SECONDS):
            LOGGER.warning("%s confirmed everything, but does not close the connection", self.where)
        self.abort()

    def abort(self) -> None:
        """End the connection; what is unconfirmed may or may not have arrived."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        # Where messages are half sent, an orderly end would send them to their end first.
        in_order = self._is_ready and self._ended is None and not self._unconfirmed
        if not (in_order and self._close_connection(ABORT_SECONDS)):
            self._ended = self._ended or "the run was given up"
            self._loop.add_callback_threadsafe(self._loop.hang_up)
        thread.join(ABORT_SECONDS)

    def check(self, exchanges: Sequence[Exchange]) -> None:
        """Connect, log in, declare the exchanges, and close the connection."""
        try:
            self.open(exchanges, "check", ())
            self.close()
        except BaseException:
            self.abort()
            raise

    def _close_connection(self, seconds: float) -> bool:
        """Ask pika for the connection's orderly end; whether it came within so many seconds."""
        if self._thread is None:
            return False
        self._loop.add_callback_threadsafe(self._connection.close)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # The window

    def _is_full(self, size: int) -> bool:
        in_flight = self._published_bytes - self._confirmed_bytes
        return len(self._unconfirmed) >= self._most or (
            in_flight > 0 and in_flight + size > self._window_bytes
        )

    def _wait(self, done: Callable[[], bool], wake_at: int) -> None:
        """Wait until `done()`, or there is no more to wait for.

        Args:
            done: looked at when no more than `wake_at` messages are unconfirmed, and now and then.
            wake_at: so that the thread is not woken for each confirmation.
        """
        timeout: float = self._options["progress_timeout"]
        deadline = time.monotonic() + timeout
        least = len(self._unconfirmed)
        while not done() and self._ended is None:
            self._wake_at = wake_at if len(self._unconfirmed) > wake_at else len(self._unconfirmed) - 1
            self._sleep()
            if len(self._unconfirmed) < least:
                least = len(self._unconfirmed)
                deadline = time.monotonic() + timeout
            elif time.monotonic() > deadline:
                why = f", because of an alarm at the broker: {self._alarm}" if self._alarm else ""
                self._ended = f"it confirmed nothing for {timeout:g} s (progress_timeout){why}"
        self._wake_at = -1

    def _sleep(self) -> None:
        with suppress(Empty):
            self._wake.get(timeout=TICK_SECONDS)

    def _raise(self) -> None:
        """Tell everything that is not known to have arrived."""
        doubt = None if self._closed_by_broker else False
        known = {
            tag: Undelivered(*about, "not confirmed", doubt)
            for tag, about in self._unconfirmed.copy().items()
        }
        known.update(self._refused)
        why = f" ({next(iter(self._refused.values())).reason})" if self._refused else ""
        what = self._ended or f"the broker did not take every message{why}"
        raise PublishError(
            f"{self.where}: {what}",
            [known[tag] for tag in sorted(known)],
            "the state stays as it was, and the next run publishes again what is not known to have arrived "
            "(with the same message ids)",
        )

    # What happens in pika's thread

    def _run(self, parameters: Any, exchanges: Sequence[Exchange]) -> None:
        from pika import SelectConnection

        try:
            self._connection = SelectConnection(
                parameters,
                on_open_callback=lambda connection: self._on_open(exchanges),
                on_open_error_callback=self._on_closed,
                on_close_callback=self._on_closed,
                custom_ioloop=self._loop,
            )
            self._connection.add_on_connection_blocked_callback(self._on_blocked)
            self._connection.add_on_connection_unblocked_callback(self._on_unblocked)
            self._loop.start()
        except Exception as exc:  # what is not AMQP ends in any of pika's errors, or of Python's
            LOGGER.debug("pika failed", exc_info=True)
            self._ended = self._ended or f"what answers there does not speak AMQP 0-9-1 ({_described(exc)})"
            self._wake.put(None)
            self._loop.hang_up()
            with suppress(Exception):
                self._loop.start()  # for pika to notice, and to close its socket
        finally:
            self._loop.close()

    def _on_closed(self, connection: Any, exc: BaseException) -> None:
        from pika.exceptions import ConnectionClosedByBroker

        if self._is_open and isinstance(exc, ConnectionClosedByBroker) and exc.reply_code != FORCED:
            self._blame(exc)
        self._ended = self._ended or _described(exc)
        self._loop.stop()
        self._wake.put(None)

    def _end(self, reason: str) -> None:
        self._ended = self._ended or reason
        self._wake.put(None)
        if self._connection.is_open:
            self._connection.close()

    def _on_open(self, exchanges: Sequence[Exchange]) -> None:
        self._is_open = True
        self._connection.channel(on_open_callback=lambda channel: self._on_channel(channel, list(exchanges)))

    def _on_channel(self, channel: Any, exchanges: list[Exchange]) -> None:
        channel.add_on_close_callback(self._on_channel_close)
        channel.add_on_return_callback(self._on_return)
        self._channel = channel
        self._declare(exchanges)

    def _declare(self, exchanges: list[Exchange]) -> None:
        """Declare the first exchange and then the others; when none is left, ask for confirmations."""
        if exchanges:
            name, kind = exchanges.pop(0)
            self._channel.exchange_declare(
                name,
                kind,
                durable=True,
                # What is declared passively must be there, and needs no rights.
                passive=not self._options["declare"],
                callback=lambda frame: self._declare(exchanges),
            )
        else:
            self._channel.confirm_delivery(self._on_confirmation, callback=lambda frame: self._on_ready())

    def _on_ready(self) -> None:
        self._is_ready = True
        self._wake.put(None)
        self._watch()

    def _watch(self) -> None:
        """Let no broker fill the memory: whatever it has to say is less than what it was sent."""
        if self._connection.bytes_received > 2 * self._connection.bytes_sent + SPARE_BYTES:
            self._ended = self._ended or "it sends more than it was sent"
            self._wake.put(None)
            self._loop.hang_up()
        self._loop.call_later(TICK_SECONDS, self._watch)

    def _send(self) -> None:
        from pika import BasicProperties

        while self._outbox and self._channel.is_open and self._ended is None:
            if len(self._unconfirmed) - len(self._outbox) >= self._window_messages:
                return  # the next confirmation goes on
            tag, (exchange, routing_key, body, properties, _) = self._outbox[0]
            LOGGER.debug("%d: %s %s (%d bytes)", tag, routing_key, properties["message_id"], len(body))
            self._sent = tag
            try:
                self._channel.basic_publish(
                    exchange, routing_key, body, BasicProperties(**properties), mandatory=True
                )
            except Exception as exc:  # pika's encoding raises anything; message.check knows the usual cases
                self._refused[tag] = Undelivered(
                    *self._unconfirmed.pop(tag), f"AMQP cannot hold it: {exc}", True
                )
                self._end("a message cannot be sent")
            del body
            self._outbox.popleft()  # last, so that nobody wakes this thread for each message

    def _on_confirmation(self, frame: Any) -> None:
        method = frame.method
        if not 0 < method.delivery_tag <= self._sent:
            self._end(f"it confirmed a message that was not sent (number {method.delivery_tag:,})")
            return
        first = self._confirmed_up_to + 1 if method.multiple else method.delivery_tag
        for tag in range(first, method.delivery_tag + 1):
            about = self._unconfirmed.get(tag)
            if about is None:  # confirmed before
                continue
            if method.NAME == "Basic.Nack" and tag not in self._refused:
                reason = "refused by the broker (nack): a queue is full, or could not store it"
                self._refused[tag] = Undelivered(*about, reason, refused=True)
            self._confirmed_bytes += about[2]
            del self._unconfirmed[tag]
        if method.multiple:
            self._confirmed_up_to = max(self._confirmed_up_to, method.delivery_tag)
        self._send()
        if len(self._unconfirmed) <= self._wake_at:
            self._wake_at = -1
            self._wake.put(None)

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        why, routing_key = method.reply_text, method.routing_key
        if self._options["unroutable"] == "warn":
            LOGGER.warning("%s: no queue takes %s (%s): the message is lost", self.where, routing_key, why)
            return
        # It comes without its tag, and before its confirmation.
        about = (routing_key, properties.message_id, len(body))
        for tag, each in self._unconfirmed.copy().items():
            if each == about and tag not in self._refused:
                reason = f"returned ({why}): bind a queue for it to the exchange {method.exchange!r}"
                self._refused[tag] = Undelivered(*about, reason, refused=True)
                return
        self._end(f"it returned a message that was not sent ({routing_key}, {properties.message_id})")

    def _on_channel_close(self, channel: Any, exc: Exception) -> None:
        if not self._connection.is_open:
            return  # it ends with the connection, which tells why
        self._blame(exc)
        self._end(_described(exc))

    def _blame(self, exc: Exception) -> None:
        """The broker has closed the channel or the connection because of something that it was sent."""
        self._closed_by_broker = True
        if len(self._unconfirmed) == 1 and self._ended is None:
            ((tag, about),) = self._unconfirmed.copy().items()
            for_all = getattr(exc, "reply_code", 0) in FOR_ALL
            self._refused[tag] = Undelivered(*about, _described(exc), True, for_all)

    def _on_blocked(self, connection: Any, frame: Any) -> None:
        self._alarm = frame.method.reason
        LOGGER.warning("%s takes nothing for now: an alarm: %s", self.where, self._alarm)

    def _on_unblocked(self, connection: Any, frame: Any) -> None:
        self._alarm = None
        LOGGER.info("%s: the alarm is over", self.where)


def _new_loop() -> Any:
    from pika.adapters.select_connection import IOLoop

    # pika tells its own story of each error that it hands to us, as errors and with tracebacks.
    logging.getLogger("pika").setLevel(
        logging.DEBUG if LOGGER.isEnabledFor(logging.DEBUG) else logging.CRITICAL + 1
    )

    class Loop(IOLoop):  # type: ignore[misc] # pika's is untyped for us
        """pika's loop, which knows its sockets."""

        def __init__(self) -> None:
            super().__init__()
            self._sockets: set[int] = set()

        def add_handler(self, fd: int, handler: Any, events: int) -> None:
            """Take note of a socket."""
            self._sockets.add(fd)
            super().add_handler(fd, handler, events)

        def remove_handler(self, fd: int) -> None:
            """Forget a socket."""
            self._sockets.discard(fd)
            super().remove_handler(fd)

        def hang_up(self) -> None:
            """Break the connection, as a network would: pika has no call for an end without a farewell."""
            for fd in self._sockets:
                with suppress(OSError), socket.socket(fileno=socket.dup(fd)) as twin:
                    twin.shutdown(socket.SHUT_RDWR)

    return Loop()


def _described(exc: BaseException | None) -> str:
    """An error of pika's, for a person."""
    from pika.exceptions import AMQPHeartbeatTimeout, ChannelClosed, ConnectionClosed

    while True:  # pika wraps what happened, several times, and in several ways
        inside = [getattr(exc, "exception", None), *getattr(exc, "exceptions", ()), *getattr(exc, "args", ())]
        causes = [each for each in inside if isinstance(each, BaseException)]
        if not causes:
            break
        exc = causes[-1]
    if isinstance(exc, AMQPHeartbeatTimeout):
        return "nothing was heard from the broker for longer than a heartbeat"
    if isinstance(exc, ChannelClosed | ConnectionClosed):
        return f"the broker said {exc.reply_code} {exc.reply_text}"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc) or type(exc).__name__
