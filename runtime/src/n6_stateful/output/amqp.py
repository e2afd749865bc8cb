"""RabbitMQ, by way of pika, with publisher confirms.

pika's event loop runs in a thread of its own, which alone touches the connection: so heartbeats are served
while the collector's code is busy, for however long. The collector's thread hands messages over and waits
only when the window is full, or for the last confirmations.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote, urlsplit

import pika

from n6_stateful.errors import CollectorError, ConfigError, PublishError
from n6_stateful.message import Exchange, Message, Undelivered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOGGER = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0


class Login:
    """How to reach a broker and who we are there. Only `where` is fit to be shown."""

    def __init__(
        self,
        host: str,
        port: int,
        vhost: str,
        user: str | None,
        password: str,
        tls: Mapping[str, str] | None,
        heartbeat: int | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.vhost = vhost
        self.user = user
        self.password = password
        self.tls = tls
        self.heartbeat = heartbeat

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, Any]) -> Login:
        """From `amqp[s]://user:password@host:port/vhost` and the `ssl_*` options.

        Without a user it logs in with the client certificate if there is one, else as `guest`.

        Raises:
            ConfigError: it is no such URL.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise ConfigError(f"the output's URL cannot be read: {exc}") from exc
        if parts.scheme not in ("amqp", "amqps") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(
                f"the output's URL begins with {parts.scheme or 'no scheme'}://; it has to be "
                "amqp://user:password@host:port/vhost, amqps://... or spool:PATH, with nothing behind it"
            )
        secure = parts.scheme == "amqps"
        tls = {name: options[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")}
        user = unquote(parts.username) if parts.username else None
        if user is None and not (secure and tls["ssl_certfile"]):
            user = "guest"
        return cls(
            parts.hostname,
            port or (5671 if secure else 5672),
            unquote(parts.path[1:]) or "/",
            user,
            unquote(parts.password) if parts.password is not None else "guest",
            tls if secure else None,
        )

    @classmethod
    def from_rabbitmq_section(cls, section: Mapping[str, Any]) -> Login:
        """From n6's `[rabbitmq]` section, read as n6 reads it.

        Raises:
            ConfigError: `password_auth` without a user and a password.
        """
        tls = {name: section[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")}
        user: str | None = "guest"
        password = "guest"  # noqa: S105 - RabbitMQ's own default, which it takes from localhost only
        if section["password_auth"]:
            user, password = section["username"], section["password"]
            if not user or not password:
                raise ConfigError("[rabbitmq] password_auth is on: username and password are needed")
        elif section["ssl"] and tls["ssl_certfile"]:
            user = None
        return cls(
            section["host"],
            section["port"],
            section.get("vhost", "/"),
            user,
            password,
            tls if section["ssl"] else None,
            section["heartbeat_interval"],
        )

    @property
    def where(self) -> str:
        """The broker's URL without user and password."""
        scheme = "amqp" if self.tls is None else "amqps"
        return f"{scheme}://{self.host}:{self.port}/{'' if self.vhost == '/' else self.vhost}"

    def parameters(self, options: Mapping[str, Any]) -> pika.ConnectionParameters:
        """What pika wants to know."""
        credentials = (
            pika.credentials.ExternalCredentials()
            if self.user is None
            else pika.PlainCredentials(self.user, self.password)
        )
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.vhost,
            credentials=credentials,
            ssl_options=self._ssl_options(),
            heartbeat=options["heartbeat"] if self.heartbeat is None else self.heartbeat,
            socket_timeout=options["connect_timeout"],
            stack_timeout=options["connect_timeout"],
            connection_attempts=1,
            client_properties={"connection_name": "n6-stateful"},
        )

    def _ssl_options(self) -> pika.SSLOptions | None:
        if self.tls is None:
            return None
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.tls["ssl_ca_certs"] or None)
            if self.tls["ssl_certfile"]:
                context.load_cert_chain(self.tls["ssl_certfile"], self.tls["ssl_keyfile"] or None)
        except (OSError, ssl.SSLError) as exc:
            named = ", ".join(path for path in self.tls.values() if path)
            raise ConfigError(f"a TLS file cannot be loaded ({named}): {exc}") from exc
        return pika.SSLOptions(context, self.host)


class AmqpOutput:
    """A broker as an `Output`.

    Args:
        login: which broker, and as whom.
        options: the `[output]` section.
    """

    def __init__(self, login: Login, options: Mapping[str, Any]) -> None:
        self.where = login.where
        self._login = login
        self._options = options
        self._window_messages: int = options["window_messages"]
        self._window_bytes: int = options["window_bytes"]

        # What both threads use is used under this lock; the condition says that any of it has changed.
        self._changed = threading.Condition()
        self._outbox: deque[tuple[Message, pika.BasicProperties]] = deque()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._last_progress = 0.0
        self._alarm: str | None = None  # why the broker takes nothing for now
        self._refused: dict[int, Undelivered] = {}  # by delivery tag, as _unconfirmed
        self._ready = False
        self._ended: str | None = None  # why the connection is no more

        # What only the connection's thread uses.
        self._unconfirmed: dict[int, tuple[str, str, int]] = {}
        self._next_tag = 1
        self._exchanges: list[Exchange] = []
        self._channel: Any = None
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._loop: Any = None

    # The collector's thread

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Connect, log in, and declare the exchanges (durable, as n6 declares them)."""
        parameters = self._login.parameters(self._options)
        self._exchanges = list(exchanges) if self._options["declare"] else []
        self._thread = threading.Thread(
            target=self._run_loop, args=(parameters,), name="n6-stateful-amqp", daemon=True
        )
        self._thread.start()
        timeout = self._options["connect_timeout"]
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._ready and self._ended is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    self._ended = f"it was not ready within {timeout:g} s (connect_timeout)"
                    break
                self._changed.wait(left)
            ended = self._ended
        if ended is not None:
            raise PublishError(
                f"{self.where}: no connection: {ended}; nothing was published, and the state stays as it was"
            )
        LOGGER.info("connected to %s", self.where)

    def publish(self, message: Message) -> None:
        """Hand a message over; wait while the window is full."""
        size = len(message.body)
        try:
            properties = pika.BasicProperties(**message.properties)
        except TypeError as exc:
            raise CollectorError(f"a message property that AMQP does not know: {exc}") from exc
        with self._changed:
            if self._is_full(size):
                self._wait(lambda: not self._is_full(size))
            if self._refused or self._ended is not None:
                self._wait(lambda: not self._in_flight)
                self._raise(Undelivered(message.routing_key, properties.message_id, size, "not sent"))
            self._in_flight += 1
            self._in_flight_bytes += size
            wake = not self._outbox
            self._outbox.append((message, properties))
        if wake:
            self._call_in_loop(self._send)

    def flush(self) -> None:
        """Wait for every confirmation."""
        with self._changed:
            self._wait(lambda: not self._in_flight)
            if self._refused or self._ended is not None:
                self._raise()

    def close(self) -> None:
        """Wait for every confirmation, then for the connection's orderly end."""
        self.flush()
        self._call_in_loop(self._close_connection)
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                LOGGER.warning("%s confirmed everything, but does not close the connection", self.where)

    def abort(self) -> None:
        """Leave the connection to itself; what is unconfirmed may or may not have arrived."""
        with self._changed:
            self._ended = self._ended or "the run was given up"
        self._call_in_loop(self._close_connection)

    def _call_in_loop(self, callback: Callable[[], None]) -> None:
        with self._changed:
            if self._loop is not None:
                self._loop.add_callback_threadsafe(callback)

    def _is_full(self, size: int) -> bool:
        return self._in_flight > 0 and (
            self._in_flight >= self._window_messages or self._in_flight_bytes + size > self._window_bytes
        )

    def _wait(self, done: Callable[[], bool]) -> None:
        """Wait until `done()`, or there is no more to wait for. The lock is held."""
        timeout = self._options["progress_timeout"]
        self._last_progress = time.monotonic()  # while the collector was busy, nobody may have looked
        while not done() and self._ended is None:
            left = self._last_progress + timeout - time.monotonic()
            if left <= 0:
                self._ended = f"no message was confirmed for {timeout:g} s (progress_timeout)"
                if self._alarm is not None:
                    self._ended += f", because of an alarm at the broker: {self._alarm}"
                break
            self._changed.wait(left)

    def _raise(self, *not_sent: Undelivered) -> None:
        """Tell all that is not known to have arrived. The lock is held."""
        undelivered = [*self._without_confirmation(), *not_sent]
        what = self._ended or "the broker did not take every message"
        raise PublishError(
            f"{self.where}: {what}; the state stays as it was, and the next run publishes again "
            "what is not known to have arrived (with the same message ids)",
            undelivered,
        )

    def _without_confirmation(self) -> list[Undelivered]:
        # The connection's thread has ended or will never get far again; what it holds can only shrink.
        known = {tag: Undelivered(*each, "not confirmed") for tag, each in self._unconfirmed.items()}
        known.update(self._refused)
        return [known[tag] for tag in sorted(known)] + [
            Undelivered(message.routing_key, properties.message_id, len(message.body), "not sent")
            for message, properties in self._outbox
        ]

    # The connection's thread

    def _run_loop(self, parameters: pika.ConnectionParameters) -> None:
        try:
            self._connection = pika.SelectConnection(
                parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=lambda connection, reason: self._on_end(reason),
                on_close_callback=lambda connection, reason: self._on_end(reason),
            )
            with self._changed:
                self._loop = self._connection.ioloop
                if self._ended is not None:  # given up meanwhile
                    self._close_connection()
            self._loop.start()
        except Exception as exc:  # whatever it was, the collector's thread must not wait for ever
            LOGGER.debug("the connection's thread failed", exc_info=True)
            self._note_end(exc)
        finally:
            with self._changed:
                loop, self._loop = self._loop, None
            if loop is not None:
                loop.close()

    def _on_open(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(
            lambda connection, frame: self._on_alarm(frame.method.reason)
        )
        connection.add_on_connection_unblocked_callback(lambda connection, frame: self._on_alarm(None))
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        self._declare_next()

    def _declare_next(self, _frame: Any = None) -> None:
        if self._exchanges:
            exchange = self._exchanges.pop(0)
            self._channel.exchange_declare(
                exchange.name, exchange.type, durable=True, callback=self._declare_next
            )
        else:
            self._channel.confirm_delivery(self._on_confirm, callback=self._on_ready)

    def _on_ready(self, _frame: Any) -> None:
        with self._changed:
            self._ready = True
            self._changed.notify_all()

    def _send(self) -> None:
        """Give pika what is in the outbox."""
        publish = self._channel.basic_publish
        while self._outbox and self._channel.is_open:
            with self._changed:
                message, properties = self._outbox.popleft()
                # Before basic_publish: a confirmation may come while it runs.
                self._unconfirmed[self._next_tag] = (
                    message.routing_key,
                    properties.message_id,
                    len(message.body),
                )
                self._next_tag += 1
            publish(message.exchange, message.routing_key, message.body, properties, mandatory=True)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tag = method.delivery_tag
        tags = [each for each in self._unconfirmed if each <= tag] if method.multiple else [tag]
        acknowledged = isinstance(method, pika.spec.Basic.Ack)
        with self._changed:
            for each in tags:
                confirmed = self._unconfirmed.pop(each, None)
                if confirmed is None:
                    continue
                self._in_flight -= 1
                self._in_flight_bytes -= confirmed[2]
                if not acknowledged:
                    reason = "refused by the broker (nack): a queue is full, or could not store it"
                    self._refused[each] = Undelivered(*confirmed, reason)
            self._last_progress = time.monotonic()
            if self._in_flight <= self._window_messages // 2:
                self._changed.notify_all()

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if self._options["unroutable"] == "warn":
            LOGGER.warning(
                "%s: no queue takes %s (%s): the message is lost",
                self.where,
                method.routing_key,
                method.reply_text,
            )
            return
        reason = f"returned ({method.reply_text}): no queue is bound for it to {method.exchange!r}"
        returned = (method.routing_key, properties.message_id, len(body))
        with self._changed:
            # It comes without its tag, and before its confirmation.
            tag = next(
                tag
                for tag, each in self._unconfirmed.items()
                if each == returned and tag not in self._refused
            )
            self._refused[tag] = Undelivered(*returned, reason)

    def _on_alarm(self, reason: str | None) -> None:
        with self._changed:
            self._alarm = reason

    def _on_channel_closed(self, channel: Any, reason: Any) -> None:
        if not self._connection.is_closing and not self._connection.is_closed:
            self._note_end(reason)
            self._connection.close()

    def _on_end(self, reason: Any) -> None:
        self._note_end(reason)
        self._connection.ioloop.stop()

    def _note_end(self, reason: Any) -> None:
        with self._changed:
            if self._ended is None:
                self._ended = _told(reason)
            self._changed.notify_all()

    def _close_connection(self) -> None:
        connection = self._connection
        if connection.is_closed:
            connection.ioloop.stop()
        elif not connection.is_closing:
            connection.close()


def _told(reason: Any) -> str:
    """What pika says of an end, for a person."""
    code, text = getattr(reason, "reply_code", None), getattr(reason, "reply_text", None)
    if code:
        return f"the broker said {code} {text}"
    innermost = reason
    while inner := _inner(innermost):
        innermost = inner
    return str(innermost) or type(innermost).__name__


def _inner(reason: Any) -> BaseException | None:
    """The exception that pika wrapped into this one."""
    wrapped = [
        *getattr(reason, "exceptions", ()),
        *getattr(reason, "args", ()),
        getattr(reason, "exception", None),
    ]
    return next((each for each in reversed(wrapped) if isinstance(each, BaseException)), None)
