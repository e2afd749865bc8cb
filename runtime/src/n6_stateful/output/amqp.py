"""RabbitMQ, by way of pika, with publisher confirms.

pika's event loop is driven from here: the collector's thread turns it while it publishes and while it waits
for confirmations. When the collector is busy elsewhere, with a download of minutes say, a thread of ours
turns it instead, so that heartbeats are served. Whoever turns it, or touches pika at all, holds `_turning`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from urllib.parse import unquote, urlsplit

import pika

from n6_stateful.errors import CollectorError, ConfigError, PublishError
from n6_stateful.message import Exchange, Message, Undelivered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOGGER = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
AWAY_SECONDS = 0.25  # so long after its last call the collector counts as busy elsewhere
TICK_SECONDS = 0.25  # a turn of the loop takes no longer
SEND_BYTES = 64 << 10  # so much is gathered before the loop turns
JOINED_BYTES = 1 << 20  # more than that is not copied


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
        unreadable = ConfigError(
            "the output's URL cannot be read; in a user, a password or a virtual host write each of "
            "/ ? # @ [ ] % percent-encoded, for instance %23 for # (in a configuration file %%23)"
        )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise unreadable from None  # its text may hold a part of the password
        if "@" in parts.path + parts.query + parts.fragment:
            raise unreadable  # what seems to be the host is the user
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
        try:
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
        except ValueError as exc:  # for instance a port or a timeout out of its range
            raise ConfigError(f"the broker's configuration cannot be used: {exc}") from exc

    def _ssl_options(self) -> pika.SSLOptions | None:
        if self.tls is None:
            return None
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.tls["ssl_ca_certs"] or None)
            if self.tls["ssl_certfile"]:
                # With a password, since for a key that has one OpenSSL would ask at the terminal.
                context.load_cert_chain(
                    self.tls["ssl_certfile"], self.tls["ssl_keyfile"] or None, password=""
                )
        except (OSError, ssl.SSLError) as exc:
            named = ", ".join(path for path in self.tls.values() if path)
            raise ConfigError(f"a TLS file cannot be loaded ({named}): {exc}") from exc
        return pika.SSLOptions(context, self.host)


class _Connection(pika.SelectConnection):  # type: ignore[misc] # pika is not typed
    """Gathers frames until the loop turns, and sends those of small messages in one system call, where pika
    takes one for each frame.

    The name is one of pika's own; should a later pika not call it, messages are sent as pika sends them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._gathered: list[bytes] = []
        self._is_turning = False
        super().__init__(*args, **kwargs)

    def turn(self) -> None:
        """Send what can be sent, take what has come, call what is due; wait if there is nothing."""
        if self._gathered:
            frames, self._gathered = self._gathered, []
            if sum(map(len, frames)) < JOINED_BYTES:
                frames = [b"".join(frames)]
            super()._output_marshaled_frames(frames)
        self._is_turning = True
        try:
            self.ioloop.poll()
            self.ioloop.process_timeouts()
        finally:
            self._is_turning = False

    def _output_marshaled_frames(self, marshaled_frames: list[bytes]) -> None:
        if self._is_turning:
            super()._output_marshaled_frames(marshaled_frames)
        else:
            self._gathered += marshaled_frames


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

        self._turning = threading.Lock()
        self._wanted = False  # the collector's thread waits for that lock
        self._was_here = False  # it has called since the other thread looked last
        self._given_up = threading.Event()
        self._finished = False

        self._connection: Any = None
        self._channel: Any = None
        self._loop: Any = None
        self._exchanges: list[Exchange] = []
        self._ready = False
        self._alarm: str | None = None  # why the broker takes nothing for now
        self._ended: str | None = None  # why the connection is no more

        self._next_tag = 1
        self._unconfirmed: dict[int, tuple[str, str, int]] = {}  # by delivery tag, in their order
        self._unconfirmed_bytes = 0
        self._unsent_bytes = 0
        self._refused: dict[int, Undelivered] = {}
        self._last_progress = 0.0

    # Output

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Connect, log in, and declare the exchanges (durable, as n6 declares them)."""
        parameters = self._login.parameters(self._options)
        self._exchanges = list(exchanges) if self._options["declare"] else []
        self._take_turn()
        try:
            self._connection = _Connection(
                parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=lambda connection, reason: self._note_end(reason),
                on_close_callback=lambda connection, reason: self._note_end(reason),
            )
            self._loop = self._connection.ioloop
            self._loop.activate_poller()
            self._tick()
            threading.Thread(target=self._stand_in, name="n6-stateful-amqp", daemon=True).start()
            timeout = self._options["connect_timeout"]
            deadline = time.monotonic() + timeout
            while not self._ready and self._ended is None:
                if time.monotonic() > deadline:
                    self._ended = f"it was not ready within {timeout:g} s (connect_timeout)"
                    break
                self._turn()
        finally:
            self._turning.release()
        if self._ended is not None:
            raise PublishError(
                f"{self.where}: no connection: {self._ended}",
                consequence="nothing was published, and the state stays as it was",
            )
        LOGGER.info("connected to %s", self.where)

    def publish(self, message: Message) -> None:
        """Send a message; wait while the window is full."""
        exchange, routing_key, body, properties, _ = message
        size = len(body)
        try:
            pika_properties = pika.BasicProperties(**properties)
        except TypeError as exc:
            raise CollectorError(f"a message property that AMQP does not know: {exc}") from exc
        about = (routing_key, properties["message_id"], size)
        self._take_turn()
        try:
            if self._is_full(size):
                self._wait(lambda: self._has_room(size))
            if self._refused or self._ended is not None:
                self._wait(lambda: not self._unconfirmed)
                # Nothing is sent any more, and a collector that goes on all the same must not end well.
                self._refused[self._next_tag] = Undelivered(*about, "not sent")
                self._next_tag += 1
                self._raise()
            # Before basic_publish: a confirmation may come while it runs.
            self._unconfirmed[self._next_tag] = about
            self._next_tag += 1
            self._unconfirmed_bytes += size
            try:
                self._channel.basic_publish(exchange, routing_key, body, pika_properties, mandatory=True)
            except Exception as exc:
                # Nothing was sent, and the broker does not count it.
                self._next_tag -= 1
                self._unconfirmed_bytes -= self._unconfirmed.pop(self._next_tag)[2]
                told = f"{type(exc).__name__}: {exc}"
                raise CollectorError(
                    f"AMQP cannot hold a message to {routing_key[:80]!r}: {told[:200]}"
                ) from exc
            self._unsent_bytes += size
            if self._unsent_bytes >= SEND_BYTES:
                self._turn()
        finally:
            self._turning.release()

    def flush(self) -> None:
        """Wait for every confirmation."""
        self._take_turn()
        try:
            self._wait(lambda: not self._unconfirmed)
            # A connection that ended when all was confirmed is no error; whoever publishes more will see it.
            if self._refused or self._unconfirmed or self._given_up.is_set():
                self._raise()
        finally:
            self._turning.release()

    def close(self) -> None:
        """Wait for every confirmation, then for the connection's orderly end."""
        self.flush()
        ended = self._ended
        self._take_turn()
        try:
            self._close_connection(CLOSE_SECONDS)
        finally:
            self._turning.release()
        if ended is not None:
            LOGGER.warning("%s: %s; by then it had confirmed everything", self.where, ended)
        elif self._connection.is_closed:
            LOGGER.debug("closed the connection to %s", self.where)
        else:
            LOGGER.warning("%s confirmed everything, but does not close the connection", self.where)

    def abort(self) -> None:
        """Leave the connection to the other thread; what is unconfirmed may or may not have arrived."""
        self._ended = self._ended or "the run was given up"
        self._given_up.set()

    # Turning the loop

    def _take_turn(self) -> None:
        self._was_here = True
        if not self._turning.acquire(blocking=False):
            self._wanted = True
            self._loop.add_callback_threadsafe(lambda: None)  # the other thread's turn ends at once
            self._turning.acquire()
            self._wanted = False

    def _turn(self) -> None:
        """Send what can be sent, take what has come, call what is due; wait if there is nothing."""
        self._unsent_bytes = 0
        self._connection.turn()

    def _tick(self) -> None:
        self._loop.call_later(TICK_SECONDS, self._tick)

    def _stand_in(self) -> None:
        """The other thread: turn the loop while the collector is away, and end what was given up."""
        while not self._given_up.wait(AWAY_SECONDS) and not self._finished:
            if self._was_here:
                self._was_here = False
                continue
            while not (self._wanted or self._finished or self._given_up.is_set()):
                with self._turning:
                    if not self._finished:
                        self._turn()
        with self._turning:
            if not self._finished:
                self._close_connection(CLOSE_SECONDS)

    def _close_connection(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        # Nothing is lost here any more; and pika asserts where a connection ends before it is open.
        with suppress(Exception):
            if not (self._connection.is_closing or self._connection.is_closed):
                self._connection.close()
            while not self._connection.is_closed and time.monotonic() < deadline:
                self._turn()
        if self._connection.is_closed:
            self._finished = True
            self._loop.deactivate_poller()
            self._loop.close()

    def _wait(self, done: Callable[[], bool]) -> None:
        """Turn the loop until `done()`, or there is no more to wait for."""
        timeout = self._options["progress_timeout"]
        self._last_progress = time.monotonic()  # while the collector was busy, nobody may have looked
        while not done() and self._ended is None:
            if time.monotonic() > self._last_progress + timeout:
                self._ended = f"no message was confirmed for {timeout:g} s (progress_timeout)"
                if self._alarm is not None:
                    self._ended += f", because of an alarm at the broker: {self._alarm}"
                break
            self._turn()

    def _is_full(self, size: int) -> bool:
        return bool(self._unconfirmed) and (
            len(self._unconfirmed) >= self._window_messages
            or self._unconfirmed_bytes + size > self._window_bytes
        )

    def _has_room(self, size: int) -> bool:
        # Not just for one more: the loop would turn for each.
        return not self._unconfirmed or (
            len(self._unconfirmed) <= self._window_messages // 2
            and self._unconfirmed_bytes + size <= max(size, self._window_bytes // 2)
        )

    def _raise(self) -> None:
        """Tell all that is not known to have arrived."""
        known = {tag: Undelivered(*each, "not confirmed") for tag, each in self._unconfirmed.items()}
        known.update(self._refused)
        what = self._ended or "the broker did not take every message"
        raise PublishError(
            f"{self.where}: {what}",
            [known[tag] for tag in sorted(known)],
            "the state stays as it was, and the next run publishes again what is not known to have arrived "
            "(with the same message ids)",
        )

    # What pika calls

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
        self._ready = True

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tag = method.delivery_tag
        tags = list(takewhile(lambda each: each <= tag, self._unconfirmed)) if method.multiple else [tag]
        acknowledged = isinstance(method, pika.spec.Basic.Ack)
        for each in tags:
            confirmed = self._unconfirmed.pop(each, None)
            if confirmed is None:
                continue
            self._unconfirmed_bytes -= confirmed[2]
            if not acknowledged:
                reason = "refused by the broker (nack): a queue is full, or could not store it"
                self._refused[each] = Undelivered(*confirmed, reason)
        self._last_progress = time.monotonic()

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
        # It comes without its tag, and before its confirmation.
        tag = next(
            tag for tag, each in self._unconfirmed.items() if each == returned and tag not in self._refused
        )
        self._refused[tag] = Undelivered(*returned, reason)

    def _on_alarm(self, reason: str | None) -> None:
        self._alarm = reason

    def _on_channel_closed(self, channel: Any, reason: Any) -> None:
        if not self._connection.is_closing and not self._connection.is_closed:
            self._note_end(reason)
            self._connection.close()

    def _note_end(self, reason: Any) -> None:
        if self._ended is None:
            self._ended = _told(reason)


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
